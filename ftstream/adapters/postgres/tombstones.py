"""Forgets deletes that both sites have known for long: a tombstone that one of them needs stays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from psycopg import AsyncConnection

from ftstream.adapters.postgres.connection import Json
from ftstream.adapters.postgres.queries import Queries, statement
from ftstream.core.register import Stamp

QUERIES = Queries.load(__package__, "tombstones.sql")

MOST = 5_000
"""Of a table and site, looked at together."""


async def prune(connections: Sequence[AsyncConnection], table: str, before: int) -> int:
    """Forget the oldest deletes of a table from before a version; how many. Raises psycopg.Error.

    `connections` are those of both sites. Each horizon is raised before anything is forgotten: a write
    that is older, and comes late, must not bring a row back. A tombstone that one site alone still has,
    since this was interrupted, goes with the next.
    """
    pruned = 0
    for here, there in permutations(connections):
        old = await _old(here, table, before)
        agreed = await _agreed(there, table, old)
        if not agreed:
            continue
        newest = max(stamp.version for stamp in agreed.values())
        rows = [{"id": i, "version": s.version, "site": s.site} for i, s in agreed.items()]
        for connection in connections:
            values = {"table": table, "version": newest}
            await connection.execute(statement(QUERIES["raise_horizon"]), values)
        for connection in connections:
            values = {"table": table, "tombstones": Json.of(rows)}
            await connection.execute(statement(QUERIES["prune"]), values)
        pruned += len(agreed)
    return pruned


async def horizon(connection: AsyncConnection, table: str) -> int:
    """Up to which version a write of an unknown entity is refused here. Raises psycopg.Error."""
    cursor = await connection.execute(statement(QUERIES["horizon"]), {"table": table})
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def _old(connection: AsyncConnection, table: str, before: int) -> dict[str, Stamp]:
    values = {"table": table, "before": before, "most": MOST}
    cursor = await connection.execute(statement(QUERIES["old"]), values)
    return {row[0]: Stamp(row[1], row[2]) for row in await cursor.fetchall()}


async def _agreed(
    connection: AsyncConnection, table: str, tombstones: dict[str, Stamp]
) -> dict[str, Stamp]:
    """Those that this site has too, or has forgotten before."""
    if not tombstones:
        return {}
    forgotten = await horizon(connection, table)
    cursor = await connection.execute(
        statement(QUERIES["known"]), {"table": table, "ids": list(tombstones)}
    )
    agreed = {}
    for entity_id, version, site, deleted, waits in await cursor.fetchall():
        stamp = tombstones[entity_id]
        same = deleted and Stamp(version, site) == stamp
        if not waits and (same or (version is None and stamp.version <= forgotten)):
            agreed[entity_id] = stamp
    return agreed
