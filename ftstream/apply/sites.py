"""The connections of one flow and target, and what their errors mean."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from ftstream.failures import UNDEFINED_TABLE, UNSUPPORTED, Failure, Policy, classify
from ftstream.flows import Site
from ftstream.messages.change import Entity
from ftstream.postgres.catalog import KeyMissing, KeyNotLogged, TableMissing
from ftstream.postgres.codec import UnsupportedType
from ftstream.postgres.connection import open_site
from ftstream.postgres.errors import failure_of
from ftstream.settings import Settings

log = logging.getLogger(__name__)

IDLE_SECONDS = 20.0
"""After which the connection to the source is closed: most flows need it at their start alone."""

SILENT = Failure(Policy.RETRY, "", "a site's database does not answer", "is it up, and reached?")


class ApplyFailed(Exception):
    """Something was not done; nothing of it is in the database.

    `entities` are the rows that it failed for, `needs` the rows that each waits for, where that is known;
    `causes` what is wrong with each, where they differ.
    """

    def __init__(
        self,
        failure: Failure,
        entities: Collection[Entity] = (),
        needs: Mapping[Entity, Collection[Entity]] | None = None,
        causes: Mapping[Entity, Failure] | None = None,
    ) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.entities = entities
        self.needs = needs or {}
        self.causes = causes or {}


class Sites:
    """A connection to the target and, for rows that the log lacks, one to the source: used `exclusively`."""

    def __init__(self, target: Site, settings: Settings) -> None:
        self.target_site = target
        self._settings = settings
        self._target: AsyncConnection | None = None
        self._source: AsyncConnection | None = None
        self._idle: asyncio.Task[None] | None = None
        # A connection in a pipeline belongs to one task: another's statement would join its transaction.
        self._lock = asyncio.Lock()

    async def target(self) -> AsyncConnection:
        if self._target is None or self._target.closed:
            self._target = await open_site(self._settings, self.target_site)
        return self._target

    async def source(self) -> AsyncConnection:
        if self._source is None or self._source.closed:
            self._source = await open_site(self._settings, self.target_site.other)
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.create_task(self._close_idle(self._source))
        return self._source

    async def _close_idle(self, source: AsyncConnection) -> None:
        await asyncio.sleep(IDLE_SECONDS)
        async with self._lock:
            await source.close()

    async def close(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        for connection in (self._target, self._source):
            if connection is not None:
                await connection.close()
        self._target = self._source = None

    @asynccontextmanager
    async def exclusively(self) -> AsyncIterator[None]:
        """One task at a time; PostgreSQL's errors become ApplyFailed, connections stay usable."""
        async with self._lock:
            try:
                yield
            except psycopg.Error as error:
                for connection in (self._target, self._source):
                    if connection is not None:
                        await _reset(connection)
                raise ApplyFailed(failure_of(error)) from error
            except TableMissing as error:
                raise ApplyFailed(classify(UNDEFINED_TABLE, str(error))) from error
            except (UnsupportedType, KeyMissing, KeyNotLogged) as error:
                raise ApplyFailed(classify(UNSUPPORTED, str(error))) from error


@asynccontextmanager
async def open_both(settings: Settings) -> AsyncIterator[Mapping[Site, AsyncConnection]]:
    """A connection to each site. Raises psycopg.OperationalError."""
    async with AsyncExitStack() as stack:
        opened: dict[Site, AsyncConnection] = {}
        for site in Site:
            connection = await open_site(settings, site)
            opened[site] = await stack.enter_async_context(connection)
        yield opened


async def _reset(connection: AsyncConnection) -> None:
    if connection.closed or connection.info.transaction_status is TransactionStatus.IDLE:
        return
    try:
        await connection.rollback()
    except psycopg.Error as error:
        log.debug("connection given up: %s", error)
        await connection.close()
