"""Applies the changes of the site whose rows stand: External's own, read from the log or by comparison."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import psycopg
from psycopg import AsyncConnection

from ftstream import metrics
from ftstream.apply.merge import (
    Batch,
    Delete,
    Displace,
    LogRow,
    Patch,
    Reread,
    effects,
    log_rows,
)
from ftstream.apply.parents import referred_to
from ftstream.apply.refetch import read_from_owner
from ftstream.apply.rows import RowPlan, Tables, keeping, locked, missing, write_rows
from ftstream.apply.schema import Reading, Schema
from ftstream.apply.sites import SILENT, ApplyFailed, Sites
from ftstream.apply.statements import Shape
from ftstream.apply.transaction import Transactions, log_changes, own_names
from ftstream.failures import REFERRED_TO, ROW_MISSING, Failure, Policy
from ftstream.flows import Flow
from ftstream.messages.change import Entity
from ftstream.postgres.errors import failure_of

log = logging.getLogger(__name__)


REREADS = 5
"""Times a batch is read again from its owner before it is given up: its rows may move meanwhile."""

REREAD_ROWS = 30
"""Rows read from their owner in one batch, with what is in their way: each may hold a megabyte."""


OWNER_SECONDS = 8.0
"""In which the owner's rows are read: nobody else applies meanwhile, and PostgreSQL ends the transaction
after ten."""

SILENT_SECONDS = 5.0
"""For which an owner that does not answer is not asked again."""

_TOO_MANY = Failure(Policy.DIVIDE, "", "more rows to read from their owner than go into memory", "")


class Authority:
    """The strategy of flows with an authoritative site: each row becomes as that has it."""

    def __init__(
        self, flow: Flow, sites: Sites, schema: Schema, transactions: Transactions
    ) -> None:
        self._flow = flow
        self._sites = sites
        self._schema = schema
        self._transactions = transactions
        # When to ask an owner again who has not answered.
        self._silent_until = 0.0

    async def begin(self, sites: Sites) -> None:
        """Nothing has to be settled before."""

    async def apply(self, batch: Batch, shapes: Mapping[str, Shape]) -> None:
        """Apply it, rows as their owner has them where the log's images do not do. Raises ApplyFailed."""
        plan = RowPlan(effects(batch.changes), shapes)
        for _ in range(REREADS):
            try:
                return await self._apply_once(batch, plan)
            except ApplyFailed as error:
                if error.failure.policy is not Policy.REREAD:
                    raise
                plan = await self._with_rereads(plan, error.failure)
        try:
            return await self._apply_once(batch, plan)
        except ApplyFailed as error:
            later = replace(error.failure, policy=error.failure.policy.later)
            raise ApplyFailed(later, error.entities) from error

    async def _apply_once(self, batch: Batch, plan: RowPlan) -> None:
        written = plan  # with the rows that are in the way, once they are known
        reading = self._schema.reading
        try:
            async with self._sites.exclusively():
                target = await self._sites.target()
                if not plan.rereads:
                    async with self._transactions.in_one_trip(target):
                        logged = await self._write(target, batch, plan, reading)
                else:
                    source = await self._owner(batch, plan.rereads)
                    # Others may write these rows meanwhile, so no other worker applies now: else a row as
                    # it was read could overwrite what another has applied since, for good.
                    async with self._transactions.in_parts(target, "alone"):
                        written = await self._read(source, target, batch, plan, reading.statements)
                        async with target.pipeline():
                            logged = await self._write(target, batch, written, reading)
        except ApplyFailed as error:
            if error.failure.sqlstate == REFERRED_TO:
                raise referred_to(error.failure, plan.rows) from error
            if error.failure.policy is not Policy.WAIT:
                raise
            raise ApplyFailed(error.failure, await self._held(plan, written)) from error
        outcomes = Counter(row.outcome for row in logged)
        metrics.count(self._flow.name, self._sites.target_site, outcomes)
        for (table, entity_id), effect in written.rows.items():
            if isinstance(effect, Displace):
                log.warning("%s %s is in ftstream.displaced: it was in the way", table, entity_id)

    async def _write(
        self, target: AsyncConnection, batch: Batch, plan: RowPlan, reading: Reading
    ) -> Sequence[LogRow]:
        """Write the rows, and what is logged of them, which is returned."""
        logged = log_rows(batch.changes, plan.rows)
        async with self._transactions.fenced(target, batch, reading if plan.rows else None):
            await write_rows(target, reading.statements, plan)
            await log_changes(target, logged)
        return logged

    async def _owner(self, batch: Batch, rereads: Collection[Entity]) -> AsyncConnection:
        """The connection to the source. Raises ApplyFailed for these rows; the others need not wait."""
        if len(rereads) > REREAD_ROWS and len(batch.changes) > 1:
            raise ApplyFailed(_TOO_MANY)
        if time.monotonic() < self._silent_until:
            raise ApplyFailed(SILENT, rereads)
        try:
            return await self._sites.source()
        except psycopg.Error as error:
            self._silent_until = time.monotonic() + SILENT_SECONDS
            raise ApplyFailed(failure_of(error), rereads) from error

    async def _read(
        self,
        source: AsyncConnection,
        target: AsyncConnection,
        batch: Batch,
        plan: RowPlan,
        tables: Tables,
    ) -> RowPlan:
        """The plan with each row that is to be read, and those in its way, as their owner has them."""
        try:
            async with asyncio.timeout(OWNER_SECONDS):
                read = await read_from_owner(source, target, tables, batch, plan.rows)
                # They are deleted and inserted again.
                rows = await keeping(target, tables, read) if plan.clash else read
                return replace(plan, rows=rows)
        except TimeoutError as error:
            self._silent_until = time.monotonic() + SILENT_SECONDS
            raise ApplyFailed(SILENT, plan.rereads) from error

    async def _with_rereads(self, plan: RowPlan, failure: Failure) -> RowPlan:
        """The plan with those rows marked that the failure says must be read from their owner."""
        if failure.sqlstate == ROW_MISSING:
            patches = [entity for entity, e in plan.rows.items() if isinstance(e, Patch)]
            async with self._sites.exclusively():
                target = await self._sites.target()
                async with own_names(target):
                    marked = await missing(target, self._schema.statements, patches)
        else:
            # A partition has a name of its own.
            tables = {failure.table} & self._schema.statements.keys() or self._schema.statements
            marked = {k for k, e in plan.rows.items() if k[0] in tables and e != Delete()}
        rows = {k: Reread() if k in marked else effect for k, effect in plan.rows.items()}
        return replace(plan, rows=rows, clash=plan.clash or failure.sqlstate != ROW_MISSING)

    async def _held(self, plan: RowPlan, written: RowPlan) -> set[Entity]:
        """Return which of the batch's rows wait for others, who hold them or one in their way.

        None, if it is a whole table. Raises ApplyFailed.
        """
        async with self._sites.exclusively():
            target = await self._sites.target()
            async with own_names(target):
                await self._transactions.limit(target)
                held = await locked(target, self._schema.statements, written.rows)
        in_the_way = {table for table, _ in held - plan.rows.keys()}
        return (held & plan.rows.keys()) | {k for k in plan.rereads if k[0] in in_the_way}
