"""Has the tombstones of a flow pruned, now and then; nothing waits for it."""

from __future__ import annotations

import asyncio
import logging
import time

import psycopg

from ftstream.apply.sites import open_both
from ftstream.flows import Flow
from ftstream.last_write.tombstones import prune
from ftstream.retry import Trouble
from ftstream.settings import Settings

log = logging.getLogger(__name__)

PRUNE_SECONDS = 3600.0


class Pruning:
    """Of one flow captured by outbox, on both sites. Several workers may do it at once."""

    def __init__(self, flow: Flow, settings: Settings) -> None:
        self._flow = flow
        self._settings = settings

    async def run(self) -> None:
        """Prune until cancelled."""
        trouble = Trouble(log, f"flow {self._flow.name}: old deletes stay")
        while True:
            try:
                await self._prune()
                trouble.over()
            except psycopg.OperationalError as error:
                # That a site is away others say; tombstones that stay do no harm until the next round.
                log.debug("flow %s: old deletes stay: %s", self._flow.name, error)
            except psycopg.Error as error:
                trouble.met(error)
            await asyncio.sleep(PRUNE_SECONDS)

    async def _prune(self) -> None:
        days = self._settings.apply.tombstone_days
        before = int((time.time() - days * 86_400) * 1_000_000)
        async with open_both(self._settings) as connections:
            for table in self._flow.tables:
                if pruned := await prune([*connections.values()], table, before):
                    log.info("%s: %d old deletes forgotten", table.name, pruned)
