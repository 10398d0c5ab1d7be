"""What is written beside the changes, on connections of its own: it never holds a change up."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncConnection, sql

from ftstream import notification
from ftstream.apply.lag import RecentLag
from ftstream.apply.parked_store import DROP_OLD
from ftstream.flows import Site
from ftstream.notification import Notification, Notify
from ftstream.postgres.connection import Json, open_site
from ftstream.postgres.queries import Queries, statement
from ftstream.retry import Trouble, until_done
from ftstream.settings import ApplySettings, Settings

log = logging.getLogger(__name__)

QUERIES = Queries.load(__package__, "housekeeping.sql")

RETRY_SECONDS = 5.0
MOST_NOTIFICATIONS = 1_000
"""Kept while the database is away; older ones are in the worker's log."""


def worker_name() -> str:
    """What this process is called where workers say that they are there: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Housekeeper:
    """Keeps a site's sync_status and sync_log in order. Its methods may raise psycopg.Error."""

    def __init__(self, settings: Settings, site: Site, notify: Notify = lambda _: None) -> None:
        self._settings, self._site, self._notify = settings, site, notify
        self._connection: AsyncConnection | None = None
        self._lock = asyncio.Lock()

    async def maintain(self, keep: ApplySettings) -> None:
        """Make the coming days' partitions of sync_log, and forget what is past its time."""
        await self._forget(statement(QUERIES["maintain"]), keep.sync_log_days)
        if self._site is Site.SUPABASE:
            for name, days in (
                ("prune_notifications", keep.notification_days),
                ("prune_activity", keep.activity_days),
            ):
                await self._forget(statement(QUERIES[name]), days)
        if keep.dead_days and (dropped := await self._forget(DROP_OLD, keep.dead_days)):
            self._notify(notification.dead_dropped(self._site, dropped, keep.dead_days))

    async def record_status(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Add counts to sync_status."""
        async with self._transaction() as connection:
            counts = {"rows": Json.of(rows)}
            await connection.execute(statement(QUERIES["record_status"]), counts)

    async def note_lag(
        self, flow: str, changes: int, lag: RecentLag | None, heartbeat: float | None
    ) -> None:
        """Say how late a flow's changes come here. `heartbeat`: seconds since 1970."""
        values = {
            "flow": flow,
            "worker": worker_name(),
            "changes": changes,
            "p50": lag and lag.p50_ms,
            "p99": lag and lag.p99_ms,
            "heartbeat": heartbeat,
        }
        async with self._transaction() as connection:
            await connection.execute(statement(QUERIES["note_lag"]), values)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _forget(self, query: sql.Composed | sql.SQL, days: int) -> int:
        """In a transaction of its own: what waits for one reader holds nothing else up."""
        async with self._transaction() as connection:
            return (await connection.execute(query, {"days": days})).rowcount

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = await open_site(self._settings, self._site)
            async with self._connection.transaction():
                await self._connection.execute(statement(QUERIES["patience"]))
                yield self._connection


class Notifier:
    """Writes notifications to Supabase as soon as it can; telling never waits and never fails."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: dict[tuple[str, str], Notification] = {}
        self._told = asyncio.Event()
        self._written = asyncio.Event()
        self._written.set()

    def notify(self, notification: Notification) -> None:
        """Keep it, to be written; the same one again takes its place."""
        if len(self._waiting) >= MOST_NOTIFICATIONS:
            self._waiting.pop(next(iter(self._waiting)))
        self._waiting[notification.kind, notification.title] = notification
        self._written.clear()
        self._told.set()

    async def run(self) -> None:
        """Write until cancelled."""
        trouble = Trouble(log, "notifications wait")
        while True:
            await self._told.wait()
            await until_done(self._write, trouble, psycopg.Error, seconds=RETRY_SECONDS)

    async def flush(self, timeout: float) -> None:
        """Wait until what was told is written; not longer than `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._written.wait()
        except TimeoutError:
            log.warning("%d notifications were not written", len(self._waiting))

    async def _write(self) -> None:
        async with await open_site(self._settings, Site.SUPABASE) as connection:
            while self._waiting:
                key, notification = next(iter(self._waiting.items()))
                try:
                    await _insert(connection, notification.storable)
                except psycopg.DataError as error:
                    # One that cannot be kept must not keep the others from being told.
                    log.error("a notification is lost: %s: %s", notification.title, error)
                if self._waiting.get(key) is notification:
                    del self._waiting[key]
        self._told.clear()
        self._written.set()


async def _insert(connection: AsyncConnection, notification: Notification) -> None:
    await connection.execute(
        statement(QUERIES["notify"]),
        {
            "type": notification.kind,
            "severity": notification.severity.value,
            "title": notification.title,
            "message": notification.message,
            "metadata": Json.of(notification.metadata),
        },
    )
