"""Judges what was seen, by named limits: which troubles there are, and which of them are causes. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ftstream.failures import Severity
from ftstream.flows import Capture, CaptureNames, Flow, Names, Site, log_captures
from ftstream.watch.codes import CODES, Code
from ftstream.watch.signals import (
    SetupFault,
    Signals,
    Silent,
    SiteSignals,
    SlotSignal,
    worst,
)

WENT_BACK = "gone back in time"
NOBODY_READS = "nobody reads replication slot"
"""As setup/faults.py says it."""
_SLOT = "replication slot"
_LIKE_PAUSED = re.compile(r"[Tt]enant or user not found|could not translate host name.*supabase")
"""What Supabase's pooler says of a project that is paused or gone, and DNS of its own host."""
_LOSING = "is about to be lost"
_OF_SETUP = frozenset({"FT104", "FT110", "FT111", "FT140", "FT141", "FT142"})
MOST_TEXT = 500
"""Characters of what is told: a row of megabytes may be in an error."""
_PAUSED = ": so it is with a project that is paused"


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on something is trouble; seconds, unless the name says otherwise."""

    late: float = 5.0
    """Guidelines 8.2: CDC lag below five seconds."""
    settling: float = 90.0
    """After a trouble, in which what waited comes late: the lag is that of the last minute."""
    still: float = 30.0
    critical: float = 300.0
    """What is out of step for five minutes is critical."""
    silent_worker: float = 15.0
    outbox: float = 15.0
    parked: float = 120.0
    skew: float = 5.0
    overdue: float = 2.0
    """Intervals of a batch."""
    safe_bytes: int = 2**30
    """Of External's log, that may still be written before a slot is lost."""
    safe_share: float = 0.2
    """The same of what is kept and left."""
    disk: float = 0.85
    disk_critical: float = 0.95
    """At which Supabase makes a project read-only."""
    conflicts: int = 20
    """In ten minutes: two people, or programs, that write the same rows."""
    connections: float = 0.9
    compared: float = 2.0
    """Intervals of the comparison."""
    comparing: float = 900.0
    """What a comparison may take, beside that."""
    verify_seconds: float = 0.0
    """How often both sites are compared; 0: not by the watcher."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One trouble; the same code and subject again is the same one. `flows`: those that it concerns."""

    code: Code
    subject: str
    what: str
    flows: tuple[str, ...] = ()
    severity: Severity = Severity.INFO
    command: str = ""
    site: Site | None = None
    """Where, if it is of one site alone."""
    hides: bool = True
    """Whether others can be its consequence: of a right that is missing nothing stands still."""

    @property
    def key(self) -> tuple[str, str]:
        return self.code.name, self.subject


def judge(signals: Signals, flows: Sequence[Flow], namespace: str, limits: Limits) -> list[Verdict]:
    """Return every trouble, consequences of others included."""
    every = tuple(flow.name for flow in flows)
    return [
        *_services(signals, every),
        *_setup(signals),
        *(v for site in Site for v in _site(signals, site, flows, limits)),
        *_slots(signals, flows, namespace, limits),
        *_workers(signals, every, limits),
        *_directions(signals, flows, namespace, limits),
        *_batches(signals, limits),
        *_compared(signals, flows, limits),
        *_clocks(signals, limits),
        *(
            found("FT180", name, f"receiver {name}: {why}")
            for name, why in signals.undelivered.items()
        ),
    ]


def causes(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return those that are no consequence of another: one cause, one alert."""
    return [v for v in verdicts if not is_hidden(v.code, v.flows, verdicts, v.site)]


def is_hidden(
    code: Code, flows: tuple[str, ...], verdicts: Sequence[Verdict], site: Site | None = None
) -> bool:
    """Say whether trouble of this code, these flows and this site is a consequence of what was found."""
    return any(
        other.hides
        and other.code.name in code.hidden_by
        and (not flows or not other.flows or bool(set(flows) & set(other.flows)))
        and (site is None or other.site is None or site is other.site)
        for other in verdicts
    )


def blind(signals: Signals, limits: Limits) -> frozenset[str]:
    """Return the codes of which a watcher that has just begun cannot tell whether they are over."""
    standing = frozenset({"FT121"}) if signals.beating_seconds <= limits.still else frozenset()
    return standing | (frozenset() if signals.setup_seen else _OF_SETUP)


def found(
    name: str,
    subject: str,
    what: str,
    flows: tuple[str, ...] = (),
    severity: Severity | None = None,
    command: str = "",
    site: Site | None = None,
    hides: bool = True,
) -> Verdict:
    """Return a verdict, with what its code says where nothing else is said."""
    code = CODES[name]
    return Verdict(
        code,
        subject,
        shown(what),
        flows,
        severity or code.severity,
        command or code.hint,
        site,
        hides,
    )


def shown(text: str) -> str:
    """Return text that may hold what any login has written as one line that no receiver takes for markup."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = line.replace("<", "\u2039").replace(">", "\u203a")
    return line if len(line) <= MOST_TEXT else line[:MOST_TEXT] + "..."


def _services(signals: Signals, every: tuple[str, ...]) -> Iterator[Verdict]:
    for site, name in ((Site.EXTERNAL, "FT101"), (Site.SUPABASE, "FT102")):
        match signals.sites[site]:
            case Silent(reason, refused=True):
                what = f"{site} refuses what the watcher asks: {reason}"
                yield found("FT140", f"{site}: the watcher", what, every, site=site)
            case Silent(reason):
                paused = _PAUSED if _LIKE_PAUSED.search(reason) else ""
                what = f"{site} does not answer: {reason}{paused}"
                yield found(name, site, what, every, site=site)
    if isinstance(signals.ends, Silent):
        yield found("FT103", "kafka", f"Kafka does not answer: {signals.ends.reason}", every)
    if signals.connect is not None:
        what = f"Kafka Connect does not answer: {signals.connect.reason}"
        yield found("FT104", "connect", what, every)


def _setup(signals: Signals) -> Iterator[Verdict]:
    for fault in signals.setup.faults:
        if _LOSING in fault.what:
            continue  # how much is left the slots themselves say
        detail = f" ({fault.detail})" if fault.detail else ""
        what = f"{fault.where}: {fault.what}{detail}"
        code = _code_of(fault)
        severity = Severity.CRITICAL if fault.lost else None
        yield found(
            code,
            f"{fault.where}: {fault.what}",
            what,
            fault.flows,
            severity,
            fault.command,
            site=Site(fault.where) if fault.where in set(Site) else None,
            hides=fault.lost or code == "FT142",
        )
    for gap in signals.setup.gaps:
        text = f"{gap.site}: {gap.text}"
        yield found("FT141", text, text, (gap.flow,), site=gap.site)


def _code_of(fault: SetupFault) -> str:
    if WENT_BACK in fault.what:
        return "FT142"
    if NOBODY_READS in fault.what:
        return "FT110"  # the slot is well: it is the connector
    if _SLOT in fault.what:
        return "FT111"
    return "FT110" if fault.where == "connect" else "FT140"


def _site(signals: Signals, site: Site, flows: Sequence[Flow], limits: Limits) -> Iterator[Verdict]:
    seen = signals.site(site)
    if seen is None:
        return
    here = tuple(flow.name for flow in flows if site in flow.targets)
    if seen.read_only:
        yield found("FT105", site, f"{site} is read-only", here, site=site)
    if seen.connections > limits.connections * seen.most_connections:
        what = f"{site}: {seen.connections} of {seen.most_connections} connections are in use"
        yield found("FT162", site, what, site=site)
    if seen.disk_bytes and seen.used_bytes > limits.disk * seen.disk_bytes:
        used = f"{size(seen.used_bytes)} of {size(seen.disk_bytes)}"
        critical = seen.used_bytes > limits.disk_critical * seen.disk_bytes
        severity = Severity.CRITICAL if critical else None
        what = f"{site}'s databases and log take {used}"
        yield found("FT163", site, what, (), severity, site=site)
    for table, rows in seen.conflicts.items():
        if rows > limits.conflicts:
            what = f"{rows} edits of {table} to {site} lost in ten minutes to others made meanwhile"
            yield found("FT132", f"{table} to {site}", what, site=site)
    for each in seen.waiting:
        dead = each.state == "dead"
        if dead or each.oldest_seconds > limits.parked:
            what = (
                f"flow {each.flow} to {site}: {each.changes} changes are {each.state},"
                f" the oldest for {duration(each.oldest_seconds)}: {each.error}"
            )
            code = "FT131" if dead else "FT130"
            yield found(code, f"{each.flow} to {site}", what, (each.flow,), site=site)
    if seen.outbox and seen.outbox_seconds > limits.outbox:
        out = tuple(f.name for f in flows if f.capture is Capture.OUTBOX and site in f.sources)
        age = duration(seen.outbox_seconds)
        what = f"{seen.outbox} changes wait in {site}'s outbox, the oldest for {age}"
        yield found("FT123", site, what, out)


def _slots(
    signals: Signals, flows: Sequence[Flow], namespace: str, limits: Limits
) -> Iterator[Verdict]:
    seen = signals.site(Site.EXTERNAL)
    if seen is None:
        return
    of = {
        CaptureNames(capture, namespace).slot: tuple(flow.name for flow in capture.flows)
        for capture in log_captures(flows)
    }
    scarce: list[SlotSignal] = []
    for slot in seen.slots:
        if slot.status == "lost":
            what = f"slot {slot.name} is lost: External has removed what it had not read"
            yield found("FT111", slot.name, what, of.get(slot.name, ()), site=Site.EXTERNAL)
            continue
        if slot.safe_bytes is None:
            if slot.status in ("reserved", "extended"):
                what = f"slot {slot.name} may keep External's log until the disk is full"
                yield found("FT113", "max_slot_wal_keep_size", what, site=Site.EXTERNAL)
            continue
        whole = slot.safe_bytes + slot.retained_bytes
        if slot.safe_bytes < min(limits.safe_bytes, limits.safe_share * whole):
            scarce.append(slot)
    if scarce:  # of one log: what keeps one of them from reading on may keep them all
        least = min(scarce, key=lambda slot: slot.safe_bytes or 0)
        what = (
            f"slot {least.name}: {size(least.retained_bytes)} of External's log wait,"
            f" {size(max(least.safe_bytes or 0, 0))} are left before changes are lost"
        )
        names = [name for slot in scarce for name in of.get(slot.name, ())]
        yield found("FT112", "slots", what, tuple(dict.fromkeys(names)), site=Site.EXTERNAL)


def _workers(signals: Signals, every: tuple[str, ...], limits: Limits) -> Iterator[Verdict]:
    seen = signals.site(Site.SUPABASE)
    if seen is None:
        return
    alive = [each for each in seen.workers if each.silent_seconds <= limits.silent_worker]
    silent = [each for each in seen.workers if each.silent_seconds > limits.silent_worker]
    if not alive:
        last = min((each.silent_seconds for each in silent), default=None)
        since = f"; the last one was seen {duration(last)} ago" if last is not None else ""
        yield found("FT106", "workers", f"no worker runs{since}", every, site=Site.SUPABASE)
    for each in silent:
        # One that was started since has taken its place.
        if not any(other.since_seconds < each.silent_seconds for other in alive):
            what = f"worker {each.name} has said nothing for {duration(each.silent_seconds)}"
            yield found("FT107", each.name, what, site=Site.SUPABASE)
    for flow, why in {f: why for each in alive for f, why in each.halted.items()}.items():
        yield found("FT124", flow, why, (flow,), command=CODES["FT124"].hint)
    polling = [each for each in alive if each.way == "polling" and "not set" not in each.reason]
    if alive and len(polling) == len(alive):
        yield found("FT161", "realtime", f"workers look by themselves: {polling[0].reason}")


def _directions(
    signals: Signals, flows: Sequence[Flow], namespace: str, limits: Limits
) -> Iterator[Verdict]:
    for flow in flows:
        for target in flow.targets:
            seen = signals.site(target)
            if seen is not None:
                yield from _direction(signals, seen, flow, target, namespace, limits)


def _direction(
    signals: Signals, seen: SiteSignals, flow: Flow, target: Site, namespace: str, limits: Limits
) -> Iterator[Verdict]:
    subject, of = f"{flow.name} to {target}", (flow.name,)
    still = 0.0 if flow.capture is Capture.BATCH else beat_seconds(signals, seen, flow)
    topics = set(Names(flow, namespace).topics(target))
    stuck = {at: age for at, age in signals.stuck.items() if at[0] in topics}
    (topic, number), age = max(stuck.items(), key=lambda each: each[1], default=(("", 0), 0.0))
    if still <= limits.still < age:
        what = (
            f"flow {subject}: partition {number} of {topic} stands still for {duration(age)}:"
            " others of the flow go on"
        )
        severity = Severity.CRITICAL if age > limits.critical else None
        yield found("FT121", subject, what, of, severity, site=target)
    if still > limits.still:
        behind = to_apply(signals, seen, flow, target, namespace)
        left = f", {behind} records to apply" if behind else ""
        what = f"flow {subject} stands still for {duration(still)}{left}"
        severity = Severity.CRITICAL if still > limits.critical else None
        yield found("FT121", subject, what, of, severity, site=target)
    late = worst(lag for lag in seen.lags if lag.flow == flow.name)
    if signals.settled.get(flow.name, math.inf) <= limits.settling:
        late = None
    if late is not None and late[0] > limits.late * 1000:
        what = f"flow {subject}: half of its changes come later than {late[0] / 1000:.1f} s"
        yield found("FT120", subject, what, of, site=target)


def beat_seconds(signals: Signals, seen: SiteSignals, flow: Flow) -> float:
    """How old the newest heartbeat is that has come here; none is older than they are sent."""
    lags = (lag for lag in seen.lags if lag.flow == flow.name)
    beats = (lag.heartbeat_seconds for lag in lags if lag.heartbeat_seconds is not None)
    return min([*beats, signals.beating_seconds])


def to_apply(
    signals: Signals, seen: SiteSignals, flow: Flow, target: Site, namespace: str
) -> int | None:
    """Count the records in Kafka that the target does not have; None if Kafka does not answer."""
    if isinstance(signals.ends, Silent):
        return None
    topics = set(Names(flow, namespace).topics(target))
    return sum(
        max(0, end - seen.applied.get(partition, 0))
        for partition, end in signals.ends.items()
        if partition[0] in topics
    )


def _batches(signals: Signals, limits: Limits) -> Iterator[Verdict]:
    seen = signals.site(Site.SUPABASE)
    for run in seen.runs if seen else ():
        subject = f"{run.flow} {run.entity_type}"
        if run.failures:  # while it is tried again, too
            what = f"the run of {subject} has failed {run.failures} times: {run.error}"
            yield found("FT151", subject, what, (run.flow,))
        late = signals.beating_seconds if run.late_seconds is None else run.late_seconds
        if late > limits.overdue * run.interval_seconds:
            due = duration(run.interval_seconds)
            last = "never done" if run.late_seconds is None else f"{duration(late)} ago"
            what = f"the last run of {subject} was {last}; one is due every {due}"
            yield found("FT150", subject, what, (run.flow,))


def _compared(signals: Signals, flows: Sequence[Flow], limits: Limits) -> Iterator[Verdict]:
    of = {table.name: (flow.name,) for flow in flows for table in flow.tables}
    for table, rows in signals.compared.differing.items():
        what = f"{rows} rows of {table} differ between the sites"
        yield found("FT170", table, what, of.get(table, ()))
    ago = signals.compared.seconds
    late = signals.beating_seconds if ago is None else ago
    longest = max(limits.compared * limits.verify_seconds, limits.comparing)
    if limits.verify_seconds and late > longest:
        since = "never" if ago is None else f"last {duration(ago)} ago"
        yield found("FT171", "verify", f"the sites were compared {since}")


def _clocks(signals: Signals, limits: Limits) -> Iterator[Verdict]:
    """Which edit is the last one the sites' clocks say: what counts is how far they are apart."""
    skews = {site: seen.skew_seconds for site in Site if (seen := signals.site(site))}
    if len(skews) == len(Site):
        apart = skews[Site.EXTERNAL] - skews[Site.SUPABASE]
        if abs(apart) > limits.skew:
            way = "ahead of" if apart > 0 else "behind"
            what = f"external's clock is {abs(apart):.0f} s {way} supabase's"
            yield found("FT160", "sites", what)
            return
    for site, skew in skews.items():
        if abs(skew) > limits.skew:
            way = "behind" if skew > 0 else "ahead of"
            what = f"the watcher's clock is {abs(skew):.0f} s {way} {site}'s"
            yield found("FT160", "watcher", what)
            return


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def size(number: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit in ("B", "KB") else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TB"
