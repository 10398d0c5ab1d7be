"""Runs what is applied with statements that fit the tables as both sites have them now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from ftstream.apply.merge import Batch, Effect, effects
from ftstream.apply.misfit import Misfits
from ftstream.apply.refetch import STANDBY
from ftstream.apply.schema import Newest, Schema, newest_shapes
from ftstream.apply.sites import SILENT, ApplyFailed, Sites
from ftstream.apply.statements import QUERIES, Shape
from ftstream.apply.transaction import own_names
from ftstream.failures import OF_ONE_TABLE, TABLE_ALTERED, Failure, Policy
from ftstream.messages.change import Entity
from ftstream.postgres.queries import statement

AGAIN_SECONDS = 1.0
"""Between two readings of the catalogs because of values that do not fit."""

READ_SECONDS = 30.0
"""In which both catalogs are read."""

Attempt = Callable[[Mapping[str, Shape]], Awaitable[None]]
"""Given the column list of all images of a table, where they have but one."""


class FittingStatements:
    """Reads both sites' catalogs, when an image or an error says that a table has changed."""

    def __init__(self, sites: Sites, schema: Schema, misfits: Misfits) -> None:
        self._sites = sites
        self._schema = schema
        self._misfits = misfits
        self._read_at = 0.0

    async def read(self, sites: Sites | None = None) -> bool:
        """Through these connections or its own; True if a table has changed. Raises ApplyFailed."""
        sites = sites or self._sites
        async with sites.exclusively(), _in_time():
            source, target = await sites.source(), await sites.target()
            standby = await (await source.execute(statement(QUERIES["in_recovery"]))).fetchone()
            if standby is None or standby[0]:
                raise ApplyFailed(STANDBY)
            async with own_names(source), own_names(target):
                changed = await self._schema.read(source, target)
                self._read_at = time.monotonic()
                return changed

    async def apply(self, batch: Batch, attempt: Attempt) -> None:
        """Make the attempt, and again while tables change.

        Raises ApplyFailed, with the column in its message that a value does not fit, or the table.
        """
        try:
            await self._apply(newest_shapes(batch), attempt)
        except ApplyFailed as error:
            rows = effects(batch.changes)
            if error.failure.sqlstate in OF_ONE_TABLE:
                raise await self._of_tables(error, rows) from error
            failure = await self._misfits.named(error.failure, self._schema.statements, rows)
            raise ApplyFailed(failure, error.entities, error.needs, error.causes) from error

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

    async def _apply(self, newest: Newest, attempt: Attempt) -> None:
        if unknown := self._schema.unknown(newest):
            await self.read()
            self._schema.met(unknown)
        while True:
            try:
                await attempt(self._schema.uniform(newest))
                return self._schema.applied(newest)
            except ApplyFailed as error:
                if error.failure.sqlstate == TABLE_ALTERED:
                    await self.read()
                    continue
                if error.failure.policy not in (Policy.HALT, Policy.PARK):
                    raise
                if not await self._changed(error.failure):
                    raise

    async def _changed(self, failure: Failure) -> bool:
        """Say whether the failure may come of a table that has changed: its statements are new then."""
        lately = time.monotonic() - self._read_at < AGAIN_SECONDS
        if failure.policy is Policy.PARK and lately:
            return False
        try:
            return await self.read()
        except ApplyFailed as error:
            if error.failure.policy is Policy.HALT:
                raise
            return False  # a site does not answer; the failure stands


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Raises ApplyFailed if a database does not answer: one that is frozen would be waited for."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            yield
    except TimeoutError as error:
        raise ApplyFailed(SILENT) from error
