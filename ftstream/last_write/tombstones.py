"""Forgets deletes that both sites have known for long: a tombstone that one of them needs stays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import permutations

from psycopg import AsyncConnection

from ftstream.flows import Table
from ftstream.messages.change import Stamp
from ftstream.postgres.connection import Json
from ftstream.postgres.queries import Queries, identifier, statement

QUERIES = Queries.load(__package__, "tombstones.sql")

MOST = 5_000
"""Of a table and site, looked at together."""


async def prune(connections: Sequence[AsyncConnection], table: Table, before: int) -> int:
    """Forget the deletes of a table from before a version; how many. Raises psycopg.Error.

    `connections` are those of both sites. Each horizon is raised before anything is forgotten: a write
    that is older, and comes late, must not bring a row back. A tombstone that one site alone still has,
    since this was interrupted, goes with the next.
    """
    pruned = 0
    for here, there in permutations(connections):
        async for old in _old(here, table, before):
            if agreed := await _agreed(there, table, old):
                await _forget(connections, table, agreed)
                pruned += len(agreed)
    return pruned


async def horizon(connection: AsyncConnection, table: Table) -> int:
    """Up to which version a write of an unknown entity is refused here. Raises psycopg.Error."""
    cursor = await connection.execute(statement(QUERIES["horizon"]), {"name": table.name})
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def _old(
    connection: AsyncConnection, table: Table, before: int
) -> AsyncIterator[dict[str, Stamp]]:
    last = Stamp(-1, "")
    after = ""
    while True:
        values = {"name": table.name, "before": before, "most": MOST}
        values |= {"after_version": last.version, "after_id": after}
        cursor = await connection.execute(statement(QUERIES["old"]), values)
        found = {row[0]: Stamp(row[1], row[2]) for row in await cursor.fetchall()}
        if not found:
            return
        after, last = list(found.items())[-1]
        yield found


async def _agreed(
    connection: AsyncConnection, table: Table, tombstones: dict[str, Stamp]
) -> dict[str, Stamp]:
    """Return those that this site has too, or has forgotten before. It may never have heard of one."""
    forgotten = await horizon(connection, table)
    names = {"table": identifier(table.schema, table.name), "key": identifier(table.key)}
    cursor = await connection.execute(
        statement(QUERIES["known"]).format(**names), {"name": table.name, "ids": list(tombstones)}
    )
    agreed = {}
    for entity_id, version, site, deleted, there, waits in await cursor.fetchall():
        stamp = tombstones[entity_id]
        same = deleted and Stamp(version, site) == stamp
        gone = same or (version is None and stamp.version <= forgotten)
        if gone and not there and not waits:
            agreed[entity_id] = stamp
    return agreed


async def _forget(
    connections: Sequence[AsyncConnection], table: Table, agreed: dict[str, Stamp]
) -> None:
    newest = max(stamp.version for stamp in agreed.values())
    for connection in connections:
        values = {"name": table.name, "version": newest}
        await connection.execute(statement(QUERIES["raise_horizon"]), values)
    rows = Json.of([{"id": i, "version": s.version, "site": s.site} for i, s in agreed.items()])
    for connection in connections:
        values = {"name": table.name, "tombstones": rows}
        await connection.execute(statement(QUERIES["prune"]), values)
