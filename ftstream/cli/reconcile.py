"""`ftstream reconcile`: bring two filled databases together before a flow captured by outbox starts."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console

from ftstream.cli.errors import FAILED
from ftstream.cli.grid import grid, output
from ftstream.cli.options import dry_run_option, json_option, yes_option
from ftstream.compare.decision import Clash
from ftstream.compare.reconciliation import TablePlan, reconciliation
from ftstream.flows import FLOWS, Capture, Flow, Site
from ftstream.settings import Settings, load_settings

Doubles = Mapping[str, Mapping[str, str]]
"""Table to the rows that go, to those that stay in their place."""


def _flows() -> list[Flow]:
    return [flow for flow in FLOWS if flow.capture is Capture.OUTBOX]


class MapType(click.ParamType):
    """TABLE:GOES=STAYS."""

    name = "TABLE:GOES=STAYS"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, str, str]:
        if isinstance(value, tuple):
            return value
        table, _, ids = str(value).partition(":")
        goes, _, stays = ids.partition("=")
        if not (table and goes and stays) or goes == stays:
            self.fail(f"{value!r} is not TABLE:GOES=STAYS, with two ids", param, context)
        known = [each.name for flow in _flows() for each in flow.tables]
        if table not in known:
            self.fail(f"no table {table!r}; there are: {', '.join(known)}", param, context)
        return table, goes, stays


@click.command(
    epilog="""\b
Examples:
  ftstream reconcile --dry-run              what differs, and which site's row would stay
  ftstream reconcile overrides              asks first
  ftstream reconcile cue_sheets --prefer supabase
  ftstream reconcile cue_sheets --map cue_sheets:6f1c8a5e-...=0b2d44c1-...
Exit codes: 0 done, or nothing differs; 1 somebody must decide first, declined, or failed; 2 wrong use."""
)
@click.argument("names", metavar="[FLOW]...", nargs=-1)
@dry_run_option
@click.option(
    "--prefer",
    type=click.Choice([site.value for site in Site]),
    help="Whose row stays where both are older than ftstream; else the one written last.",
)
@click.option(
    "--map",
    "maps",
    type=MapType(),
    multiple=True,
    help="Two rows are one entity: this one goes, that one stays.",
)
@click.option("--limit", default=20, show_default=True, help="Rows listed, a table.")
@yes_option
@json_option
def reconcile(
    names: Sequence[str],
    dry_run: bool,
    prefer: str | None,
    maps: Sequence[tuple[str, str, str]],
    limit: int,
    yes: bool,
    as_json: bool,
) -> None:
    """Decide for each row that differs whose stays, and have the sites tell each other.

    For databases that were filled before ftstream came: a flow that both sites may write does not start
    before its tables have met. Rows are paired by id; the one that was written last stays, by its last
    write, or by its updated_at (where both sites have it) if that is older than ftstream. What is
    overwritten is kept in ftstream.displaced, as long as sync_log is. It works while both sites are
    written and workers run, and can be run again; so it also repairs what was lost with External's slot.
    """
    settings, flows = load_settings(), _chosen(names)
    settings.require_databases()
    if prefer and (owned := [flow.name for flow in flows if flow.owner is not None]):
        raise click.UsageError(f"--prefer: {', '.join(owned)} has an owner, whose rows stay")
    doubles: dict[str, dict[str, str]] = {}
    for table, goes, stays in maps:
        doubles.setdefault(table, {})[goes] = stays
    plans = asyncio.run(_plan(settings, flows, prefer, doubles))
    console = output(stderr=as_json)
    _show(plans, limit, console)
    undecided = any(plan.clashes for _, plan in plans)
    done = None
    if undecided:
        click.echo("nothing was changed: say which row stays with --map TABLE:GOES=STAYS", err=True)
    elif dry_run:
        click.echo("dry run: nothing was changed", err=True)
    else:
        rows = sum(len(plan.decisions) + len(plan.doubles) for _, plan in plans)
        if rows and not yes:
            click.confirm(f"Reconcile {rows} rows?", abort=True, err=True)
        done = asyncio.run(_carry_out(settings, plans))
        console.print(f"{done} rows are on their way: ftstream worker, then ftstream verify")
    if as_json:
        click.echo(json.dumps(_report(plans, done), indent=2))
    sys.exit(FAILED if undecided else 0)


def _chosen(names: Sequence[str]) -> list[Flow]:
    known = {flow.name: flow for flow in _flows()}
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(
            f"{', '.join(unknown)}: no flow captured by outbox; there are: {', '.join(known)}"
        )
    return [flow for flow in known.values() if not names or flow.name in names]


Plans = Sequence[tuple[Flow, TablePlan]]


async def _plan(
    settings: Settings, flows: Sequence[Flow], prefer: str | None, doubles: Doubles
) -> Plans:
    plans = []
    with Console(stderr=True, highlight=False).status("comparing") as status:
        for flow in flows:
            async with reconciliation(flow, settings, Site(prefer) if prefer else None) as opened:
                for table in flow.tables:
                    wanted = doubles.get(table.name, {})
                    plans.append((flow, await opened.plan(table, wanted, status.update)))
    return plans


async def _carry_out(settings: Settings, plans: Plans) -> int:
    done = 0
    with Console(stderr=True, highlight=False).status("reconciling") as status:
        for flow, plan in plans:
            async with reconciliation(flow, settings) as opened:
                done += await opened.carry_out(plan, status.update)
                await opened.met(plan)
    return done


def _show(plans: Plans, limit: int, console: Console) -> None:
    columns = ("table", "differ", "external stays", "supabase stays", "of one site only")
    table = grid(*columns, whole=["table"])
    for _, plan in plans:
        wins = plan.wins()
        table.add_row(
            plan.table.name,
            f"{len(plan.decisions):,}",
            *(f"{wins[site.value, False]:,}" for site in (Site.EXTERNAL, Site.SUPABASE)),
            f"{sum(count for (_, alone), count in wins.items() if alone):,}",
        )
    console.print(table)
    for _, plan in plans:
        decisions = sorted(plan.decisions.values(), key=lambda each: each.entity_id)
        for each in decisions[:limit]:
            whose = f"only {each.winner} has it" if each.alone else f"{each.winner} stays"
            console.print(f"{plan.table.name} {each.entity_id}  {whose}", soft_wrap=True)
        if (more := len(decisions) - limit) > 0:
            console.print(f"{plan.table.name}: and {more:,} more")
        for goes, stays in plan.doubles.items():
            console.print(f"{plan.table.name} {goes}  goes, for {stays}", soft_wrap=True)
        for clash in plan.clashes:
            console.print(f"{plan.table.name} {_clash(clash)}", soft_wrap=True)


def _clash(clash: Clash) -> str:
    rows = ", ".join(f"{entity_id} ({site})" for site, entity_id in clash.ids)
    return f"{', '.join(clash.columns)} = {clash.value} of {rows}: one of them only can have it"


def _report(plans: Plans, done: int | None) -> dict[str, Any]:
    return {
        "handed_over": done,
        "tables": [
            {
                "flow": flow.name,
                "table": plan.table.name,
                "rows": [
                    {"id": each.entity_id, "stays": each.winner, "one_site_only": each.alone}
                    for each in plan.decisions.values()
                ],
                "goes": dict(plan.doubles),
                "clashes": [
                    {
                        "columns": list(clash.columns),
                        "value": clash.value,
                        "rows": [{"site": site, "id": i} for site, i in clash.ids],
                    }
                    for clash in plan.clashes
                ],
            }
            for flow, plan in plans
        ],
    }
