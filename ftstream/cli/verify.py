"""`ftstream verify`: compare both sites."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console

from ftstream.cli.errors import FAILED, UNREACHABLE
from ftstream.cli.flows import FlowType, complete_tables
from ftstream.cli.grid import grid, output
from ftstream.cli.setup_lines import show_setup
from ftstream.compare.comparison import Difference, DifferenceKind
from ftstream.compare.verification import TableVerdict, repair, verify
from ftstream.flows import FLOWS, Capture, Flow, Site, Table
from ftstream.settings import Settings, load_settings
from ftstream.setup.look import SetupLook

_OTHER_EXITS = (
    "1 something differs, or capture is not as `init` left it\n"
    "(told on standard error), 2 wrong use or settings"
)


@click.command(
    name="verify",
    epilog=f"""\b
Examples:
  ftstream verify
  ftstream verify gfx --table gfx_hands --limit 100
  ftstream verify --format json
  ftstream verify gfx --repair    shows what differs, asks, repairs, and compares again
Exit codes: 0 equal, {_OTHER_EXITS}, 3 somebody does not answer.""",
)
@click.argument("flows", nargs=-1, type=FlowType(), metavar="[FLOW]...")
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="TABLE",
    help="Some tables; all without.",
    shell_complete=complete_tables(),
)
@click.option("--limit", default=20, show_default=True, help="Differing rows listed, a table.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds that applying may take.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)
@click.option(
    "--repair",
    "repairs",
    is_flag=True,
    help="Carry rows that are missing or different, and remove those that the owner does not have;"
    " where nobody owns them, the last write of each stays.",
)
@click.option("--yes", is_flag=True, help="With --repair: do not ask.")
def command(
    flows: tuple[Flow, ...],
    tables: tuple[str, ...],
    limit: int,
    timeout: float,
    form: str,
    repairs: bool,
    yes: bool,
) -> None:
    """Compare every row of both sites, while changes go on.

    Rows in flight are looked at again until they are applied. Columns that one site has alone are
    named, and not compared.
    """
    settings = load_settings()
    chosen = _chosen(flows, tables)
    verdicts = asyncio.run(_verify(settings, chosen, limit, timeout))
    if repairs and not all(verdict.equal for verdict in verdicts):
        _show(verdicts, output(stderr=form == "json"))
        _confirm(verdicts, yes)
        verdicts = asyncio.run(_repaired(settings, chosen, limit, timeout))
    if form == "json":
        click.echo(json.dumps(_report(verdicts), indent=2))
    else:
        _show(verdicts, output())
    # Equal now, they would not stay so.
    found = asyncio.run(show_setup(settings, [flow for flow, _ in chosen]))
    sys.exit(_exit_code(verdicts, found))


def _exit_code(verdicts: Sequence[TableVerdict], found: SetupLook) -> int:
    """Gaps do not count: what they may have cost has just been compared."""
    if not all(verdict.equal for verdict in verdicts):
        return FAILED
    if found.silent:
        return UNREACHABLE
    return FAILED if found.faults else 0


def _chosen(flows: Sequence[Flow], tables: Sequence[str]) -> list[tuple[Flow, list[Table]]]:
    selected = flows or FLOWS
    known = {table.name for flow in selected for table in flow.tables}
    if unknown := [name for name in tables if name not in known]:
        raise click.UsageError(
            f"no such table: {', '.join(unknown)}; there are: {', '.join(sorted(known))}"
        )
    chosen = [
        (flow, [t for t in flow.tables if not tables or t.name in tables]) for flow in selected
    ]
    return [(flow, its_tables) for flow, its_tables in chosen if its_tables]


async def _verify(
    settings: Settings, chosen: Sequence[tuple[Flow, Sequence[Table]]], limit: int, timeout: float
) -> list[TableVerdict]:
    verdicts: list[TableVerdict] = []
    # On stderr, and on a terminal only: what is printed stays a result for programs.
    with Console(stderr=True, highlight=False).status("comparing") as status:
        for flow, tables in chosen:
            verdicts += await verify(
                flow, settings, tables=tables, limit=limit, timeout=timeout, say=status.update
            )
    return verdicts


def _confirm(verdicts: Sequence[TableVerdict], yes: bool) -> None:
    owned = [verdict for verdict in verdicts if verdict.flow.owner is not None]
    extra = sum(verdict.counts[DifferenceKind.EXTRA] for verdict in owned)
    total = sum(verdict.counts.total() for verdict in verdicts)
    if not yes:
        stays = "" if len(owned) == len(verdicts) else ", the last write of others stays"
        asked = f"Repair {total} rows? {extra} that their owner does not have are removed{stays}."
        click.confirm(asked, abort=True, err=True)


async def _repaired(
    settings: Settings, chosen: Sequence[tuple[Flow, Sequence[Table]]], limit: int, timeout: float
) -> list[TableVerdict]:
    for flow, tables in chosen:
        rows = await repair(flow, settings, tables=tables, timeout=timeout)
        click.echo(f"flow {flow.name}: asked for {rows} rows", err=True)
    return await _verify(settings, chosen, limit, timeout)


def _show(verdicts: Sequence[TableVerdict], out: Console) -> None:
    table = grid("table", "rows", *DifferenceKind, "", whole=["table"])
    for verdict in verdicts:
        counts = [f"{verdict.counts[kind]:,}" for kind in DifferenceKind]
        table.add_row(
            verdict.table.name,
            f"{verdict.rows:,}",
            *counts,
            "equal" if verdict.equal else "differs",
        )
    out.print(table)
    for verdict in verdicts:
        for site, columns in verdict.only_at.items():
            out.print(f"{verdict.table.name}: only on {site}: {', '.join(columns)}")
        for difference in verdict.listed:
            out.print(f"{verdict.table.name} {_line(difference)}", soft_wrap=True)
        if (more := verdict.counts.total() - len(verdict.listed)) > 0 and verdict.listed:
            out.print(f"{verdict.table.name}: and {more:,} more")
    for name in {v.flow.name: None for v in verdicts if not v.equal and _by_batch(v.flow)}:
        out.print(
            f"{name}: the next run carries what differs, unless it halts, or a new column waits for"
            " `ftstream schemas accept`: see `ftstream batch status`; at once: `ftstream batch run`",
            soft_wrap=True,
        )
    total = sum(verdict.rows for verdict in verdicts)
    equal = all(verdict.equal for verdict in verdicts)
    out.print(f"both sites equal: {total} rows" if equal else "the sites differ")


def _by_batch(flow: Flow) -> bool:
    return flow.capture is Capture.BATCH


def _line(difference: Difference) -> str:
    columns = f": {', '.join(difference.columns)}" if difference.columns else ""
    return f"{difference.id}  {difference.kind}{columns}"


def _report(verdicts: Sequence[TableVerdict]) -> dict[str, Any]:
    return {
        "equal": all(verdict.equal for verdict in verdicts),
        "tables": [
            {
                "flow": verdict.flow.name,
                "table": verdict.table.name,
                "rows": verdict.rows,
                **{kind.value: verdict.counts[kind] for kind in DifferenceKind},
                "columns_only_at": {
                    site.value: list(verdict.only_at.get(site, ())) for site in Site
                },
                "differences": [
                    {"id": d.id, "kind": d.kind.value, "columns": list(d.columns)}
                    for d in verdict.listed
                ],
            }
            for verdict in verdicts
        ],
    }
