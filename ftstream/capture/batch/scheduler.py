"""Has a flow captured by batch run when sync_status says that it is due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import psycopg

from ftstream import notification
from ftstream.capture import batch
from ftstream.capture.batch.schedule import Schedule, TurnLost
from ftstream.capture.batch.table_run import TableRun
from ftstream.compare.progress import NotCaughtUp
from ftstream.flows import Flow, Site
from ftstream.kafka.errors import KafkaError
from ftstream.messages.avro_schema import SchemaFileError
from ftstream.notification import Notify
from ftstream.postgres.catalog import KeyMissing, TableMissing
from ftstream.postgres.connection import open_site
from ftstream.settings import Settings, SettingsError

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0

UNDER_WAY_SECONDS = 5.0
"""After which it is looked again whether another worker's run is over."""

RETRY_SECONDS = 5.0
"""After which a database that does not answer is asked again."""

_KNOWN = (
    psycopg.Error,
    batch.RunStopped,
    KafkaError,
    KeyMissing,
    NotCaughtUp,
    SchemaFileError,
    SettingsError,
    TableMissing,
    TurnLost,
)
"""What a run may meet; anything else is a fault of ours, and its trace is told too."""


class Scheduler:
    """Of one flow. Workers each have one: whose turn it is, the database decides."""

    def __init__(self, flow: Flow, settings: Settings, notify: Notify) -> None:
        self._flow = flow
        self._settings = settings
        self._notify = notify
        # By table, of the flow itself under no name.
        self._troubles: dict[str, str] = {}

    async def run(self) -> None:
        """Until cancelled."""
        checked = False
        while True:
            try:
                async with await open_site(self._settings, Site.SUPABASE) as connection:
                    schedule = Schedule(self._flow, self._settings.namespace, connection)
                    await schedule.set_interval(self._settings.batch.interval_seconds)
                    if not checked:
                        await self._check(schedule)
                        checked = True
                    while True:
                        if await schedule.due():
                            await self._run()
                        await asyncio.sleep(POLL_SECONDS)
            except psycopg.Error as error:
                self._told("no run can begin", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _check(self, schedule: Schedule) -> None:
        """A schema that does not fit is told when the worker starts, not when the next run is due."""
        try:
            found = await batch.check(self._flow, self._settings)
        except Exception as error:  # noqa: BLE001  # as of a run
            flow = self._flow
            runs = [TableRun(table.name, flow.entity_type(table)) for table in flow.tables]
            await schedule.failed(runs, str(error) or repr(error))
            self._failed(error)
        else:
            for result in (each for each in found if each.problem):
                await schedule.failed([result], result.problem)
                self._stopped(batch.stopped([result]))

    async def _run(self) -> None:
        try:
            results = await batch.run(self._flow, self._settings)
        except batch.RunUnderWay as error:
            log.debug("%s", error)
            await asyncio.sleep(UNDER_WAY_SECONDS)
        except batch.RunStopped as error:
            self._stopped(error)
        except Exception as error:  # noqa: BLE001  # other flows go on; this one says so, and tries again
            self._failed(error)
        else:
            self._done(results)

    def _stopped(self, error: batch.RunStopped) -> None:
        """Some tables have trouble of their own."""
        self._troubles.pop("", None)
        self._done([result for result in error.results if not result.problem])
        for result in (each for each in error.results if each.problem):
            what = f"the run of {result.table} {'waits' if result.doubt else 'failed'}"
            self._told(what, batch.stopped([result]), result.table)
            told = notification.run_failed(
                self._flow.name, result.problem, halted=bool(result.doubt), table=result.table
            )
            self._notify(told)

    def _done(self, results: Sequence[TableRun]) -> None:
        troubled = bool(self._troubles)
        for name in ("", *(result.table for result in results)):
            self._troubles.pop(name, None)
        if results and troubled and not self._troubles:
            log.warning("flow %s: runs go on", self._flow.name)
        for result in results:
            level = logging.INFO if result.found else logging.DEBUG
            log.log(level, "flow %s: run of %s: %s", self._flow.name, result.table, result.details)
            if result.uncarried:
                columns = ", ".join(result.uncarried)
                self._notify(notification.columns_new(self._flow.name, result.table, columns))
            if result.undone:
                told = notification.edits_undone(self._flow.name, result.table, result.undone)
                self._notify(told)

    def _failed(self, error: Exception) -> None:
        self._told("a run failed", error)
        reason = str(error) or repr(error)
        self._notify(notification.run_failed(self._flow.name, reason, halted=False))

    def _told(self, what: str, error: Exception, table: str = "") -> None:
        """Once in the log, for as long as it is the same."""
        reason = " ".join(str(error).split()) or repr(error)
        if reason != self._troubles.get(table):
            trace = None if isinstance(error, _KNOWN) else error
            log.warning("flow %s: %s: %s", self._flow.name, what, reason, exc_info=trace)
        self._troubles[table] = reason
