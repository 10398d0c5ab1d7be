"""Reads what a site has received of entities, and what it knows of their last writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from psycopg import AsyncConnection

from ftstream.flows import Site, Table
from ftstream.messages.change import Stamp
from ftstream.postgres.connection import SESSION, open_site
from ftstream.postgres.queries import Queries, statement
from ftstream.recover.history import HistoryEntry
from ftstream.settings import Settings

QUERIES = Queries.load(__package__, "history.sql")


@asynccontextmanager
async def reading(
    settings: Settings, site: Site, *, admin: bool = False
) -> AsyncIterator[AsyncConnection]:
    """A connection in a transaction that shows values exactly, and times so that psycopg can read them.

    Whatever the role prefers. Raises psycopg.OperationalError.
    """
    opened = await open_site(settings, site, admin=admin)
    async with opened as connection, connection.transaction():
        await connection.execute(statement(SESSION["exact_text"]))
        yield connection


async def entries(
    connection: AsyncConnection, at: Site, table: Table, ids: Collection[str]
) -> dict[str, list[HistoryEntry]]:
    """Return what is logged of these, by entity. Raises psycopg.Error, as all here do."""
    values = {"table": table.name, "ids": list(ids)}
    cursor = await connection.execute(statement(QUERIES["entries"]), values)
    found: dict[str, list[HistoryEntry]] = {}
    for key, *columns in await cursor.fetchall():
        found.setdefault(key, []).append(_entry(at, *columns))
    return found


async def changed_since(connection: AsyncConnection, table: Table, since: datetime) -> set[str]:
    """The entities that were written since, as far as this site knows."""
    values = {"table": table.name, "since": since}
    cursor = await connection.execute(statement(QUERIES["changed_since"]), values)
    return {row[0] for row in await cursor.fetchall()}


async def last_writes(
    connection: AsyncConnection, table: Table, ids: Collection[str]
) -> dict[str, Stamp]:
    """The last writes of these, as this site knows them."""
    values = {"table": table.name, "ids": list(ids)}
    cursor = await connection.execute(statement(QUERIES["last_writes"]), values)
    return {row[0]: Stamp(row[1], row[2]) for row in await cursor.fetchall()}


async def reaches(connection: AsyncConnection) -> datetime | None:
    """Since when this site's log is whole; None: there is no log yet."""
    cursor = await connection.execute(statement(QUERIES["reaches"]))
    row = await cursor.fetchone()
    return row[0] if row else None


def _entry(
    at: Site,
    logged_at: datetime,
    operation: str | None,
    outcome: str,
    source_time: datetime | None,
    version: int | None,
    site: str,
    author: str | None,
    image: str | None,
    json_nulls: Sequence[str],
) -> HistoryEntry:
    stamp = None if version is None else Stamp(version, site)
    return HistoryEntry(
        at.value,
        logged_at,
        operation,
        outcome,
        source_time,
        stamp,
        author or "",
        image,
        frozenset(json_nulls),
    )
