"""Applies batches to the target: one transaction each, in one network round trip."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal, assert_never

import psycopg
from psycopg import AsyncConnection, sql

from ftstream.adapters.postgres import parked
from ftstream.adapters.postgres.connection import SESSION, Json
from ftstream.adapters.postgres.owner import STANDBY, read_from_owner
from ftstream.adapters.postgres.queries import statement
from ftstream.adapters.postgres.schema import Schema, newest_shapes, shape_of
from ftstream.adapters.postgres.sites import ApplyFailed, Sites, failure_of
from ftstream.adapters.postgres.statements import QUERIES, Shape
from ftstream.core import unavailable
from ftstream.core.failures import ROW_MISSING, Failure, Policy
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
    aside_row,
    effects,
    log_rows,
)
from ftstream.flows import Flow
from ftstream.settings import Apply

log = logging.getLogger(__name__)


REREADS = 5
"""Times a batch is read anew from its owner before it is given up: its rows may move meanwhile."""

REREAD_SECONDS = 1.0
"""Between two readings of the catalogs because of values that do not fit."""

REREAD_ROWS = 30
"""Rows read from their owner in one batch, with what is in their way: each may hold a megabyte."""


OWNER_SECONDS = 8.0
"""In which the owner's rows are read: nobody else applies meanwhile, and PostgreSQL ends the transaction
after ten."""

PREPARE_SECONDS = 30.0
"""In which both catalogs are read."""

SILENT_SECONDS = 5.0
"""For which an owner that does not answer is not asked again."""

_SILENT = Failure(
    Policy.RETRY, "", "the owner's database does not answer", "is it up, and reached?"
)
_TOO_MANY = Failure(Policy.DIVIDE, "", "more rows to read from their owner than go into memory", "")

Shapes = Mapping[str, Shape]
"""The column list of all images of a table in a batch, where they have but one."""


class Applier:
    """Writes one flow's changes to one target site."""

    def __init__(self, flow: Flow, sites: Sites, schema: Schema, settings: Apply) -> None:
        self._flow = flow
        self._sites = sites
        self._schema = schema
        self._settings = settings
        self._read_at = 0.0
        # Whether unique values clash: then rows that are read go before they come, as a whole.
        self._clash = False
        # What was written last, rows that were in the way included.
        self._attempted: Mapping[Entity, Effect] = {}
        # When to ask an owner again who has not answered.
        self._silent_until = 0.0
        # The columns that values did not fit last, by table: looked at first.
        self._suspects: dict[str, str] = {}

    async def prepare(self, sites: Sites | None = None) -> bool:
        """Read both catalogs, through these connections or its own; True if a table has changed.

        Raises ApplyFailed.
        """
        sites = sites or self._sites
        async with sites.exclusively(), _in_time():
            source, target = await sites.source(), await sites.target()
            standby = await (await source.execute(statement(QUERIES["in_recovery"]))).fetchone()
            if standby is None or standby[0]:
                raise ApplyFailed(STANDBY)
            async with _own_names(source), _own_names(target):
                changed = await self._schema.read(source, target)
                self._read_at = time.monotonic()
                return changed

    async def apply(self, batch: Batch) -> None:
        """Apply the batch, whole or not at all. Raises ApplyFailed."""
        newest = newest_shapes(batch)
        if unknown := self._schema.unknown(newest):
            await self.prepare()
            self._schema.met(unknown)
        while True:
            try:
                await self._apply_reread(batch, self._schema.uniform(newest))
                return self._schema.applied(newest)
            except ApplyFailed as error:
                if error.failure.policy not in (Policy.HALT, Policy.PARK):
                    raise
                if not await self._schema_changed(error.failure):
                    raise ApplyFailed(await self._with_column(batch, error.failure)) from error

    async def _apply_reread(self, batch: Batch, shapes: Shapes) -> None:
        """Apply it, with rows as their owner has them where the log's images do not do."""
        rows = effects(batch.changes)
        self._clash = False
        for _ in range(REREADS):
            try:
                return await self._apply_once(batch, rows, shapes)
            except ApplyFailed as error:
                match error.failure.policy:
                    case Policy.REREAD:
                        self._clash |= error.failure.sqlstate != ROW_MISSING
                        rows = await self._mark_rereads(rows, error.failure)
                    case Policy.WAIT:
                        raise ApplyFailed(error.failure, await self._held(rows)) from error
                    case _:
                        raise
        try:
            return await self._apply_once(batch, rows, shapes)
        except ApplyFailed as error:
            raise ApplyFailed(replace(error.failure, policy=error.failure.policy.later)) from error

    async def _schema_changed(self, failure: Failure) -> bool:
        """Whether the failure may come of a table that has changed: its statements are new then."""
        lately = time.monotonic() - self._read_at < REREAD_SECONDS
        if failure.policy is Policy.PARK and lately:
            return False
        try:
            return await self.prepare()
        except ApplyFailed as error:
            if error.failure.policy is Policy.HALT:
                raise
            return False  # a site does not answer; the failure stands

    async def _with_column(self, batch: Batch, failure: Failure) -> Failure:
        """The failure with the column that a value does not fit, which PostgreSQL does not name."""
        found = effects(batch.changes)
        if not failure.sqlstate.startswith("22") or len(found) != 1:
            return failure
        (((table, _), effect),) = found.items()
        match effect:
            case Upsert(image):
                shape = shape_of(effect)
            case Patch(columns, _):
                image, shape = unavailable.join(columns), frozenset(columns)
            case _:
                return failure
        singles = dict(self._schema.statements[table].single(shape))
        suspect = self._suspects.get(table)
        for name in sorted(singles, key=lambda name: name != suspect):
            if await self._fails_with(singles[name], image) == failure.sqlstate:
                self._suspects[table] = name
                return replace(failure, message=f"{table}.{name}: {failure.message}")
        return failure

    async def _fails_with(self, single: sql.Composed, image: bytes) -> str | None:
        """Write one column of a row, and take it back: the SQLSTATE of what happened."""
        try:
            async with self._sites.exclusively():
                target = await self._sites.target()
                async with target.transaction(force_rollback=True):
                    await self._open(target, "share")
                    await target.execute(single, {"images": Json.array([image])})
        except ApplyFailed as error:
            return error.failure.sqlstate
        return None

    async def _apply_once(
        self, batch: Batch, rows: Mapping[Entity, Effect], shapes: Shapes
    ) -> None:
        rereads = {entity for entity, effect in rows.items() if isinstance(effect, Reread)}
        self._attempted = rows
        async with self._sites.exclusively():
            if rereads:
                await self._apply_with_owner(batch, rows, shapes, rereads)
            else:
                await self._apply_alone(batch, rows, shapes)

    async def _apply_alone(
        self, batch: Batch, rows: Mapping[Entity, Effect], shapes: Shapes
    ) -> None:
        """The hot path: one round trip, with nothing to be known in between."""
        target = await self._sites.target()
        async with target.pipeline():
            await target.execute("begin")
            await self._open(target, "share")
            await self._write(target, batch, rows, shapes)
            await target.execute("commit")

    async def _apply_with_owner(
        self,
        batch: Batch,
        rows: Mapping[Entity, Effect],
        shapes: Shapes,
        rereads: Collection[Entity],
    ) -> None:
        """Rows that others may write meanwhile are read, so no other worker applies at that time.

        Else a row as it was read could overwrite what another worker has applied since, for good.
        """
        if len(rereads) > REREAD_ROWS and len(batch.changes) > 1:
            raise ApplyFailed(_TOO_MANY)
        source = await self._owner(rereads)
        target = await self._sites.target()
        async with target.transaction():
            await self._open(target, "alone")
            try:
                async with asyncio.timeout(OWNER_SECONDS):
                    tables = self._schema.statements
                    read = await read_from_owner(source, target, tables, batch, rows)
            except TimeoutError as error:
                self._silent_until = time.monotonic() + SILENT_SECONDS
                raise ApplyFailed(_SILENT, rereads) from error
            self._attempted = read
            async with target.pipeline():
                await self._write(target, batch, read, shapes)
        for (table, entity_id), effect in read.items():
            if isinstance(effect, Displace):
                log.warning("%s %s is in ftstream.displaced: it was in the way", table, entity_id)

    async def _owner(self, rereads: Collection[Entity]) -> AsyncConnection:
        """The connection to the source. Raises ApplyFailed for these rows; the others need not wait."""
        if time.monotonic() < self._silent_until:
            raise ApplyFailed(_SILENT, rereads)
        try:
            return await self._sites.source()
        except psycopg.Error as error:
            self._silent_until = time.monotonic() + SILENT_SECONDS
            raise ApplyFailed(failure_of(error), rereads) from error

    async def _open(self, target: AsyncConnection, company: Literal["share", "alone"]) -> None:
        """Begin a transaction of ftstream's own, beside other workers or without them."""
        await target.execute(statement(QUERIES["session"]), self._timeouts)
        await target.execute(statement(SESSION["exact_text"]))
        await target.execute(statement(SESSION["own_names"]))
        await target.execute(statement(QUERIES["replica"]))
        await target.execute(statement(QUERIES[company]), {"flow": self._flow.name})

    async def _write(
        self,
        target: AsyncConnection,
        batch: Batch,
        rows: Mapping[Entity, Effect],
        shapes: Shapes,
    ) -> None:
        offsets = [
            span.partition._asdict()
            | {"expected": span.expected, "next": span.next}
            | {"position": span.position, "digest": span.digest}
            for span in batch.spans
        ]
        if offsets:
            await target.execute(
                statement(QUERIES["advance_offsets"]),
                {"offsets": Json.of(offsets), "partitions": len(offsets)},
            )
        await parked.write(target, self._flow.name, batch)
        await self._write_rows(target, rows, shapes)
        if entries := [*log_rows(batch.changes, rows), *map(aside_row, batch.aside)]:
            await target.execute(statement(QUERIES["log"]), {"rows": Json.of(entries)})

    async def _write_rows(
        self, target: AsyncConnection, rows: Mapping[Entity, Effect], shapes: Shapes
    ) -> None:
        """Deletes before upserts in all tables, so that a unique value given up can be taken."""
        by_table = {name: _Rows(shapes.get(name), self._clash) for name in self._schema.statements}
        for (table, entity_id), effect in rows.items():
            by_table[table].add(entity_id, effect)
        for name, table_rows in by_table.items():
            statements = self._schema.statements[name]
            if table_rows.deletes:
                await target.execute(statements.delete, {"ids": table_rows.deletes})
            if table_rows.displaced:
                await target.execute(statements.displace, {"ids": table_rows.displaced})
        for name, table_rows in by_table.items():
            statements = self._schema.statements[name]
            for shape, images in table_rows.upserts.items():
                await target.execute(statements.of(shape).upsert, {"images": Json.array(images)})
            if table_rows.reads:
                await target.execute(
                    statements.upsert_read, {"images": Json.array(table_rows.reads)}
                )
            for shape, images in table_rows.patches.items():
                await target.execute(
                    statements.of(shape).patch,
                    {"images": Json.array(images), "rows": len(images)},
                )

    async def _mark_rereads(
        self, rows: Mapping[Entity, Effect], failure: Failure
    ) -> dict[Entity, Effect]:
        """The effects with those marked that the failure says must be read from their owner."""
        if failure.sqlstate == ROW_MISSING:
            async with self._sites.exclusively():
                marked = await self._missing_patches(rows)
        else:
            marked = {
                k for k, effect in rows.items() if k[0] == failure.table and effect != Delete()
            }
        return {k: Reread() if k in marked else effect for k, effect in rows.items()}

    async def _held(self, rows: Mapping[Entity, Effect]) -> set[Entity]:
        """Which of these rows cannot be written for others: they hold them, or one in their way."""
        locked = await self._locked(self._attempted)
        in_the_way = {table for table, _ in locked - rows.keys()}
        blocked = {k for k, e in rows.items() if isinstance(e, Reread) and k[0] in in_the_way}
        return (locked & rows.keys()) | blocked

    async def _locked(self, rows: Mapping[Entity, Effect]) -> set[Entity]:
        """Which of these rows others hold; none, if it is a whole table. Raises ApplyFailed."""
        locked: set[Entity] = set()
        async with self._sites.exclusively():
            target = await self._sites.target()
            async with _own_names(target):
                await target.execute(statement(QUERIES["session"]), self._timeouts)
                for name, statements in self._schema.statements.items():
                    ids = [entity_id for table, entity_id in rows if table == name]
                    if ids:
                        cursor = await target.execute(statements.locked, {"ids": ids})
                        locked |= {(name, row[0]) for row in await cursor.fetchall()}
        return locked

    @property
    def _timeouts(self) -> dict[str, str]:
        return {
            "statement_timeout": f"{self._settings.statement_timeout_ms}ms",
            "lock_timeout": f"{self._settings.lock_timeout_ms}ms",
        }

    async def _missing_patches(self, rows: Mapping[Entity, Effect]) -> set[Entity]:
        target = await self._sites.target()
        missing: set[Entity] = set()
        async with _own_names(target):
            for name, statements in self._schema.statements.items():
                ids = [k[1] for k, e in rows.items() if k[0] == name and isinstance(e, Patch)]
                cursor = await target.execute(statements.existing, {"ids": ids})
                there = {row[0] for row in await cursor.fetchall()}
                missing |= {(name, entity_id) for entity_id in ids if entity_id not in there}
        return missing


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Raises ApplyFailed if a database does not answer: one that is frozen would be waited for."""
    try:
        async with asyncio.timeout(PREPARE_SECONDS):
            yield
    except TimeoutError as error:
        raise ApplyFailed(_SILENT) from error


@asynccontextmanager
async def _own_names(connection: AsyncConnection) -> AsyncIterator[None]:
    async with connection.transaction():
        await connection.execute(statement(SESSION["own_names"]))
        yield


class _Rows:
    """What a batch does to one table, sorted by the statement that does it.

    `shape` is that of all images, or None where they may have several. Where values `clash`, rows
    that were read are deleted first: columns that the target has alone then take their defaults.
    """

    def __init__(self, shape: Shape | None, clash: bool) -> None:
        self._shape = shape
        self._clash = clash
        self.deletes: list[str] = []
        self.displaced: list[str] = []
        self.upserts: dict[Shape, list[bytes]] = {}
        self.reads: list[bytes] = []
        self.patches: dict[Shape, list[bytes]] = {}

    def add(self, entity_id: str, effect: Effect) -> None:
        match effect:
            case Delete() | Gone():
                self.deletes.append(entity_id)
            case Displace():
                self.displaced.append(entity_id)
            case Upsert(image):
                self._of(self.upserts, effect).append(image)
            case Patch(columns, missing):
                self._of(self.patches, effect).append(unavailable.patch(columns, missing))
            case Read(texts):
                if self._clash:
                    self.deletes.append(entity_id)
                self.reads.append(texts.encode())
            case Reread():
                raise AssertionError("a row to be read was not read")
            case _ as never:
                assert_never(never)

    def _of(self, images: dict[Shape, list[bytes]], effect: Upsert | Patch) -> list[bytes]:
        return images.setdefault(self._shape or shape_of(effect), [])
