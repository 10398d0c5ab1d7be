"""Has the publisher woken by Supabase Realtime, and notes for the crew what wakes it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

import psycopg

from ftstream.apply.housekeeping import worker_name
from ftstream.capture import wake_ups
from ftstream.flows import Table
from ftstream.retry import Trouble
from ftstream.settings import Settings
from ftstream.supabase.realtime import Realtime
from ftstream.supabase.wake_up import WakeUps, Way

log = logging.getLogger(__name__)

CLOSE_SECONDS = 3.0
"""How long an ending worker tries to say so; later, nobody has seen it for a while."""

NOTE_PATIENCE = 15.0
"""After which a database that does not answer is asked again."""


class Waker:
    """Without Realtime in the settings it only says that the publisher looks by itself."""

    def __init__(
        self,
        settings: Settings,
        tables: Iterable[Table],
        wake: Callable[[], None],
        halted: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`halted`: the flows that the worker does not carry any more, with the reasons."""
        watched = [(table.schema, table.name) for table in tables]
        realtime = settings.realtime
        self._realtime = Realtime(realtime, watched, wake) if realtime.on else None
        self._off = WakeUps(Way.POLLING, datetime.now(UTC), "realtime.url is not set")
        self._settings = settings
        self._halted = halted
        self._worker = worker_name()
        self._changed = self._realtime.changed if self._realtime else asyncio.Event()
        self._trouble = Trouble(log, "what wakes the publisher cannot be noted")

    @property
    def state(self) -> WakeUps:
        """What wakes the publisher now."""
        return self._realtime.state if self._realtime else self._off

    def note_soon(self) -> None:
        """Say at once that something has changed: a flow has halted."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled; then nothing of it is left."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_noted())
            if self._realtime is not None:
                group.create_task(self._realtime.run())

    async def close(self) -> None:
        """Say that the worker ends; after `run`."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await wake_ups.forget(self._settings, self._worker)
        except (psycopg.Error, TimeoutError) as error:
            self._trouble.met(error)

    async def _keep_noted(self) -> None:
        while True:
            self._changed.clear()
            await self._note()
            try:
                async with asyncio.timeout(wake_ups.NOTE_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _note(self) -> None:
        try:
            async with asyncio.timeout(NOTE_PATIENCE):
                await wake_ups.note(self._settings, self._worker, self.state, self._halted())
        except (psycopg.Error, TimeoutError) as error:
            self._trouble.met(error)
        else:
            self._trouble.over()
