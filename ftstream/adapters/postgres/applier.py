"""Applies batches to the target: one transaction each, in one network round trip."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from ftstream.adapters.postgres.catalog import TableMissing, read_columns, read_unique_keys
from ftstream.adapters.postgres.codec import UnsupportedType
from ftstream.adapters.postgres.connection import Json, open_connection
from ftstream.adapters.postgres.queries import statement
from ftstream.adapters.postgres.statements import QUERIES, TableStatements, table_statements
from ftstream.core import unavailable
from ftstream.core.change import Partition
from ftstream.core.failures import ROW_MISSING, Failure, Policy, classify
from ftstream.core.plan import (
    Batch,
    Delete,
    Displace,
    Effect,
    Entity,
    Gone,
    Patch,
    Read,
    Reread,
    Upsert,
    effects,
    log_rows,
)
from ftstream.flows import Flow, Site
from ftstream.settings import Settings

log = logging.getLogger(__name__)

REREADS = 5
"""Times a batch is read anew from its owner before it waits: the owner's rows may move meanwhile."""


class ApplyFailed(Exception):
    """A batch was not applied; nothing of it is in the database."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def failure_of(error: psycopg.Error) -> Failure:
    """Classify PostgreSQL's error; the message names table and column where it knows them."""
    if not error.sqlstate and not isinstance(
        error, psycopg.OperationalError | psycopg.InterfaceError
    ):
        return Failure(Policy.HALT, "", str(error), "a fault of ftstream: please report it")
    diagnosis = error.diag
    where = ".".join(filter(None, (diagnosis.table_name, diagnosis.column_name)))
    message = (diagnosis.message_primary or str(error)).strip()
    return classify(
        error.sqlstate, f"{where}: {message}" if where else message, diagnosis.table_name
    )


_NOT_VISIBLE = Failure(
    Policy.RETRY,
    "not visible",
    "the source does not show a change yet that its log has told",
    "does it wait for a synchronous standby?",
)
_STANDBY = Failure(
    Policy.HALT,
    "",
    "the source is a standby: it may not have the rows yet that its primary's log has told",
    "give the primary's address in the settings",
)


class Applier:
    """One flow's connection to one target site, and to the source for rows that the log lacks."""

    def __init__(self, flow: Flow, target: Site, settings: Settings) -> None:
        self._flow = flow
        self._settings = settings
        self._target_conninfo = settings.database(target).conninfo()
        self._source_conninfo = settings.database(target.other).conninfo()
        self._target: AsyncConnection | None = None
        self._source: AsyncConnection | None = None
        self._statements: dict[str, TableStatements] = {}
        # A connection in a pipeline belongs to one task: another's statement would join its transaction.
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        for connection in (self._target, self._source):
            if connection is not None:
                await connection.close()
        self._target = self._source = None

    async def prepare(self) -> None:
        """Read both catalogs and build the statements. Raises ApplyFailed."""
        async with self._exclusively():
            source, target = await self._connected_source(), await self._connected_target()
            standby = await (await source.execute(statement(QUERIES["in_recovery"]))).fetchone()
            if standby is None or standby[0]:
                raise ApplyFailed(_STANDBY)
            async with _own_names(source), _own_names(target):
                self._statements = {
                    table.name: table_statements(
                        table,
                        await read_columns(source, table),
                        await read_columns(target, table),
                        await read_unique_keys(target, table),
                    )
                    for table in self._flow.tables
                }

    async def maintain(self) -> None:
        """Make the coming days' partitions of sync_log, drop those past their time. Raises ApplyFailed."""
        async with self._exclusively():
            target = await self._connected_target()
            await target.execute(
                statement(QUERIES["maintain"]), {"keep_days": self._settings.apply.sync_log_days}
            )

    async def applied_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """How far the target is in each of these partitions. Raises ApplyFailed."""
        asked = {"partitions": Json.of([p._asdict() for p in partitions])}
        async with self._exclusively():
            target = await self._connected_target()
            await target.execute(statement(QUERIES["ensure_offsets"]), asked)
            cursor = await target.execute(statement(QUERIES["applied_offsets"]), asked)
            return {Partition(row[0], row[1]): row[2] for row in await cursor.fetchall()}

    async def record_status(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Add counts to sync_status. Raises ApplyFailed."""
        async with self._exclusively():
            target = await self._connected_target()
            await target.execute(statement(QUERIES["record_status"]), {"rows": Json.of(rows)})

    async def apply(self, batch: Batch) -> None:
        """Apply the batch, whole or not at all. Raises ApplyFailed."""
        rows = effects(batch.changes)
        for _ in range(REREADS):
            try:
                return await self._apply_once(batch, rows)
            except ApplyFailed as error:
                if error.failure.policy is not Policy.REREAD:
                    raise
                rows = await self._mark_rereads(rows, error.failure)
        try:
            return await self._apply_once(batch, rows)
        except ApplyFailed as error:
            raise ApplyFailed(replace(error.failure, policy=error.failure.policy.later)) from error

    async def _apply_once(self, batch: Batch, rows: Mapping[Entity, Effect]) -> None:
        async with self._exclusively():
            if any(isinstance(effect, Reread) for effect in rows.values()):
                rows = await self._read_from_owner(batch, rows)
            await self._write(batch, rows)

    @asynccontextmanager
    async def _exclusively(self) -> AsyncIterator[None]:
        """One task at a time; PostgreSQL's errors become ApplyFailed, connections stay usable."""
        async with self._lock:
            try:
                yield
            except psycopg.Error as error:
                for connection in (self._target, self._source):
                    if connection is not None:
                        await _reset(connection)
                raise ApplyFailed(failure_of(error)) from error
            except (UnsupportedType, TableMissing) as error:
                hint = "mend the schema, then start the worker again"
                raise ApplyFailed(Failure(Policy.HALT, "", str(error), hint)) from error

    async def _write(self, batch: Batch, rows: Mapping[Entity, Effect]) -> None:
        target = await self._connected_target()
        settings = self._settings.apply
        session = {
            "statement_timeout": f"{settings.statement_timeout_ms}ms",
            "lock_timeout": f"{settings.lock_timeout_ms}ms",
        }
        offsets = [
            span.partition._asdict()
            | {"expected": span.expected, "next": span.next, "position": span.position}
            for span in batch.spans
        ]
        async with target.pipeline():
            await target.execute("begin")
            await target.execute(statement(QUERIES["session"]), session)
            await target.execute(statement(QUERIES["exact_text"]))
            await target.execute(statement(QUERIES["own_names"]))
            await target.execute(statement(QUERIES["replica"]))
            await target.execute(
                statement(QUERIES["advance_offsets"]),
                {"offsets": Json.of(offsets), "partitions": len(offsets)},
            )
            await self._write_rows(target, rows)
            if batch.changes:
                entries = Json.of(log_rows(batch.changes, rows))
                await target.execute(statement(QUERIES["log"]), {"rows": entries})
            await target.execute("commit")

    async def _write_rows(self, target: AsyncConnection, rows: Mapping[Entity, Effect]) -> None:
        """Deletes before upserts in all tables, so that a unique value given up can be taken."""
        by_table = {name: _Rows() for name in self._statements}
        for (table, entity_id), effect in rows.items():
            by_table[table].add(entity_id, effect)
        for name, table_rows in by_table.items():
            statements = self._statements[name]
            if table_rows.deletes:
                await target.execute(statements.delete, {"ids": table_rows.deletes})
            if table_rows.displaced:
                log.warning("%s: displaced %s", name, ", ".join(table_rows.displaced))
                await target.execute(statements.displace, {"ids": table_rows.displaced})
        for name, table_rows in by_table.items():
            statements = self._statements[name]
            if table_rows.upserts:
                await target.execute(statements.upsert, {"images": Json.array(table_rows.upserts)})
            if table_rows.reads:
                await target.execute(
                    statements.upsert_read, {"images": Json.array(table_rows.reads)}
                )
            if table_rows.patches:
                await target.execute(
                    statements.patch,
                    {"images": Json.array(table_rows.patches), "rows": len(table_rows.patches)},
                )

    async def _mark_rereads(
        self, rows: Mapping[Entity, Effect], failure: Failure
    ) -> dict[Entity, Effect]:
        """The effects with those marked that the failure says must be read from their owner."""
        if failure.sqlstate == ROW_MISSING:
            async with self._exclusively():
                marked = await self._missing_patches(rows)
        else:
            marked = {
                k for k, effect in rows.items() if k[0] == failure.table and effect != Delete()
            }
        return {k: Reread() if k in marked else effect for k, effect in rows.items()}

    async def _missing_patches(self, rows: Mapping[Entity, Effect]) -> set[Entity]:
        target = await self._connected_target()
        missing: set[Entity] = set()
        async with _own_names(target):
            for name, statements in self._statements.items():
                ids = [k[1] for k, e in rows.items() if k[0] == name and isinstance(e, Patch)]
                cursor = await target.execute(statements.existing, {"ids": ids})
                there = {row[0] for row in await cursor.fetchall()}
                missing |= {(name, entity_id) for entity_id in ids if entity_id not in there}
        return missing

    async def _read_from_owner(
        self, batch: Batch, rows: Mapping[Entity, Effect]
    ) -> dict[Entity, Effect]:
        """Replace each Reread, and each row in the way of one, by what the owner holds now.

        All reads see one snapshot, in which unique values are unique, and which is not older than
        the changes that led here: else a row just inserted would be taken for one just deleted.
        """
        result = dict(rows)
        source, target = await self._connected_source(), await self._connected_target()
        async with source.transaction(), _own_names(target):
            await source.execute("set transaction isolation level repeatable read, read only")
            await source.execute(statement(QUERIES["exact_text"]))
            await source.execute(statement(QUERIES["own_names"]))
            await _require_visible(source, batch, rows)
            for name, statements in self._statements.items():
                wanted = {k[1] for k, e in rows.items() if k[0] == name and isinstance(e, Reread)}
                while wanted:
                    read = await _read_rows(source, statements, wanted)
                    for entity in ((name, i) for i in wanted):
                        absent = Gone() if entity in rows else Displace()
                        result[entity] = read.get(entity[1], absent)
                    blockers = await _blockers(target, statements, read.values())
                    wanted = {i for i in blockers if not _settled(result.get((name, i)))}
        return result

    async def _connected_target(self) -> AsyncConnection:
        if self._target is None or self._target.closed:
            self._target = await open_connection(self._target_conninfo)
        return self._target

    async def _connected_source(self) -> AsyncConnection:
        if self._source is None or self._source.closed:
            self._source = await open_connection(self._source_conninfo)
        return self._source


@asynccontextmanager
async def _own_names(connection: AsyncConnection) -> AsyncIterator[None]:
    async with connection.transaction():
        await connection.execute(statement(QUERIES["own_names"]))
        yield


async def _reset(connection: AsyncConnection) -> None:
    if connection.closed or connection.info.transaction_status is TransactionStatus.IDLE:
        return
    try:
        await connection.rollback()
    except psycopg.Error as error:
        log.debug("connection given up: %s", error)
        await connection.close()


async def _require_visible(
    source: AsyncConnection, batch: Batch, rows: Mapping[Entity, Effect]
) -> None:
    transactions = {
        change.source_transaction
        for change in batch.changes
        if change.source_transaction is not None
        and isinstance(rows.get((change.table, change.entity_id)), Reread)
    }
    cursor = await source.execute(
        statement(QUERIES["all_visible"]), {"transactions": sorted(transactions)}
    )
    row = await cursor.fetchone()
    if row is None or not row[0]:
        raise ApplyFailed(_NOT_VISIBLE)


def _settled(effect: Effect | None) -> bool:
    """Whether a row in the way makes room, or is as its owner holds it."""
    return isinstance(effect, Read | Gone | Displace | Delete)


async def _read_rows(
    source: AsyncConnection, statements: TableStatements, ids: set[str]
) -> dict[str, Read]:
    cursor = await source.execute(statements.read_rows, {"ids": sorted(ids)})
    return {row[0]: Read(row[1]) for row in await cursor.fetchall()}


async def _blockers(
    target: AsyncConnection, statements: TableStatements, read: Iterable[Read]
) -> set[str]:
    """Ids at the target that hold a unique value which one of these rows is about to take."""
    images = Json.array([row.texts.encode() for row in read])
    found: set[str] = set()
    for blocker in statements.blockers:
        cursor = await target.execute(blocker, {"images": images})
        found |= {row[0] for row in await cursor.fetchall()}
    return found


class _Rows:
    """What a batch does to one table, sorted by the statement that does it."""

    def __init__(self) -> None:
        self.deletes: list[str] = []
        self.displaced: list[str] = []
        self.upserts: list[bytes] = []
        self.reads: list[bytes] = []
        self.patches: list[bytes] = []

    def add(self, entity_id: str, effect: Effect) -> None:
        match effect:
            case Delete() | Gone():
                self.deletes.append(entity_id)
            case Displace():
                self.displaced.append(entity_id)
            case Upsert(image):
                self.upserts.append(image)
            case Patch(columns, missing):
                self.patches.append(unavailable.patch(columns, missing))
            case Read(texts):
                self.deletes.append(entity_id)
                self.reads.append(texts.encode())
            case Reread():
                raise AssertionError("a row to be read was not read")
