"""What a site holds of entities of a flow captured by outbox, and has the other site told of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection, AsyncCursor, sql

from ftstream.compare.decision import Decision, Held
from ftstream.flows import Site, Table
from ftstream.messages.change import Stamp
from ftstream.postgres.catalog import Column
from ftstream.postgres.connection import SESSION
from ftstream.postgres.queries import Queries, identifier, literal, statement

QUERIES = Queries.load(__package__, "reconcile.sql")

BATCH = 500
"""Rows that are handed over in one transaction, which holds them."""


class Holding:
    """A site's rows of one table, and their last writes. Every method may raise psycopg.Error."""

    def __init__(
        self, connection: AsyncConnection, site: Site, table: Table, columns: Sequence[Column]
    ) -> None:
        """`columns`: those that both sites have."""
        self.site = site
        self._connection = connection
        self._table = table
        key = next(column for column in columns if column.name == table.key)
        dated = any(column.name == table.written for column in columns)
        self._parts: dict[str, sql.Composable] = {
            "table": identifier(table.schema, table.name),
            "name": literal(table.name),
            "key": identifier(table.key),
            "key_type": sql.SQL(key.cast_type),  # from format_type()
            "written": statement(QUERIES["written"]).format(column=identifier(table.written))
            if dated
            else sql.SQL("0"),
        }

    async def held(self, ids: Collection[str]) -> dict[str, Held]:
        """Return what the site holds of each of these entities."""
        rows = await self._read("held", ids=list(ids))
        return {
            entity_id: Held(
                there,
                int(written),
                None if version is None else Stamp(version, site),
                bool(deleted),
                reserved,
            )
            for entity_id, there, written, version, site, deleted, reserved in rows
        }

    async def ledger(self) -> AsyncIterator[tuple[str, Stamp]]:
        """Every last write, in an order that is the same on both sites."""
        connection, values = self._connection, {"table": self._table.name}
        async with connection.transaction(), connection.cursor("ftstream_ledger") as cursor:
            cursor.itersize = 10_000
            await cursor.execute(statement(QUERIES["ledger"]), values)
            async for entity_id, version, site in cursor:
                yield entity_id, Stamp(version, site)

    async def unique_values(self, columns: Sequence[str], ids: Collection[str]) -> dict[str, str]:
        """Id to value, of those rows of which it is not NULL."""
        names = [sql.SQL("t.{}").format(identifier(name)) for name in columns]
        parts = {
            "columns": sql.SQL(", ").join(names),
            "present": sql.SQL(" and ").join(sql.SQL("{} is not null").format(n) for n in names),
        }
        return dict(await self._read("unique_values", parts, ids=list(ids)))

    async def keep(self, ids: Sequence[str]) -> None:
        """Keep copies of these rows, before they are overwritten or deleted."""
        for start in range(0, len(ids), BATCH):
            async with self._connection.transaction():
                await self._connection.execute(statement(SESSION["exact_text"]))
                await self._run("keep", ids=list(ids[start : start + BATCH]))

    async def hand_over(self, decisions: Sequence[Decision]) -> int:
        """Have the other site told of these rows, as they are then; how many were."""
        done = 0
        for unknown in (True, False):
            rows = [(each.entity_id, each.version) for each in decisions if each.unknown is unknown]
            for start in range(0, len(rows), BATCH):
                done += await self._hand_over(rows[start : start + BATCH], unknown)
        return done

    async def _hand_over(self, rows: Sequence[tuple[str, int | None]], unknown: bool) -> int:
        values = {
            "table": self._table.qualified,
            "ids": [entity_id for entity_id, _ in rows],
            "versions": [version for _, version in rows],
            "only_unknown": unknown,
        }
        async with self._connection.transaction():
            await self._connection.execute(statement(SESSION["exact_text"]))
            await self._connection.execute(statement(QUERIES["patience"]))
            cursor = await self._connection.execute(statement(QUERIES["hand_over"]), values)
            row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def give_up(self, goes: str, stays: str) -> list[tuple[str, int]]:
        """Delete a row that is the double of another; not if others refer to it: they are returned."""
        async with self._connection.transaction():
            await self._connection.execute(statement(SESSION["exact_text"]))
            await self._connection.execute(statement(QUERIES["patience"]))
            await self._run("lock", id=goes)
            values = {"table": self._table.qualified, "id": goes}
            cursor = await self._connection.execute(statement(QUERIES["referring"]), values)
            if not (referring := await cursor.fetchall()):
                await self._run("give_up", id=goes, stays=stays)
        return referring

    async def _read(
        self, query: str, parts: Mapping[str, sql.Composable] | None = None, /, **values: Any
    ) -> list[Any]:
        async with self._connection.transaction():
            await self._connection.execute(statement(SESSION["exact_text"]))
            cursor = await self._run(query, parts, **values)
            return await cursor.fetchall()

    async def _run(
        self, query: str, parts: Mapping[str, sql.Composable] | None = None, /, **values: Any
    ) -> AsyncCursor[Any]:
        built = statement(QUERIES[query]).format(**self._parts, **(parts or {}))
        return await self._connection.execute(built, values)
