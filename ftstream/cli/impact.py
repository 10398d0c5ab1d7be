"""`ftstream impact`: what was written in a time, where, by whom, and how often."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from ftstream.cli.encoding import encoded
from ftstream.cli.errors import WRONG_USE, CommandFailure
from ftstream.cli.flows import FlowType, TableType
from ftstream.cli.grid import grid, output
from ftstream.cli.since import SinceType
from ftstream.flows import FLOWS, Flow, Site, Table
from ftstream.recover.impact import Impact, Period, impact
from ftstream.recover.read_history import reaches, reading
from ftstream.settings import load_settings

COLUMNS = ("written on", "table", "by", "operation", "outcome", "changes", "rows", "from", "to")


@click.command(
    name="impact",
    epilog="""\b
Examples:
  ftstream impact --since 2h
  ftstream impact --since 2026-11-24T21:00 --until 2026-11-24T21:15 --flow overrides
  ftstream impact --since 1d --table gfx_hands --ids 100 --format csv > impact.csv
Exit codes: 0 shown, 1 the log does not reach back so far, 2 wrong use, 3 a site does not answer.""",
)
@click.option(
    "--since", type=SinceType(), required=True, metavar="TIME", help="2h, or an ISO time."
)
@click.option("--until", type=SinceType(), metavar="TIME", help="Before that; else until now.")
@click.option("--flow", type=FlowType(), help="One flow.")
@click.option("--table", "chosen", type=TableType(), help="One table.")
@click.option("--ids", default=5, show_default=True, help="Rows named in each line at most.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
)
@click.pass_context
def command(
    context: click.Context,
    since: datetime,
    until: datetime | None,
    flow: Flow | None,
    chosen: tuple[Flow, Table] | None,
    ids: int,
    form: str,
) -> None:
    """Show what was written since a time, as both sites have received it: the first step after an accident.

    Times are those of the writes. What was written past ftstream is in no log: `ftstream verify` finds it.
    """
    period = Period(since, until or datetime.now(UTC))
    if period.until <= period.since:
        raise CommandFailure("--until lies before --since", WRONG_USE)
    flows = [chosen[0]] if chosen else [flow] if flow else list(FLOWS)
    if chosen and flow and chosen[0] is not flow:
        raise CommandFailure(f"{chosen[1].name} is of flow {chosen[0].name}", WRONG_USE)
    found, begins = asyncio.run(_read(flows, chosen[1] if chosen else None, period, ids))
    _show(found, form)
    if short := [f"{site}'s from {at:%Y-%m-%d}" for site, at in begins.items() if at > since]:
        click.echo(f"the log does not reach back so far: {', '.join(short)}", err=True)
        context.exit(1)


async def _read(
    flows: Sequence[Flow], table: Table | None, period: Period, ids: int
) -> tuple[list[Impact], dict[Site, datetime]]:
    settings = load_settings()
    settings.require_databases()
    found: list[Impact] = []
    begins: dict[Site, datetime] = {}
    for site in Site:
        here = [flow for flow in flows if site in flow.targets]
        tables = [t for flow in here for t in flow.tables if table in (None, t)]
        if tables:
            async with reading(settings, site) as connection:
                found += await impact(connection, site, tables, period, ids)
                if (since := await reaches(connection)) is not None:
                    begins[site] = since
    return sorted(found, key=lambda each: -each.changes), begins


def _show(found: Sequence[Impact], form: str) -> None:
    if form == "json":
        shown = [dataclasses.asdict(each) for each in found]
        click.echo(json.dumps(shown, indent=2, default=encoded, ensure_ascii=False))
    elif form == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow([*COLUMNS, "ids"])
        for each in found:
            writer.writerow([*_cells(each), " ".join(each.ids)])
    elif not found:
        click.echo("nothing was written")
    else:
        table = grid(*COLUMNS, "rows written last", whole=["table", "written on"])
        for each in found:
            more = ["..."] if each.rows > len(each.ids) else []
            table.add_row(*_cells(each), "\n".join([*each.ids, *more]))
        output().print(table)


def _cells(each: Impact) -> list[str]:
    times = (each.first, each.last)
    return [
        each.written_on.value,
        each.table_name,
        each.author or "-",
        each.operation,
        each.outcome,
        str(each.changes),
        str(each.rows),
        *(at.astimezone().strftime("%Y-%m-%d %H:%M:%S") for at in times),
    ]
