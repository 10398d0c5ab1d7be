"""The tables of which both sites know every row: a flow that both write does not start before."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import AsyncConnection

from ftstream.flows import Table
from ftstream.postgres.queries import Queries, statement

_QUERIES = Queries.load(__package__, "reconciled.sql")


async def unreconciled(connection: AsyncConnection, tables: Iterable[Table]) -> list[str]:
    """Return those of these tables whose rows the other site may not know. Raises psycopg.Error."""
    names = {"tables": [table.name for table in tables]}
    cursor = await connection.execute(statement(_QUERIES["unreconciled"]), names)
    return [row[0] for row in await cursor.fetchall()]


async def mark(connection: AsyncConnection, tables: Iterable[Table]) -> None:
    """The other site knows of every row of these, or is told. Raises psycopg.Error."""
    names = {"tables": [table.name for table in tables]}
    await connection.execute(statement(_QUERIES["mark"]), names)
