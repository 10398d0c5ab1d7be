"""`ftstream history`: everything that happened to one row, on both sites."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import click

from ftstream.cli.flows import TableType, spellings
from ftstream.cli.grid import grid, output
from ftstream.cli.options import json_option
from ftstream.flows import Flow, Table
from ftstream.recover.history import HistoryEntry, changed, ordered
from ftstream.recover.read_history import entries, reading
from ftstream.settings import load_settings

SHOWN = 60
"""Characters of a value; --json has all of it."""


@click.command(
    epilog="""\b
Examples:
  ftstream history gfx_hands 6f1c8a5e-7c0e-4c8e-9d7e-2f6a1b0c3d4e
  ftstream history gfx_hands 6f1c8a5e-7c0e-4c8e-9d7e-2f6a1b0c3d4e --json
Exit codes: 0, 1 nothing is known of it or a database does not answer, 2 wrong use."""
)
@click.argument("table", metavar="TABLE", type=TableType())
@click.argument("entity_id", metavar="ID")
@json_option
@click.pass_context
def history(
    context: click.Context, table: tuple[Flow, Table], entity_id: str, as_json: bool
) -> None:
    """Show each change of a row that a site has received: when, whose, what became of it.

    A change is logged where it arrives, for as long as sync_log is kept. Of flows that both sites may
    write its values are shown too, those that lost a conflict among them; `ftstream revert` with the
    version of one makes it the row again.
    """
    flow, chosen = table
    found = ordered(asyncio.run(_read(flow, chosen, entity_id)))
    if as_json:
        click.echo(_document(found))
    elif found:
        _show(found, f"{chosen.name} {entity_id}")
    if not found:
        click.echo(f"nothing is logged of {chosen.name} {entity_id}", err=True)
        context.exit(1)


async def _read(flow: Flow, table: Table, entity_id: str) -> list[HistoryEntry]:
    settings = load_settings()
    settings.require_databases()
    found: list[HistoryEntry] = []
    for site in flow.targets:
        async with reading(settings, site) as connection:
            read = await entries(connection, site, table, spellings(entity_id))
            found += [entry for each in read.values() for entry in each]
    return found


def _show(found: list[HistoryEntry], title: str) -> None:
    columns = ("written", "version", "arrived at", "by", "operation", "outcome", "what")
    table = grid(*columns, whole=["version"], title=title)
    before: HistoryEntry | None = None
    for entry in found:
        what = _what(before, entry)
        table.add_row(
            _local(entry.source_time),
            str(entry.stamp.version) if entry.stamp else "",
            f"{entry.at} {_local(entry.logged_at)}",
            " ".join(filter(None, (entry.author, entry.stamp and f"({entry.stamp.site})"))),
            entry.operation or "unreadable",
            entry.outcome,
            what,
        )
        if entry.stamp is not None and entry.outcome == "applied":
            before = entry
    output().print(table)


def _what(before: HistoryEntry | None, entry: HistoryEntry) -> str:
    if entry.stamp is None or entry.row is None:
        return ""
    differences = changed(before.row if before else None, entry.row)
    return "\n".join(
        f"{name}: {_short(new)}" if before is None else f"{name}: {_short(old)} -> {_short(new)}"
        for name, (old, new) in differences.items()
        if before is not None or new is not None
    )


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _local(at: datetime | None) -> str:
    return "-" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _document(found: list[HistoryEntry]) -> str:
    """Rows go into it as PostgreSQL wrote them: no number loses a digit."""
    parts = []
    for entry in found:
        head = {
            "site": entry.at,
            "logged_at": entry.logged_at.astimezone(UTC).isoformat(),
            "operation": entry.operation,
            "outcome": entry.outcome,
            "written_at": entry.source_time and entry.source_time.astimezone(UTC).isoformat(),
            "version": entry.stamp and entry.stamp.version,
            "written_on": entry.stamp and entry.stamp.site,
            "author": entry.author or None,
        }
        parts.append(f'{json.dumps(head)[:-1]}, "row": {entry.image or "null"}}}')
    return "[" + ",\n ".join(parts) + "]"
