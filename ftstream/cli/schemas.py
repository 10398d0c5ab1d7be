"""`ftstream schemas`: the Avro schemas of batch-captured tables, as kept and as External has them now."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ftstream.capture.batch.drift import Drift, drifts
from ftstream.cli.errors import FAILED, CommandFailure
from ftstream.cli.flows import TableType
from ftstream.cli.grid import output
from ftstream.cli.nearest import Group
from ftstream.cli.options import dry_run_option, json_option
from ftstream.flows import FLOWS, Capture, Flow, Site, Table
from ftstream.messages.avro_compatibility import ColumnDifference
from ftstream.messages.kept_schemas import kept_schemas
from ftstream.postgres.connection import open_site
from ftstream.settings import Settings, load_settings

EXIT_CODES = """\b
Exit codes:
  0  as kept, or what differs is compatible; accepted; every version follows from the one before
  1  incompatible, or not kept yet; declined; External does not answer
  2  wrong use, or wrong settings
"""


# Names of columns may have square brackets, which would be taken for markup.
console = output()


def _flows() -> list[Flow]:
    """Return the flows that travel in Avro."""
    return [flow for flow in FLOWS if flow.capture is Capture.BATCH]


tables_argument = click.argument(
    "tables",
    metavar="[TABLE]...",
    nargs=-1,
    type=TableType(_flows, "no table that travels in Avro"),
)


@click.group(cls=Group, epilog=EXIT_CODES)
def schemas() -> None:
    """Compare, accept and check the Avro schemas of tables that go through Kafka in batches.

    Every version is kept as a file, FLOW/TABLE/NNN.avsc, so that old messages stay readable: in the
    repository under connectors/schemas, or in schemas.folder where that is set.

    \b
    Examples:
      ftstream schemas diff              what External's tables have that the schemas have not
      ftstream schemas accept --dry-run  the next versions, shown and not written
      ftstream schemas check             the files alone, without a database
    """


@schemas.command(epilog=EXIT_CODES)
@tables_argument
@json_option
@click.pass_context
def diff(context: click.Context, tables: tuple[tuple[Flow, Table], ...], as_json: bool) -> None:
    """Compare the newest kept schemas with External's tables now; exit code 1 if they do not agree.

    Compatible means that messages of either schema can be read with the other: a column that is new or
    gone. A column that travels as another type is incompatible.

    \b
    Examples:
      ftstream schemas diff
      ftstream schemas diff wsop_players --json | jq '.[].differences'
    """
    found = _drifts(load_settings(), tables)
    if as_json:
        click.echo(json.dumps([_document(drift) for drift in found], indent=2))
    else:
        for drift in found:
            _show(drift)
    if not all(drift.compatible for drift in found):
        context.exit(FAILED)


@schemas.command(epilog=EXIT_CODES)
@tables_argument
@dry_run_option
@click.option("--yes", is_flag=True, help="Do not ask, even if it is incompatible.")
def accept(tables: tuple[tuple[Flow, Table], ...], dry_run: bool, yes: bool) -> None:
    """Keep External's tables as they are now as the next version of their schemas.

    Asks first where that is incompatible with the version before; the file then says what it breaks. Kept
    versions are never changed or removed.

    \b
    Examples:
      ftstream schemas accept
      ftstream schemas accept wsop_chip_counts --yes
    """
    settings = load_settings()
    new = [drift for drift in _drifts(settings, tables) if not drift.equal]
    for drift in new:
        _show(drift)
    if not new:
        click.echo("nothing to accept: the tables are as kept")
        return
    places = {flow.name: kept_schemas(flow, settings) for flow in _flows()}
    paths = {d.table: places[d.now.flow].next_path(d.table) for d in new}
    if dry_run:
        for path in paths.values():
            click.echo(f"would write {_short(path)}")
        click.echo("dry run: nothing was changed")
        return
    if not yes and any(drift.breaks for drift in new):
        click.confirm(
            "Accept? What reads messages with an older schema alone cannot read the new ones",
            abort=True,
        )
    for drift in new:
        try:
            path = places[drift.now.flow].keep(drift.table, drift.accepted)
        except OSError as error:
            raise CommandFailure(str(error)) from error
        click.echo(f"wrote {_short(path)}")
    click.echo(_next_steps(settings))


@schemas.command(epilog=EXIT_CODES)
@click.pass_context
def check(context: click.Context) -> None:
    """Read the kept files: each version is compatible with the one before it, or says what it breaks.

    \b
    Examples:
      ftstream schemas check
    """
    settings = load_settings()
    problems: list[str] = []
    for flow in _flows():
        kept = kept_schemas(flow, settings)
        kept.by_fingerprint()  # raises where two schemas cannot be told apart
        for table in flow.tables:
            if kept.newest(table) is None:
                problems.append(f"{table.name}: no schema is kept")
            problems += [
                f"{table.name}: {broken}, which no file says to be accepted"
                for broken in kept.unaccepted(table)
            ]
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        context.exit(FAILED)
    click.echo("schemas: every version follows from the one before it")


def _drifts(settings: Settings, chosen: Sequence[tuple[Flow, Table]]) -> list[Drift]:
    settings.require_databases()
    return asyncio.run(_read(settings, [table for _, table in chosen]))


async def _read(settings: Settings, tables: Sequence[Table]) -> list[Drift]:
    external = await open_site(settings, Site.EXTERNAL)
    async with external:
        return [
            drift
            for flow in _flows()
            for drift in await drifts(
                external,
                flow,
                kept_schemas(flow, settings),
                [table for table in flow.tables if not tables or table in tables],
            )
        ]


def _show(drift: Drift) -> None:
    name = drift.table.name
    if drift.kept is None:
        console.print(f"{name}: no schema is kept yet")
    elif drift.equal:
        console.print(f"{name}: as kept ({drift.kept.number:03})")
    else:
        verdict = "compatible" if drift.compatible else "incompatible"
        console.print(f"{name}: differs from {drift.kept.number:03}, {verdict}")
    for each in drift.differences:
        console.print(f"  {each}{_remark(each)}", soft_wrap=True)


def _remark(difference: ColumnDifference) -> str:
    if not difference.compatible:
        return "  (incompatible)"
    # A run that knows the column could only write NULL over it.
    return "  (runs halt until this is accepted)" if difference.now is None else ""


def _document(drift: Drift) -> dict[str, Any]:
    return {
        "flow": drift.now.flow,
        "table": drift.table.name,
        "version": drift.kept.number if drift.kept else None,
        "equal": drift.equal,
        "compatible": drift.compatible,
        "differences": [
            {"column": d.column, "was": d.was, "now": d.now, "compatible": d.compatible}
            for d in drift.differences
        ],
    }


def _next_steps(settings: Settings) -> str:
    if settings.schemas.folder is None:
        return "Next: commit the files, and install them for every worker before the next run."
    return (
        "Next: see that every worker reads this folder. The next run goes by it: ftstream batch run"
    )


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
