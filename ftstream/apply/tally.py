"""Counts what was applied, and keeps sync_status and sync_log in order for people."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import psycopg

from ftstream.apply.housekeeping import Housekeeper
from ftstream.apply.merge import Batch
from ftstream.apply.parked import ParkedRecord
from ftstream.retry import Trouble
from ftstream.settings import ApplySettings

log = logging.getLogger(__name__)

STATUS_SECONDS = 1.0
MAINTENANCE_SECONDS = 3600.0
MAINTENANCE_RETRY_SECONDS = 60.0
"""Someone may be reading the log; the partitions of a week are made ahead."""


class Tally:
    """What came of a flow's changes, by table. What it writes may lag, and stops nothing."""

    def __init__(
        self,
        flow: str,
        tables: Mapping[str, str],
        keeper: Housekeeper,
        keep: ApplySettings,
        *,
        status: bool,
    ) -> None:
        """`tables`: with their entity types; `status`: whether sync_status is kept here."""
        self._flow = flow
        self._tables = tables
        self._keeper = keeper
        self._keep = keep
        self._status = status
        self._applied: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._heartbeat: float | None = None
        self._unkept = Trouble(log, f"flow {flow}: sync_log is not maintained", level=logging.DEBUG)
        self._lagging = Trouble(log, f"flow {flow}: sync_status lags", level=logging.DEBUG)

    def add(self, batch: Batch) -> None:
        """Count a batch that is applied."""
        self._applied.update(change.table for change in batch.changes)
        self._heartbeat = batch.heartbeat or self._heartbeat

    def failed(self, parked: Sequence[ParkedRecord]) -> None:
        """Count changes that were parked."""
        self._failed.update(each.table for each in parked)

    async def run(self) -> None:
        """Write until cancelled."""
        maintain_at = 0.0
        while True:
            if time.monotonic() >= maintain_at:
                done = await self._maintain()
                wait = MAINTENANCE_SECONDS if done else MAINTENANCE_RETRY_SECONDS
                maintain_at = time.monotonic() + wait
            await asyncio.sleep(STATUS_SECONDS)
            if self._status and (self._applied or self._failed or self._heartbeat is not None):
                await self._record()

    async def _maintain(self) -> bool:
        try:
            await self._keeper.maintain(self._keep)
        except psycopg.Error as error:
            self._unkept.met(error)
            return False
        self._unkept.over()
        return True

    async def _record(self) -> None:
        applied, failed, heartbeat = self._applied, self._failed, self._heartbeat
        self._applied, self._failed, self._heartbeat = Counter(), Counter(), None
        try:
            await self._keeper.record_status(
                [
                    {
                        "source": self._flow,
                        "entity_type": entity_type,
                        "status": "synced",
                        "records": applied[table],
                        "failed": failed[table],
                        "heartbeat": heartbeat,
                    }
                    for table, entity_type in self._tables.items()
                ]
            )
        except psycopg.Error as error:
            self._lagging.met(error)
            self._applied += applied
            self._failed += failed
            self._heartbeat = self._heartbeat or heartbeat
        else:
            self._lagging.over()
