"""Looks at both sites, Kafka and the set-up, and sends heartbeats through the outboxes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import AsyncConnection

from ftstream.flows import Capture, CaptureNames, Flow, Names, Site, log_captures
from ftstream.kafka.errors import KafkaError, TopicMissing
from ftstream.kafka.offsets import Ends, open_ends
from ftstream.postgres.errors import failure_of
from ftstream.postgres.queries import Queries, statement
from ftstream.retry import Trouble
from ftstream.settings import Settings
from ftstream.setup import look as setup_look
from ftstream.watch.judge import WENT_BACK
from ftstream.watch.signals import (
    Compared,
    LagSignal,
    OpenGap,
    RunSignal,
    SetupFault,
    SetupSignals,
    Signals,
    Silent,
    SiteSignals,
    SlotSignal,
    Waiting,
    WorkerSignal,
)
from ftstream.watch.store import ANSWER_SECONDS, Links, SiteSilent

log = logging.getLogger(__name__)

_QUERIES = Queries.load(__package__, "signals.sql")


SIZE_SECONDS = 60.0
"""Between two measurements of the databases."""

CONFLICT_SECONDS = 600.0
"""Of which conflicts are counted."""


class Looker:
    """An async context manager; each `look` is one glance, answered or not within seconds."""

    def __init__(self, settings: Settings, flows: Sequence[Flow], links: Links) -> None:
        self._settings, self._flows, self._links = settings, flows, links
        self._setup = SetupSignals()
        self._connect: Silent | None = None
        self._before: set[tuple[str, str]] = set()
        """Who had which fault in the look before: what one alone has seen may be amid somebody's change."""
        self._watching: asyncio.Task[None] | None = None
        self._kafka = AsyncExitStack()
        self._ends: Ends | None = None
        self._sizes: dict[Site, tuple[float, int]] = {}
        """When each was measured, and its bytes."""
        self._unbeaten: dict[tuple[Site, str], Trouble] = {}
        self._progress = Progress(flows, settings.namespace)
        self._setup_looks = 0
        self._troubled: dict[str, float] = {}
        self._beating_since = time.monotonic()
        self.undelivered: Mapping[str, str] = {}
        self.compared = Compared(None, {})

    async def __aenter__(self) -> Looker:
        self._watching = asyncio.create_task(self._watch_setup())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._drop_kafka()

    async def look(self) -> Signals:
        """Look at everything, and have the outboxes carry a heartbeat."""
        external, supabase, ends = await asyncio.gather(
            self._site(Site.EXTERNAL), self._site(Site.SUPABASE), self._topic_ends()
        )
        sites = {Site.EXTERNAL: external, Site.SUPABASE: supabase}
        return Signals(
            sites=sites,
            ends=ends,
            settled={flow: time.monotonic() - at for flow, at in self._troubled.items()},
            stuck=self._progress.stuck(sites, ends),
            setup_seen=self._setup_looks >= 2,
            connect=self._connect,
            setup=self._setup,
            beating_seconds=time.monotonic() - self._beating_since,
            compared=self.compared,
            undelivered=self.undelivered,
        )

    def begin(self) -> None:
        """Count from now on how long something stands still: before, a watcher or a service was away."""
        self._beating_since = time.monotonic()
        self._progress.forget()

    def troubled(self, flows: Collection[str]) -> None:
        """Something keeps these flows from going on: what waits comes late afterwards."""
        self._troubled |= dict.fromkeys(flows, time.monotonic())

    async def _site(self, site: Site) -> SiteSignals | Silent:
        try:
            found: SiteSignals = await self._links.run(site, self._glance(site))
        except SiteSilent as error:
            return Silent(str(error))
        except psycopg.Error as error:
            return Silent(" ".join(str(error).split()), refused=True)
        return found

    def _glance(self, site: Site) -> Any:
        async def look(connection: AsyncConnection) -> SiteSignals:
            found = await glance(self._settings, self._flows, site, connection)
            disk = self._settings.database(site).disk_bytes
            if disk:
                used = await self._size(site, connection) + _kept(found)
                found = replace(found, used_bytes=used, disk_bytes=disk)
            if not found.read_only and (tables := self._beating(site)):
                await self._beat(site, connection, tables)
            return found

        return look

    async def _size(self, site: Site, connection: AsyncConnection) -> int:
        """Measure the databases now and then: their files are counted for it."""
        at, size = self._sizes.get(site, (-math.inf, 0))
        if time.monotonic() - at > SIZE_SECONDS:
            self._sizes[site] = (
                time.monotonic(),
                size,
            )  # one that takes too long is not tried at once
            async with _careful(connection):
                row = await (await connection.execute(statement(_QUERIES["size"]))).fetchone()
            size = int(row[0] or 0) if row else 0
            self._sizes[site] = time.monotonic(), size
        return size

    async def _beat(self, site: Site, connection: AsyncConnection, tables: Sequence[str]) -> None:
        """What is refused shows as a heartbeat that is missing, and why as a fault of the set-up."""
        for table in tables:  # each by itself: one that is not captured any more stops no other
            trouble = self._unbeaten.setdefault(
                (site, table), Trouble(log, f"{site}: no heartbeat by {table}")
            )
            try:
                async with _careful(connection):
                    await connection.execute(statement(_QUERIES["beat"]), {"tables": [table]})
            except psycopg.Error as error:
                if failure_of(error).connection:
                    raise
                trouble.met(error)
            else:
                trouble.over()

    def _beating(self, site: Site) -> list[str]:
        """One table of each flow that leaves this site by its outbox."""
        return [
            flow.tables[0].qualified
            for flow in self._flows
            if flow.capture is Capture.OUTBOX and site in flow.sources
        ]

    async def _topic_ends(self) -> Mapping[tuple[str, int], int] | Silent:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._ends is None:
                    opened = open_ends(self._settings.kafka, self._topics())
                    self._ends = await self._kafka.enter_async_context(opened)
                return {
                    (at.topic, at.partition): end for at, end in (await self._ends.read()).items()
                }
        except TopicMissing:
            return {}  # a fault of the set-up, and told as such
        except TimeoutError:
            reason = f"no answer in {ANSWER_SECONDS:.0f} s"
        except Exception as error:  # noqa: BLE001  # whatever the client raises when its broker dies
            reason = " ".join(str(error).split()) or repr(error)
        await self._drop_kafka()
        return Silent(reason)

    def _topics(self) -> list[str]:
        names = [Names(flow, self._settings.namespace) for flow in self._flows]
        return [t for each in names for target in each.flow.targets for t in each.topics(target)]

    async def _drop_kafka(self) -> None:
        self._ends = None
        stack, self._kafka = self._kafka, AsyncExitStack()
        # A client of a dead broker may take its time to close, or raise what it was raised for.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(ANSWER_SECONDS):
                await stack.aclose()

    async def _watch_setup(self) -> None:
        """In a task of its own: it waits longer for who does not answer than a look may take."""
        trouble = Trouble(log, "the set-up was not looked at")
        while True:
            try:
                certain = self._take(await setup_look.look(self._settings, self._flows))
                trouble.over()
                if not certain:
                    await asyncio.sleep(setup_look.AGAIN_SECONDS)
                    continue
            except (psycopg.Error, KafkaError) as error:
                trouble.met(error)
            except Exception:
                log.exception(
                    "the set-up cannot be looked at: a fault of ftstream, please report it"
                )
            await asyncio.sleep(self._settings.watch.seconds)

    def _take(self, found: setup_look.SetupLook) -> bool:
        """Keep what two looks have found; of who is silent what was known before stays.

        False if something is to be looked at again.
        """
        silent = {fault.where: fault for fault in found.faults if fault.silent}
        connect = silent.get("connect") if ("connect", "") in self._before else None
        self._connect = Silent(connect.detail) if connect else None
        kept = [
            fault
            for fault in self._setup.faults
            # Whether a site has gone back nobody can tell while anybody is silent.
            if fault.where in silent or (silent and WENT_BACK in fault.what)
        ]
        seen = [
            SetupFault(f.where, f.what, f.command, f.flows, bool(f.tables), f.detail)
            for f in found.faults
            if not f.silent and (f.where, f.what) in self._before
        ]
        gaps = [OpenGap(site, gap.flow, str(gap)) for site, gap in found.gaps]
        kept_gaps = [gap for gap in self._setup.gaps if gap.site.value in silent]
        self._setup = SetupSignals((*kept, *seen), (*kept_gaps, *gaps))
        now = {(f.where, "" if f.silent else f.what) for f in found.faults}
        new, self._before = now - self._before, now
        self._setup_looks += 1
        return not new


async def glance(
    settings: Settings, flows: Sequence[Flow], site: Site, connection: AsyncConnection
) -> SiteSignals:
    """Return what a site says; it changes nothing there. Raises psycopg.Error."""
    slots: list[str] = []
    if site is Site.EXTERNAL:
        captures = log_captures(flows)
        slots = [CaptureNames(capture, settings.namespace).slot for capture in captures]
    begun = time.time()
    async with _careful(connection):
        values = {"slots": slots, "conflict_seconds": CONFLICT_SECONDS}
        own = await _document(connection, "site", values)
        now = (begun + time.time()) / 2
        more = {}
        if site is Site.SUPABASE:
            batches = [flow.name for flow in flows if flow.capture is Capture.BATCH]
            more = await _document(connection, "supabase", {"batches": batches})
    return site_signals(site, own, more, now)


def site_signals(
    site: Site, own: Mapping[str, Any], more: Mapping[str, Any], now: float
) -> SiteSignals:
    """Make values of what a site says. `now`: the watcher's time when it was asked."""
    here = float(own["now"])
    at = more.get("outbox_at")
    return SiteSignals(
        site=site,
        skew_seconds=here - now,
        read_only=own["read_only"],
        connections=own["connections"],
        most_connections=own["most_connections"],
        applied={(topic, partition): offset for topic, partition, offset in own["applied"]},
        lags=[
            LagSignal(
                lag["flow"],
                lag["changes"],
                lag["p50_ms"],
                lag["p99_ms"],
                None if lag["heartbeat_at"] is None else here - float(lag["heartbeat_at"]),
            )
            for lag in own["lags"]
        ],
        waiting=[Waiting(**each) for each in own["waiting"]],
        slots=[SlotSignal(**each) for each in own["slots"]],
        workers=[WorkerSignal(**each) for each in more.get("workers", ())],
        runs=[RunSignal(**each) for each in more.get("runs", ())],
        conflicts=own["conflicts"],
        outbox=more.get("outbox", 0),
        outbox_seconds=max(0.0, here - float(at)) if at is not None else 0.0,
    )


def _kept(seen: SiteSignals) -> int:
    """What slots keep of the log: the one that keeps most keeps the others', too."""
    return max((slot.retained_bytes for slot in seen.slots), default=0)


class Progress:
    """Sees which partitions have records to apply, and for how long none of them was."""

    def __init__(self, flows: Sequence[Flow], namespace: str) -> None:
        self._topics = {
            topic: target
            for flow in flows
            for target in flow.targets
            for topic in Names(flow, namespace).topics(target)
        }
        self._since: dict[tuple[str, int], tuple[int, float]] = {}
        """Those that are behind: the applied offset, and since when it is that."""

    def forget(self) -> None:
        """Count from now on."""
        self._since.clear()

    def stuck(
        self,
        sites: Mapping[Site, SiteSignals | Silent],
        ends: Mapping[tuple[str, int], int] | Silent,
    ) -> dict[tuple[str, int], float]:
        """Return how many seconds each that is behind has not moved; of who is silent nobody can tell."""
        before, self._since = self._since, {}
        if isinstance(ends, Silent):
            return {}
        now = time.monotonic()
        for at, end in ends.items():
            seen = sites[self._topics[at[0]]]
            if isinstance(seen, Silent) or (applied := seen.applied.get(at, 0)) >= end:
                continue
            known = before.get(at)
            self._since[at] = known if known and known[0] == applied else (applied, now)
        return {at: now - since for at, (_, since) in self._since.items()}


@asynccontextmanager
async def _careful(connection: AsyncConnection) -> AsyncIterator[None]:
    async with connection.transaction():
        await connection.execute(statement(_QUERIES["patience"]))
        yield


async def _document(
    connection: AsyncConnection, query: str, values: Mapping[str, object]
) -> dict[str, Any]:
    row = await (await connection.execute(statement(_QUERIES[query]), values)).fetchone()
    assert row is not None  # each of these statements returns exactly one row
    found: dict[str, Any] = row[0]
    return found
