"""Whose turn a run of a flow captured by batch is, when it is due, and what the sites hold for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import class_row

from ftstream.capture.batch.table_run import TableRun
from ftstream.flows import Flow, Names, Site, Table
from ftstream.outcomes import Outcome
from ftstream.postgres.catalog import Column
from ftstream.postgres.codec import type_name
from ftstream.postgres.connection import SESSION, Json
from ftstream.postgres.queries import Queries, identifier, literal, statement

QUERIES = Queries.load(__package__, "batch.sql")

PATIENCE_SECONDS = 60.0
"""After which PostgreSQL gives the turn of a worker that is frozen to another."""


LOOK_SECONDS = 0.2


class TurnLost(Exception):
    """PostgreSQL has ended the turn: another worker may be at it."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What a run reads: which External, when (microseconds since 1970), and both sites' snapshots."""

    system: str
    timeline: int
    read_at: int
    source_seen: str
    target_seen: str

    def same_history(self, other: Basis) -> bool:
        """Say whether both are of one External, which has neither failed over nor been restored."""
        return (self.system, self.timeline) == (other.system, other.timeline)


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key between two tables of a flow, with its columns as lists of SQL."""

    child: str
    parent: str
    child_columns: str
    parent_columns: str


@dataclass(frozen=True, slots=True)
class TableStatus:
    """How a table stands, and its last run's details."""

    entity_type: str
    status: str
    health_status: str
    last_synced_at: datetime | None
    next_sync_at: datetime | None
    sync_interval: timedelta
    records_synced: int
    records_failed: int
    consecutive_failures: int
    last_error: str | None
    details: dict[str, Any] | None


class Schedule:
    """A flow's rows of sync_status, on Supabase. Every method may raise psycopg.Error."""

    def __init__(self, flow: Flow, namespace: str, connection: AsyncConnection) -> None:
        self._flow = flow
        self._topics = {
            flow.entity_type(table): Names(flow, namespace).topic(table, Site.EXTERNAL)
            for table in flow.tables
        }
        self._connection = connection

    async def set_interval(self, seconds: float) -> None:
        """Note the interval of the settings."""
        await self._execute("set_interval", seconds=seconds)

    async def due(self) -> tuple[Table, ...]:
        """The tables that are to run now."""
        found = {row[0] for row in await (await self._execute("due")).fetchall()}
        return tuple(t for t in self._flow.tables if self._flow.entity_type(t) in found)

    async def begun(self, runs: Sequence[TableRun]) -> None:
        """They run."""
        await self._execute("begun", entity_types=[run.entity_type for run in runs])

    async def interrupted(self, runs: Sequence[TableRun]) -> None:
        """They do not run any more."""
        await self._execute("interrupted", entity_types=[run.entity_type for run in runs])

    async def done(self, runs: Sequence[TableRun], read_at: int) -> None:
        """Every message is in Kafka: in the caller's transaction, so that all of this holds, or nothing."""
        moved = [{"entity_type": run.entity_type, "published": run.published} for run in runs]
        await self._execute("done", runs=Json.of(moved))
        await self._log(Outcome.RUN_DONE, runs, read_at)

    async def note_basis(self, runs: Sequence[TableRun], basis: Basis) -> None:
        """Note what the next run compares with; in the caller's transaction, too."""
        await self._execute(
            "note_basis",
            system=basis.system,
            timeline=basis.timeline,
            source=basis.source_seen,
            target=basis.target_seen,
            tables=[run.table for run in runs],
        )

    async def failed(self, runs: Sequence[TableRun], error: str) -> None:
        """They are tried again later; what of them is published counts."""
        moved = [
            {"entity_type": run.entity_type, "failed": run.refused, "published": run.published}
            for run in runs
        ]
        async with self._connection.transaction():
            await self._execute("failed", runs=Json.of(moved), error=error)
            await self._log(Outcome.RUN_FAILED, runs, None, error)

    async def known_bases(self) -> dict[str, Basis]:
        """By table, what its last run read."""
        rows = await (await self._execute("known_bases")).fetchall()
        return {table: Basis(*basis) for table, *basis in rows}

    async def status(self) -> list[TableStatus]:
        """Return how each table stands, and how its last run went."""
        async with self._connection.cursor(row_factory=class_row(TableStatus)) as cursor:
            values = {"flow": self._flow.name, "topics": Json.of(self._topics)}
            await cursor.execute(statement(QUERIES["status"]), values)
            return await cursor.fetchall()

    async def _log(
        self, outcome: Outcome, runs: Sequence[TableRun], read_at: int | None, error: str = ""
    ) -> None:
        entries = [
            {
                "outcome": outcome.value,
                "table_name": run.table,
                "topic": self._topics[run.entity_type],
                "read_at": read_at,
                "details": run.details | ({"error": error} if error else {}),
            }
            for run in runs
        ]
        await self._execute("log_runs", runs=Json.of(entries))

    async def _execute(self, query: str, **values: Any) -> psycopg.AsyncCursor[Any]:
        values["flow"] = self._flow.name
        return await self._connection.execute(statement(QUERIES[query]), values)


class RunTurn:
    """The right to run a flow; see `turn`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def keep(self) -> None:
        """Raises TurnLost."""
        try:
            await self._connection.execute(statement(QUERIES["keep_turn"]))
        except psycopg.Error as error:
            raise TurnLost(f"the turn was lost: {error}") from error

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """As long as this block lasts, whatever it waits for."""
        over = asyncio.Event()
        keeping = asyncio.create_task(self._keep_until(over))
        try:
            yield
        finally:
            # Not cancelled: that would cancel the statement under way, and with it the transaction.
            over.set()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _keep_until(self, over: asyncio.Event) -> None:
        while not over.is_set():
            try:
                await asyncio.wait_for(over.wait(), PATIENCE_SECONDS / 4)
            except TimeoutError:
                await self.keep()


@asynccontextmanager
async def turn(
    connection: AsyncConnection, flow: Flow, patience: float = 0.0
) -> AsyncIterator[RunTurn | None]:
    """The right to run, for the time of a transaction; None if another has it for so many seconds."""
    until = time.monotonic() + patience
    await connection.execute(statement(QUERIES["name_turn"]), {"flow": flow.name})
    async with connection.transaction():
        values = {"flow": flow.name, "patience": f"{PATIENCE_SECONDS * 1000:.0f}ms"}
        while True:
            cursor = await connection.execute(statement(QUERIES["begin_turn"]), values)
            row = await cursor.fetchone()
            mine = bool(row and row[1])
            if mine or time.monotonic() >= until:
                break
            await asyncio.sleep(LOOK_SECONDS)
        yield RunTurn(connection) if mine else None


async def read_basis(source: AsyncConnection, target: AsyncConnection) -> Basis:
    """Read what the snapshots of the run are of. Raises psycopg.Error."""
    found: list[Any] = []
    for connection, query in ((source, "source"), (target, "target")):
        row = await (await connection.execute(statement(QUERIES[query]))).fetchone()
        assert row is not None  # each statement has always one row
        found += row
    return Basis(*found)


async def read_references(target: AsyncConnection, flow: Flow) -> list[ForeignKey]:
    """The foreign keys between this flow's tables. Raises psycopg.Error."""
    names = {"tables": [table.qualified for table in flow.tables]}
    async with target.cursor(row_factory=class_row(ForeignKey)) as cursor:
        await cursor.execute(statement(QUERIES["references"]), names)
        return await cursor.fetchall()


class ParkedRow(NamedTuple):
    """What is parked of a row at the target: a delete, a value that a column there does not hold."""

    delete: bool
    misfit: bool


class Rows:
    """The rows of one table, for a run. Every method may raise psycopg.Error."""

    def __init__(self, flow: Flow, table: Table, key: Column, topic: str) -> None:
        self._values = {
            "flow": flow.name,
            "entity_type": flow.entity_type(table),
            "name": table.name,
            "topic": topic,
        }
        self._parts: dict[str, sql.Composable] = {
            "table": identifier(table.schema, table.name),
            "name": literal(table.name),
            "key": identifier(table.key),
            "key_type": type_name(key),
        }

    async def parked(self, target: AsyncConnection) -> Mapping[str, ParkedRow]:
        """Rows of which a change waits at the target, dead ones too."""
        cursor = await target.execute(statement(QUERIES["parked_rows"]), self._values)
        return {row[0]: ParkedRow(*row[1:]) for row in await cursor.fetchall()}

    async def existing(self, connection: AsyncConnection, ids: Collection[str]) -> set[str]:
        """Return which of these rows there are."""
        return await self._ids(connection, "existing", ids)

    async def unwritten(
        self, connection: AsyncConnection, ids: Collection[str], seen: str, *, surely: bool
    ) -> set[str]:
        """Return which of these rows there are that nobody has written since that snapshot.

        Of a transaction that was under way then, rows written in a savepoint are among them, unless it is to
        be sure: then some of those that committed shortly before are not.
        """
        return await self._ids(connection, "unwritten", ids, seen=seen, surely=surely)

    async def applied(self, target: AsyncConnection, ids: Collection[str]) -> set[str]:
        """Return which of these rows are as ftstream has written them, as far as sync_log reaches."""
        return await self._ids(target, "applied", ids)

    async def referred_to(
        self, target: AsyncConnection, ids: Collection[str], reference: ForeignKey
    ) -> set[str]:
        """Return which of these rows others refer to."""
        schema, _, name = reference.child.partition(".")
        query = statement(QUERIES["referred_to"]).format(
            **self._parts,
            child=identifier(schema, name),
            child_columns=sql.SQL(reference.child_columns),  # from format()
            parent_columns=sql.SQL(reference.parent_columns),
        )
        cursor = await target.execute(query, {"ids": list(ids)})
        return {row[0] for row in await cursor.fetchall()}

    async def log_edits(self, target: AsyncConnection, ids: Collection[str]) -> None:
        """Keep what was edited at the target and is about to be undone."""
        async with target.transaction():
            await target.execute(statement(SESSION["exact_text"]))
            await target.execute(self._of("log_edits"), self._values | {"ids": list(ids)})

    async def keep(self, target: AsyncConnection, ids: Collection[str]) -> None:
        """Keep rows that are about to be deleted."""
        async with target.transaction():
            await target.execute(statement(SESSION["exact_text"]))
            await target.execute(self._of("keep_rows"), {"ids": list(ids)})

    async def _ids(
        self, connection: AsyncConnection, query: str, ids: Collection[str], **values: object
    ) -> set[str]:
        cursor = await connection.execute(self._of(query), {"ids": list(ids), **values})
        return {row[0] for row in await cursor.fetchall()}

    def _of(self, query: str) -> sql.Composed:
        return statement(QUERIES[query]).format(**self._parts)
