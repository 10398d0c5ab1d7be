"""The outbox of a site whose changes ftstream publishes itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from psycopg import AsyncConnection

from ftstream.flows import Site
from ftstream.postgres.connection import open_site
from ftstream.postgres.queries import Queries, statement
from ftstream.settings import Settings

QUERIES = Queries.load(__package__, "outbox.sql")

ROWS = 1_000
BYTES = 4 * 2**20
"""What is published in one transaction: a row may be larger, and is then alone."""


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A change as its writer's transaction left it."""

    id: int
    table: str
    entity_id: str
    payload: str


class Outbox:
    """Of these tables. Every method may raise psycopg.Error."""

    def __init__(self, settings: Settings, tables: Sequence[str], patience: float) -> None:
        """`patience`: seconds that publishing may take before PostgreSQL gives the turn to another."""
        self._settings = settings
        self._tables = list(tables)
        self._patience = f"{patience * 1000:.0f}ms"
        self._connection: AsyncConnection | None = None

    async def waiting(self) -> bool:
        """Say whether there is anything to publish."""
        connection = await self._open()
        cursor = await connection.execute(statement(QUERIES["waiting"]), {"tables": self._tables})
        row = await cursor.fetchone()
        return bool(row and row[0])

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[PublisherTurn | None]:
        """The right to publish for the time of a transaction; None while another has it."""
        connection = await self._open()
        async with connection.transaction():
            cursor = await connection.execute(
                statement(QUERIES["begin_publishing"]), {"patience": self._patience}
            )
            row = await cursor.fetchone()
            yield PublisherTurn(connection, self._tables) if row and row[1] else None

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _open(self) -> AsyncConnection:
        if self._connection is None or self._connection.closed:
            self._connection = await open_site(self._settings, Site.SUPABASE)
        return self._connection


class PublisherTurn:
    """A publisher's turn; see `Outbox.turn`."""

    def __init__(self, connection: AsyncConnection, tables: list[str]) -> None:
        self._connection = connection
        self._tables = tables

    async def next(self) -> list[OutboxEntry]:
        """The oldest changes, in the order in which they were written."""
        values = {"tables": self._tables, "rows": ROWS, "bytes": BYTES}
        cursor = await self._connection.execute(statement(QUERIES["next"]), values)
        return [OutboxEntry(*row) for row in await cursor.fetchall()]

    async def published(self, entries: Sequence[OutboxEntry]) -> None:
        """Take them out, once this turn's transaction commits."""
        ids = {"ids": [entry.id for entry in entries]}
        await self._connection.execute(statement(QUERIES["published"]), ids)
