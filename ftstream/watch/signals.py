"""What one look of the watcher has seen, as values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ftstream.flows import Site


@dataclass(frozen=True, slots=True)
class Silent:
    """Somebody does not answer, or has `refused` what the watcher asks."""

    reason: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class LagSignal:
    """How late a flow's changes came to a site in the last minute, as one worker says.

    `heartbeat_seconds`: how old the newest heartbeat is that has come the whole way; None for none.
    """

    flow: str
    changes: int
    p50_ms: int | None
    p99_ms: int | None
    heartbeat_seconds: float | None


def worst(lags: Iterable[LagSignal]) -> tuple[int, int] | None:
    """The greatest p50 and p99 of these, in milliseconds; None if nothing was applied lately."""
    found = [(lag.p50_ms, lag.p99_ms) for lag in lags if lag.p50_ms is not None]
    if not found:
        return None
    return max(p50 for p50, _ in found), max(p99 or 0 for _, p99 in found)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Parked or dead changes of a flow at a site."""

    flow: str
    state: str
    changes: int
    oldest_seconds: float
    error: str


@dataclass(frozen=True, slots=True)
class SlotSignal:
    """A replication slot; `safe_bytes`: what may still be written before it is lost, None without a limit."""

    name: str
    active: bool
    status: str
    retained_bytes: int
    safe_bytes: int | None


@dataclass(frozen=True, slots=True)
class WorkerSignal:
    """A worker as it has said of itself; `since_seconds`: how long it runs."""

    name: str
    silent_seconds: float
    since_seconds: float
    way: str
    reason: str
    halted: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunSignal:
    """The batch runs of a table; `late_seconds`: since the last one that was done, None for never."""

    flow: str
    entity_type: str
    status: str
    late_seconds: float | None
    interval_seconds: float
    failures: int
    error: str


@dataclass(frozen=True, slots=True)
class SiteSignals:
    """What one site says; `skew_seconds`: how far its clock is ahead of the watcher's."""

    site: Site
    skew_seconds: float
    read_only: bool
    connections: int
    most_connections: int
    applied: Mapping[tuple[str, int], int]
    """Topic and partition to the applied offset."""
    lags: Sequence[LagSignal] = ()
    waiting: Sequence[Waiting] = ()
    slots: Sequence[SlotSignal] = ()
    workers: Sequence[WorkerSignal] = ()
    runs: Sequence[RunSignal] = ()
    outbox: int = 0
    outbox_seconds: float = 0.0
    """How old the oldest change in the outbox is."""
    conflicts: Mapping[str, int] = field(default_factory=dict)
    """Table to how many edits of it have lost lately to one that did not know of them."""
    used_bytes: int = 0
    """What its databases hold, and what slots keep of its log."""
    disk_bytes: int = 0
    """How large its disk is, by the settings; 0: nobody knows."""


@dataclass(frozen=True, slots=True)
class SetupFault:
    """Something of the set-up is not as promised; `lost`: what is written meanwhile is not captured."""

    where: str
    what: str
    command: str
    flows: tuple[str, ...]
    lost: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class OpenGap:
    """A gap of a table at a site, over or not."""

    site: Site
    flow: str
    text: str


@dataclass(frozen=True, slots=True)
class SetupSignals:
    """What the last look at the set-up has found."""

    faults: Sequence[SetupFault] = ()
    gaps: Sequence[OpenGap] = ()


@dataclass(frozen=True, slots=True)
class Compared:
    """The last comparison: how long ago it ended, None for never; and the tables with rows that differ."""

    seconds: float | None
    differing: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Signals:
    """One look. `ends`: topic and partition to offset; `beating_seconds`: for how long this watcher looks,
    and sends heartbeats."""

    sites: Mapping[Site, SiteSignals | Silent]
    ends: Mapping[tuple[str, int], int] | Silent
    connect: Silent | None = None
    setup: SetupSignals = field(default_factory=SetupSignals)
    beating_seconds: float = 0.0
    setup_seen: bool = True
    """Whether the set-up was looked at twice."""
    settled: Mapping[str, float] = field(default_factory=dict)
    """Flow to how long ago what kept it from going on was over; none: long ago."""
    stuck: Mapping[tuple[str, int], float] = field(default_factory=dict)
    """Topic and partition with records to apply, to how long none of them was applied."""
    compared: Compared = Compared(None, {})
    undelivered: Mapping[str, str] = field(default_factory=dict)
    """Receiver to why it does not take what is sent."""

    def site(self, site: Site) -> SiteSignals | None:
        """What the site says; None if it does not answer."""
        found = self.sites[site]
        return found if isinstance(found, SiteSignals) else None
