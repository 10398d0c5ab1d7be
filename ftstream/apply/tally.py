"""Counts what was applied, and keeps sync_status and sync_log in order for people."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import psycopg

from ftstream import metrics
from ftstream.apply.housekeeping import Housekeeper
from ftstream.apply.lag import Lags
from ftstream.apply.merge import Batch
from ftstream.apply.parked import ParkedRecord
from ftstream.flows import Site
from ftstream.outcomes import Outcome
from ftstream.retry import Trouble
from ftstream.settings import ApplySettings

log = logging.getLogger(__name__)

STATUS_SECONDS = 1.0
LAG_SECONDS = 3.0
"""In which a worker says how late changes come."""
NOTE_SECONDS = 10.0
"""In which a worker that applies nothing says so."""
MAINTENANCE_SECONDS = 3600.0
MAINTENANCE_RETRY_SECONDS = 60.0
"""Someone may be reading the log; the partitions of a week are made ahead."""


class Tally:
    """What came of a flow's changes, by table. What it writes may lag, and stops nothing."""

    def __init__(
        self,
        flow: str,
        target: Site,
        tables: Mapping[str, str],
        keeper: Housekeeper,
        keep: ApplySettings,
        status: Housekeeper | None,
    ) -> None:
        """`tables`: with their entity types; `status`: who keeps sync_status, if this flow does."""
        self._flow, self._target = flow, target
        self._tables = tables
        self._keeper = keeper
        self._keep = keep
        self._status = status
        self._applied: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._heartbeat: float | None = None
        self._newest_beat: float | None = None
        self._lags, self._changes, self._noted = Lags(), 0, 0.0
        self._unkept = Trouble(log, f"flow {flow}: sync_log is not maintained", level=logging.DEBUG)
        self._lagging = Trouble(log, f"flow {flow}: sync_status lags", level=logging.DEBUG)

    def add(self, batch: Batch) -> None:
        """Count a batch that is applied."""
        self._applied.update(change.table for change in batch.changes)
        self._changes += len(batch.changes)
        lags = self._lags.add(batch.changes, time.time())
        metrics.observe(self._flow, self._target, lags)
        self._heartbeat = batch.heartbeat or self._heartbeat
        self._newest_beat = batch.heartbeat or self._newest_beat

    def failed(self, parked: Sequence[ParkedRecord]) -> None:
        """Count changes that were parked, or are dead."""
        self._failed.update(each.table for each in parked)
        outcomes = Counter(Outcome(each.state.value) for each in parked)
        metrics.count(self._flow, self._target, outcomes)

    async def run(self) -> None:
        """Write until cancelled."""
        maintain_at = 0.0
        while True:
            if time.monotonic() >= maintain_at:
                done = await self._maintain()
                wait = MAINTENANCE_SECONDS if done else MAINTENANCE_RETRY_SECONDS
                maintain_at = time.monotonic() + wait
            await asyncio.sleep(STATUS_SECONDS)
            news = bool(self._applied or self._failed or self._heartbeat is not None)
            if time.monotonic() - self._noted > (LAG_SECONDS if news else NOTE_SECONDS):
                await self._note_lag()
            if news:
                await self._record()

    async def _maintain(self) -> bool:
        try:
            await self._keeper.maintain(self._keep)
        except psycopg.Error as error:
            self._unkept.met(error)
            return False
        self._unkept.over()
        return True

    async def _note_lag(self) -> None:
        lag = self._lags.of_the_last_minute(time.time())
        try:
            await self._keeper.note_lag(self._flow, self._changes, lag, self._newest_beat)
        except psycopg.Error as error:
            self._lagging.met(error)
        else:
            self._noted = time.monotonic()

    async def _record(self) -> None:
        applied, failed, heartbeat = self._applied, self._failed, self._heartbeat
        self._applied, self._failed, self._heartbeat = Counter(), Counter(), None
        if self._status is None:
            return
        try:
            await self._status.record_status(
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
