"""The watcher: one is active, and looks, tells, heals; others stand by, and take over when it is gone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import aiohttp
import psycopg

from ftstream.apply.housekeeping import worker_name
from ftstream.compare.progress import NotCaughtUp
from ftstream.compare.verification import verify
from ftstream.connect.client import ConnectClient
from ftstream.connect.errors import ConnectError
from ftstream.failures import Severity
from ftstream.flows import FLOWS, Capture, CaptureNames, Flow, Site, log_captures
from ftstream.kafka.errors import KafkaError
from ftstream.settings import OffAir, Settings
from ftstream.watch import words
from ftstream.watch.alerts import Alert, Hours, Occasion, Rules, Telling, step
from ftstream.watch.deliver import AlertMessage, Delivery
from ftstream.watch.heal import Restarts
from ftstream.watch.judge import Limits, Verdict, judge
from ftstream.watch.look import Looker
from ftstream.watch.signals import Compared, Signals, worst
from ftstream.watch.store import Links, Store

log = logging.getLogger(__name__)

ALONE_SECONDS = 60.0
"""After which one that stands by acts, though no site says who is active: neither answers."""
FLUSH_SECONDS = 10.0
"""How long an ending watcher tries to deliver."""
AGAIN_SECONDS = 60.0
"""After which work that has failed is tried again."""
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Watcher:
    """Of one installation; `run` until cancelled."""

    def __init__(self, settings: Settings, flows: Sequence[Flow] = FLOWS) -> None:
        """Raises BadReceiver."""
        self._settings, self._flows = settings, flows
        self._watch = settings.watch
        self._zone = ZoneInfo(settings.watch.timezone)
        self._limits = Limits(verify_seconds=settings.watch.verify_seconds)
        self._delivery = Delivery(settings.watch.receivers)
        self._links = Links(settings)
        self._store = Store(self._links, worker_name())
        self._off_air = [_hours(each) for each in settings.watch.off_air]
        self._alerts: dict[tuple[str, str], Alert] = {}
        self._restarts: dict[str, Restarts] = {}
        self._active = False
        self._answered_at = time.monotonic()
        self._looked_at = 0.0
        self.signals: Signals | None = None
        """What the last look has seen."""

    async def run(self) -> None:
        """Look, tell and heal until cancelled; then leave it to another."""
        try:
            async with (
                Looker(self._settings, self._flows, self._links) as looker,
                asyncio.TaskGroup() as group,
            ):
                for work in (
                    self._delivery.run(),
                    self._note_receipts(),
                    self._look_on(looker),
                    self._every(self._watch.heartbeat_seconds, self._ping),
                    self._every(self._watch.health_seconds, self._have_health_told),
                    self._every(min(AGAIN_SECONDS, self._watch.look_seconds * 4), self._compare),
                    self._greet(),
                ):
                    group.create_task(work)
        finally:
            await self._delivery.flush(FLUSH_SECONDS if self._active else 0.0)
            if self._active:
                await self._store.give_up()
            await self._links.close()

    async def _look_on(self, looker: Looker) -> None:
        while True:
            begun = time.monotonic()
            await self._look(looker)
            spent = time.monotonic() - begun
            await asyncio.sleep(max(0.1, self._watch.look_seconds - spent))

    async def _look(self, looker: Looker) -> None:
        active = await self._is_active()
        if active and not self._active:
            log.info("active")
            self._alerts = {a.key: a for a in await self._store.open_alerts()}
            looker.begin()
        elif self._active and not active:
            log.info("another watcher is active: standing by")
        self._active = active
        if not active:
            return
        looker.undelivered = self._delivery.undelivered
        compared = await self._store.compared()
        looker.compared = Compared(*compared) if compared else None
        self.signals = await looker.look()
        verdicts = judge(self.signals, self._flows, self._settings.namespace, self._limits)
        await self._tell(verdicts)
        await self._heal(verdicts)
        self._looked_at = time.monotonic()

    async def _is_active(self) -> bool:
        granted = await self._store.lease()
        if granted is not None:
            self._answered_at = time.monotonic()
            return granted
        return self._active or time.monotonic() - self._answered_at > ALONE_SECONDS

    async def _tell(self, verdicts: Sequence[Verdict]) -> None:
        now = datetime.now(UTC)
        local = now.astimezone(self._zone)
        on_air = not any(hours.cover(local) for hours in self._off_air)
        # What somebody has acknowledged meanwhile is in the databases alone.
        known = {a.key: a.acknowledged_by for a in await self._store.open_alerts()}
        before = {
            key: _acknowledged(alert, known.get(key, "")) for key, alert in self._alerts.items()
        }
        rules = Rules(on_air=on_air, mutes=await self._store.mutes())
        told = step(before.values(), verdicts, now, rules)
        self._alerts = dict(told.open)
        for telling in told.tellings:
            self._deliver(telling)
        await self._store.save([*told.open.values(), *told.closed])

    def _deliver(self, telling: Telling) -> None:
        language = self._watch.language
        title = words.title(telling, language)
        body = words.body(telling, language, self._watch.page_url)
        log.warning("%s: %s", title, body.replace("\n", "; "))
        over = telling.occasion is Occasion.OVER
        self._delivery.send(AlertMessage(telling.alert.severity, title, body, over=over))

    async def _heal(self, verdicts: Sequence[Verdict]) -> None:
        """Restart connectors that have failed, by the schedule."""
        if not any(v.code.name == "FT110" and "has failed" in v.what for v in verdicts):
            return
        try:
            async with ConnectClient(self._settings.connect) as client:
                for capture in log_captures(self._flows):
                    await self._restart(client, CaptureNames(capture, self._settings.namespace))
        except ConnectError as error:
            log.info("no connector is restarted: %s", error)

    async def _restart(self, client: ConnectClient, names: CaptureNames) -> None:
        status = await client.status(names.connector)
        failed = status.failed if status else None
        restarts, now = self._restarts.get(names.connector, Restarts()), datetime.now(UTC)
        if failed is None or not restarts.due(now):
            return
        await client.restart(names.connector, only_failed=True)
        self._restarts[names.connector] = done = restarts.done(now)
        log.warning("connector %s is restarted, for the %d. time", names.connector, done.count)
        details = {"restart": done.count, "cause": failed.cause}
        await self._store.note_activity("connector_restart", names.connector, details)

    async def _note_receipts(self) -> None:
        while True:
            name, error = await self._delivery.receipts.get()
            await self._store.note_receiver(name, error)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do it again and again while this watcher is active; a failure is told in the log alone."""
        while True:
            if self._active:
                try:
                    await work()
                except (psycopg.Error, KafkaError, ConnectError, NotCaughtUp, OSError) as error:
                    log.info("%s: %s", work.__name__.strip("_"), error)
                except Exception:
                    log.exception("%s: a fault of ftstream, please report it", work.__name__)
            await asyncio.sleep(seconds if self._active else min(seconds, 1.0))

    async def _ping(self) -> None:
        """Ask the dead man's switch, if looks go on."""
        url = self._watch.heartbeat_url.get_secret_value()
        if not url or time.monotonic() - self._looked_at > 6 * self._watch.look_seconds:
            return
        limit = aiohttp.ClientTimeout(total=10)
        try:
            async with aiohttp.ClientSession(timeout=limit) as session, session.get(url) as answer:
                answer.raise_for_status()
        except (aiohttp.ClientError, TimeoutError) as error:
            # The URL is the secret: only what kind of failure it was.
            log.warning("the heartbeat was not taken: %s", type(error).__name__)

    async def _have_health_told(self) -> None:
        language = {"language": self._watch.language}
        await self._store.one(Site.SUPABASE, "health", language)
        await self._store.forget()

    async def _compare(self) -> None:
        """Compare both sites, if that is due. What runs carry may differ until the next one."""
        every = self._watch.verify_seconds
        if not every or self.signals is None:
            return
        last = self.signals.compared
        if last is not None and last.seconds < every:
            return
        differing: dict[str, int] = {}
        for flow in self._flows:
            if flow.capture is not Capture.BATCH:
                for verdict in await verify(flow, self._settings, limit=0):
                    if rows := verdict.counts.total():
                        differing[verdict.table.name] = rows
        await self._store.note_compared(differing)
        log.info("both sites were compared: %s", differing or "equal")

    async def _greet(self) -> None:
        """Send what the daily checklist asks, once a day."""
        at = self._watch.morning
        if at is None:
            return
        while True:
            now = datetime.now(self._zone)
            due = datetime.combine(now.date(), at, self._zone)
            due += timedelta(days=1) if due <= now else timedelta()
            await asyncio.sleep((due - now).total_seconds())
            if self._active:
                await self._send_morning()

    async def _send_morning(self) -> None:
        batches = [f.name for f in self._flows if f.capture is Capture.BATCH]
        row = await self._store.one(Site.SUPABASE, "daily", {"batches": batches})
        errors = await self._store.one(Site.SUPABASE, "errors", {})
        if row is None or errors is None:
            return  # that Supabase is away is told as such
        head, body = words.morning(
            self._watch.language, row[0], errors[0], late(self.signals), row[1]
        )
        self._delivery.send(AlertMessage(Severity.CRITICAL, head, body, over=True))


def late(signals: Signals | None) -> str:
    """How late changes come, over all flows: the worst p50 and p99."""
    seen = [s for s in (signals.site(site) for site in Site) if s] if signals else []
    found = worst(lag for each in seen for lag in each.lags)
    return f"p50 {found[0]} ms, p99 {found[1]} ms" if found else "-"


def _acknowledged(alert: Alert, who: str) -> Alert:
    return replace(alert, acknowledged_by=who or alert.acknowledged_by)


def _hours(off_air: OffAir) -> Hours:
    return Hours(frozenset(map(_DAYS.index, off_air.days)), off_air.begin, off_air.end)
