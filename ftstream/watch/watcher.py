"""The watcher: one is active, and looks, tells, heals; others stand by, and take over when it is gone."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import aiohttp
import psycopg
from aiohttp import web
from prometheus_client import REGISTRY

from ftstream.apply.housekeeping import worker_name
from ftstream.compare.progress import NotCaughtUp, SlotMissing
from ftstream.compare.verification import verify
from ftstream.connect.client import ConnectClient
from ftstream.connect.errors import ConnectError
from ftstream.failures import Severity
from ftstream.flows import FLOWS, Capture, CaptureNames, Flow, Site, Table, log_captures
from ftstream.health import HealthServer
from ftstream.kafka.errors import KafkaError
from ftstream.postgres.catalog import TableMissing
from ftstream.settings import OffAir, Settings
from ftstream.watch import words
from ftstream.watch.alerts import Alert, Hours, Occasion, Rules, Telling, step
from ftstream.watch.codes import CODES, explained
from ftstream.watch.deliver import AlertMessage, Delivery
from ftstream.watch.heal import Restarts
from ftstream.watch.judge import Limits, Verdict, blind, judge
from ftstream.watch.look import Looker
from ftstream.watch.metrics import Sight, WatchMetrics
from ftstream.watch.signals import Compared, Signals, worst
from ftstream.watch.store import LEASE_SECONDS, Links, Store

log = logging.getLogger(__name__)

ALONE_SECONDS = 60.0
"""After which one that stands by acts, though no site says who is active: neither answers."""
FLUSH_SECONDS = 10.0
"""How long an ending watcher tries to deliver."""
COMPARE_SECONDS = 20.0
"""Between two looks whether a comparison is due."""
RECOMPARE_SECONDS = 300.0
"""After which rows that differed are looked at again."""
COMPARE_AGAIN_SECONDS = 600.0
"""After which a comparison that did not get to its end is tried again."""
GREET_SECONDS = 30.0
_UNCOMPARED = frozenset({"FT110", "FT111", "FT124", "FT140", "FT141", "FT142"})
"""While these last, what was written has not come, and is made up for: to compare says nothing."""
_AWAY = frozenset({"FT101", "FT102", "FT103", "FT104", "FT106"})
"""While these last nobody can tell how long flows would have stood still without them."""
STUCK_LOOKS = 6
"""After so many intervals without a look it counts as stuck, and no heartbeat is sent."""
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
        # Two on machines of one name are two.
        self._store = Store(self._links, f"{worker_name()} {secrets.token_hex(4)}")
        self._off_air = [_hours(each) for each in settings.watch.off_air]
        self._alerts: dict[tuple[str, str], Alert] = {}
        self._verdicts: Sequence[Verdict] = ()
        """Of the last look."""
        self._restarts: dict[str, Restarts] = {}
        self._partly: dict[str, int] = {}
        """Rows that differ, of a comparison that could not compare all flows."""
        self._stale: set[str] = set()
        """Flows that were broken since both sites were compared."""
        self._compare_at = 0.0
        self._active = False
        explain = web.get("/explain/{code}", _explain)
        self._health = HealthServer(
            "watcher", settings.listen.watcher, self._unready, more=[explain]
        )
        self._sight: Sight | None = None
        self._answered_at = time.monotonic()
        self._looked_at = self._leased_at = time.monotonic()
        self.signals: Signals | None = None
        """What the last look has seen."""

    async def run(self) -> None:
        """Look, tell and heal until cancelled; then leave it to another."""
        exported = WatchMetrics(
            self._flows, self._settings.namespace, self._limits, lambda: self._sight
        )
        REGISTRY.register(exported)
        await self._health.start()
        delivering = asyncio.create_task(self._delivery.run())
        try:
            async with (
                Looker(self._settings, self._flows, self._links) as looker,
                asyncio.TaskGroup() as group,
            ):
                for work in (
                    self._note_receipts(),
                    self._look_on(looker),
                    self._every(self._watch.look_seconds, self._heal),
                    self._every(self._watch.heartbeat_seconds, self._ping),
                    self._every(self._watch.health_seconds, self._have_health_told),
                    self._every(COMPARE_SECONDS, self._compare),
                    self._greet(),
                ):
                    group.create_task(work)
        finally:
            if self._active:
                await self._store.give_up()
                await self._delivery.flush(FLUSH_SECONDS)
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)
            await self._links.close()
            await self._health.close()
            REGISTRY.unregister(exported)

    def _unready(self) -> Sequence[str]:
        """Why it watches nothing now; one that stands by is ready to."""
        silent = time.monotonic() - max(self._looked_at, self._leased_at)
        if silent > STUCK_LOOKS * self._watch.look_seconds:
            return [f"it has not looked for {silent:.0f} s"]
        return []

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
            self._restarts = await self._store.restarts()
            self._looked_at = time.monotonic()
            looker.begin()
        elif self._active and not active:
            log.info("another watcher is active: standing by")
            self._delivery.clear()
        self._active, self._leased_at = active, time.monotonic()
        if not active:
            self._sight = None
            return
        looker.undelivered = self._delivery.undelivered
        seconds, differing = await self._store.compared() or (None, {})
        # What differed while capture was broken is made up for, and compared again.
        stale = {t.name for f in self._flows if f.name in self._stale for t in f.tables}
        known = {**differing, **self._partly}
        looker.compared = Compared(seconds, {t: n for t, n in known.items() if t not in stale})
        self.signals = await looker.look()
        self._verdicts = judge(self.signals, self._flows, self._settings.namespace, self._limits)
        if not self._leased:
            return  # it was frozen: another may be active by now, which the next look asks
        for verdict in self._verdicts:
            if verdict.hides and verdict.code.name in CODES["FT120"].hidden_by:
                looker.troubled(verdict.flows)
            if verdict.code.name in _UNCOMPARED:
                self._stale.update(verdict.flows)
        if any(verdict.code.name in _AWAY for verdict in self._verdicts):
            looker.begin()
        await self._tell(self._verdicts)
        self._sight = Sight(self.signals, time.time(), tuple(self._alerts.values()))
        self._looked_at = time.monotonic()

    @property
    def _leased(self) -> bool:
        """Whether no other watcher can be active."""
        return self._active and time.monotonic() - self._leased_at < LEASE_SECONDS

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
        kept = await self._store.open_alerts()
        known = {a.key: a.acknowledged_by for a in kept}
        before = {
            key: _acknowledged(alert, known.get(key, "")) for key, alert in self._alerts.items()
        }
        assert self.signals is not None  # it is judged before
        rules = Rules(
            on_air=on_air,
            mutes=await self._store.mutes(),
            blind=blind(self.signals, self._limits),
        )
        told = step(before.values(), verdicts, now, rules)
        self._alerts = dict(told.open)
        for telling in told.tellings:
            self._deliver(telling)
        current = {(a.key, a.opened_at) for a in (*told.open.values(), *told.closed)}
        # A site that was away when they ended has them open.
        stale = [replace(a, closed_at=now) for a in kept if (a.key, a.opened_at) not in current]
        await self._store.save([*told.open.values(), *stale, *told.closed])

    def _deliver(self, telling: Telling) -> None:
        language = self._watch.language
        title = words.title(telling, language)
        body = words.body(telling, language, self._watch.page_url)
        code = {"code": telling.alert.code}
        log.warning("%s: %s", title, body.replace("\n", "; "), extra=code)
        over = telling.occasion is Occasion.OVER
        # Whoever was told of it at its worst is told of its end.
        severity = telling.alert.told_as or telling.alert.severity
        self._delivery.send(AlertMessage(severity, title, body, over=over))

    async def _heal(self) -> None:
        """Restart connectors that have failed, by the schedule."""
        failed = any(v.code.name == "FT110" and "has failed" in v.what for v in self._verdicts)
        if not failed or not self._leased:
            return
        async with ConnectClient(self._settings.connect) as client:
            for capture in log_captures(self._flows):
                await self._restart(client, CaptureNames(capture, self._settings.namespace))

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
                except (psycopg.Error, KafkaError, ConnectError, OSError) as error:
                    log.info("%s: %s", work.__name__.strip("_"), error)
                except Exception:
                    log.exception("%s: a fault of ftstream, please report it", work.__name__)
            await asyncio.sleep(seconds if self._active else min(seconds, 1.0))

    async def _ping(self) -> None:
        """Ask the dead man's switch, if looks go on."""
        url = self._watch.heartbeat_url.get_secret_value()
        stuck = time.monotonic() - self._looked_at > STUCK_LOOKS * self._watch.look_seconds
        receivers = len(self._watch.receivers)
        # Where no receiver takes anything, the silence of the heartbeat is what tells.
        unheard = receivers > 0 and len(self._delivery.undelivered) == receivers
        if not url or stuck or unheard or not self._leased:
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
        if not every or self.signals is None or time.monotonic() < self._compare_at:
            return
        last = self.signals.compared
        # What differs somebody repairs: then it is over soon.
        due = min(every, RECOMPARE_SECONDS) if last.differing or self._stale else every
        if last.seconds is not None and last.seconds < due:
            return
        # Not at once again, whatever comes of it: it reads every table of both sites.
        self._compare_at = time.monotonic() + min(every, COMPARE_AGAIN_SECONDS)
        differing: dict[str, int] = {}
        left: list[str] = []
        broken = {
            flow: v.code.name
            for v in self._verdicts
            if v.code.name in _UNCOMPARED
            for flow in v.flows
        }
        for flow in (each for each in self._flows if each.capture is not Capture.BATCH):
            if flow.name in broken:
                left.append(f"{flow.name}: {broken[flow.name]} is not over")
                continue
            try:
                differing |= await self._differing(flow)
                self._stale.discard(flow.name)
            except (NotCaughtUp, SlotMissing, TableMissing, psycopg.Error, KafkaError) as error:
                left.append(f"{flow.name}: {error}")
        if left:
            self._partly = differing
            log.info("not compared: %s", "; ".join(left))
            return
        self._partly, self._compare_at = {}, 0.0
        await self._store.note_compared(differing)
        log.info("both sites were compared: %s", differing or "equal")

    async def _differing(self, flow: Flow) -> dict[str, int]:
        """Count the rows that differ, by table; of those that are parked or dead is told as such."""
        found: dict[str, set[str]] = {}

        async def differ(table: Table, ids: Collection[str]) -> None:
            found.setdefault(table.name, set()).update(ids)

        await verify(flow, self._settings, limit=0, found=differ)
        if not found:
            return {}
        waiting = await self._store.waiting(flow.name)
        left = {name: ids - waiting.get(name, set()) for name, ids in found.items()}
        return {name: len(ids) for name, ids in left.items() if ids}

    async def _greet(self) -> None:
        """Send what the daily checklist asks, once a day."""
        at = self._watch.morning
        if at is None:
            return
        greeted = datetime.now(self._zone).date()
        if datetime.now(self._zone).time() < at:
            greeted -= timedelta(days=1)
        while True:
            # In small steps: clocks are set, and days are not all of one length.
            now = datetime.now(self._zone)
            if now.date() > greeted and now.time() >= at:
                greeted = now.date()
                if self._leased:
                    await self._send_morning()
            await asyncio.sleep(GREET_SECONDS)

    async def _send_morning(self) -> None:
        batches = [f.name for f in self._flows if f.capture is Capture.BATCH]
        row = await self._store.one(Site.SUPABASE, "daily", {"batches": batches})
        errors = await self._store.one(Site.SUPABASE, "errors", {})
        if row is None or errors is None:
            return  # that Supabase is away is told as such
        open_codes = sorted({alert.code for alert in self._alerts.values()})
        head, body = words.morning(
            self._watch.language, row[0], errors[0], late(self.signals), row[1], open_codes
        )
        self._delivery.send(AlertMessage(Severity.CRITICAL, head, body, over=True))


def late(signals: Signals | None) -> str:
    """How late changes come, over all flows: the worst p50 and p99."""
    seen = [s for s in (signals.site(site) for site in Site) if s] if signals else []
    found = worst(lag for each in seen for lag in each.lags)
    return f"p50 {found[0]} ms, p99 {found[1]} ms" if found else "-"


async def _explain(request: web.Request) -> web.Response:
    """Where the alerts of Prometheus lead."""
    text = explained(request.match_info["code"])
    if text is None:
        raise web.HTTPNotFound(text="there is no such code\n")
    return web.Response(text=f"{text}\n")


def _acknowledged(alert: Alert, who: str) -> Alert:
    return replace(alert, acknowledged_by=who or alert.acknowledged_by)


def _hours(off_air: OffAir) -> Hours:
    return Hours(frozenset(map(_DAYS.index, off_air.days)), off_air.begin, off_air.end)
