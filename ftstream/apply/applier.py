"""Applies batches at one site, with statements that fit the tables as both sites have them now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol, assert_never

from ftstream.apply.authority import Authority
from ftstream.apply.last_write_wins import LastWriteWins
from ftstream.apply.merge import Batch, Effect, effects
from ftstream.apply.misfit import Misfits
from ftstream.apply.refetch import STANDBY
from ftstream.apply.schema import Newest, Schema, newest_shapes
from ftstream.apply.sites import SILENT, ApplyFailed, Sites
from ftstream.apply.statements import QUERIES, Shape
from ftstream.apply.transaction import Transactions, own_names
from ftstream.failures import (
    KEY_SPELT_OTHERWISE,
    OF_ONE_TABLE,
    TABLE_ALTERED,
    Failure,
    Policy,
    classify,
)
from ftstream.flows import Capture, Flow
from ftstream.last_write.seen import Look, nothing_seen
from ftstream.messages.change import Entity, Operation
from ftstream.notification import Notify
from ftstream.postgres.queries import statement
from ftstream.settings import ApplySettings

AGAIN_SECONDS = 1.0
"""Between two readings of the catalogs because of values that do not fit."""

READ_SECONDS = 30.0
"""In which both catalogs are read."""


class Strategy(Protocol):
    """Whose word stands in a flow, and what to do where a batch cannot be applied as it is."""

    async def begin(self, sites: Sites) -> None:
        """Raises ApplyFailed as long as nothing may be applied at all."""
        ...

    async def apply(self, batch: Batch, shapes: Mapping[str, Shape]) -> None:
        """Apply the batch, whole or not at all; `shapes`: see RowPlan. Raises ApplyFailed."""
        ...


class Applier:
    """Of one flow and target. Both methods may raise ApplyFailed."""

    def __init__(
        self, sites: Sites, schema: Schema, transactions: Transactions, strategy: Strategy
    ) -> None:
        self._sites = sites
        self._schema = schema
        self._strategy = strategy
        self._transactions = transactions
        self._misfits = Misfits(sites, transactions)
        self._read_at = 0.0

    async def prepare(self, sites: Sites | None = None) -> bool:
        """Read both sites' catalogs, through these connections or its own; True if a table has changed."""
        through = sites or self._sites
        changed = await self._read(through)
        async with through.exclusively(), _in_time():
            await self._transactions.name_turn(await through.target())
        await self._strategy.begin(through)
        return changed

    async def apply(self, batch: Batch) -> None:
        """Apply the batch, whole or not at all, and again while tables change.

        Of a value that does not fit, the message has the column, or the table that takes none.
        """
        try:
            self._require_spelt(batch)
            await self._apply(batch, newest_shapes(batch))
        except ApplyFailed as error:
            rows = effects(batch.changes)
            if error.failure.sqlstate in OF_ONE_TABLE:
                raise await self._of_tables(error, rows) from error
            failure = await self._misfits.named(error.failure, self._schema.statements, rows)
            raise ApplyFailed(failure, error.entities, error.needs, error.causes) from error

    def _require_spelt(self, batch: Batch) -> None:
        """Raises ApplyFailed for entities whose key PostgreSQL would spell otherwise."""
        statements = self._schema.statements
        causes = {
            change.entity: classify(
                KEY_SPELT_OTHERWISE,
                f"{change.table}: the key {change.entity_id} is not spelt as PostgreSQL spells it",
            )
            for change in batch.changes
            if change.operation is not Operation.TRUNCATE
            and not statements[change.table].spells_key(change.entity_id)
        }
        if causes:
            raise ApplyFailed(next(iter(causes.values())), causes.keys(), causes=causes)

    async def _apply(self, batch: Batch, newest: Newest) -> None:
        if unknown := self._schema.unknown(newest):
            await self._read(self._sites)
            self._schema.met(unknown)
        while True:
            try:
                await self._strategy.apply(batch, self._schema.uniform(newest))
                return self._schema.applied(newest)
            except ApplyFailed as error:
                if error.failure.sqlstate == TABLE_ALTERED:
                    await self._read(self._sites)
                    continue
                if error.failure.policy not in (Policy.HALT, Policy.PARK):
                    raise
                if not await self._changed(error.failure):
                    raise

    async def _read(self, sites: Sites) -> bool:
        """Read both catalogs; True if a table has changed."""
        async with sites.exclusively(), _in_time():
            source, target = await sites.source(), await sites.target()
            standby = await (await source.execute(statement(QUERIES["in_recovery"]))).fetchone()
            if standby is None or standby[0]:
                raise ApplyFailed(STANDBY)
            async with own_names(source), own_names(target):
                changed = await self._schema.read(source, target)
                self._read_at = time.monotonic()
                return changed

    async def _of_tables(self, error: ApplyFailed, rows: Mapping[Entity, Effect]) -> ApplyFailed:
        """The error with all rows of the tables that take none, each with its own table's failure."""
        tables = {table for table, _ in rows}
        failures = await self._misfits.unwritable(self._schema.statements, tables)
        if not failures and len(tables) == 1:
            failures = dict.fromkeys(tables, error.failure)
        causes = {
            (table, entity_id): replace(
                failures[table], message=f"{table}: {failures[table].message}"
            )
            for table, entity_id in rows
            if table in failures
        }
        if not causes:
            return error  # of images of another shape: halves tell which table it is
        return ApplyFailed(next(iter(causes.values())), causes.keys(), error.needs, causes)

    async def _changed(self, failure: Failure) -> bool:
        """Say whether the failure may come of a table that has changed: its statements are new then."""
        lately = time.monotonic() - self._read_at < AGAIN_SECONDS
        if failure.policy is Policy.PARK and lately:
            return False
        try:
            return await self._read(self._sites)
        except ApplyFailed as error:
            if error.failure.policy is Policy.HALT:
                raise
            return False  # a site does not answer; the failure stands


def applier_of(
    flow: Flow,
    sites: Sites,
    schema: Schema,
    settings: ApplySettings,
    notify: Notify,
    look: Look = nothing_seen,
) -> Applier:
    """Make the one that applies this flow; `look`: what was seen of an entity (last_write/seen.py)."""
    transactions = Transactions(flow.name, settings)
    strategy: Strategy
    match flow.capture:
        case Capture.LOG | Capture.BATCH:
            strategy = Authority(flow, sites, schema, transactions)
        case Capture.OUTBOX:
            skew = settings.clock_skew_seconds
            strategy = LastWriteWins(flow, sites, schema, transactions, skew, notify, look)
        case _ as never:
            assert_never(never)
    return Applier(sites, schema, transactions, strategy)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Raises ApplyFailed if a database does not answer: one that is frozen would be waited for."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            yield
    except TimeoutError as error:
        raise ApplyFailed(SILENT) from error
