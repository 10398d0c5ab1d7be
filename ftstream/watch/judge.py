"""Judges what was seen, by named limits: which troubles there are, and which of them are causes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ftstream.failures import Severity
from ftstream.flows import Capture, CaptureNames, Flow, Names, Site, log_captures
from ftstream.watch.codes import CODES, Code
from ftstream.watch.signals import SetupFault, Signals, Silent, SiteSignals, worst

WENT_BACK = "gone back in time"
_SLOT = "replication slot"


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on something is trouble; seconds, unless the name says otherwise."""

    late: float = 5.0
    """Guidelines 8.2: CDC lag below five seconds."""
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
    connections: float = 0.9
    compared: float = 2.0
    """Intervals of the comparison."""
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
        *_compared(signals, limits),
        *(
            found("FT180", name, f"receiver {name}: {why}")
            for name, why in signals.undelivered.items()
        ),
    ]


def causes(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return those that are no consequence of another: one cause, one alert."""
    return [verdict for verdict in verdicts if not is_hidden(verdict.code, verdict.flows, verdicts)]


def is_hidden(code: Code, flows: tuple[str, ...], verdicts: Sequence[Verdict]) -> bool:
    """Say whether trouble of this code and these flows is a consequence of what was found."""
    return any(
        other.code.name in code.hidden_by
        and (not flows or not other.flows or set(flows) & set(other.flows))
        for other in verdicts
    )


def found(
    name: str,
    subject: str,
    what: str,
    flows: tuple[str, ...] = (),
    severity: Severity | None = None,
    command: str = "",
) -> Verdict:
    """Return a verdict, with what its code says where nothing else is said."""
    code = CODES[name]
    return Verdict(code, subject, what, flows, severity or code.severity, command or code.hint)


def _services(signals: Signals, every: tuple[str, ...]) -> Iterator[Verdict]:
    for site, name in ((Site.EXTERNAL, "FT101"), (Site.SUPABASE, "FT102")):
        match signals.sites[site]:
            case Silent(reason):
                yield found(name, site, f"{site} does not answer: {reason}", every)
    if isinstance(signals.ends, Silent):
        yield found("FT103", "kafka", f"Kafka does not answer: {signals.ends.reason}", every)
    if signals.connect is not None:
        what = f"Kafka Connect does not answer: {signals.connect.reason}"
        yield found("FT104", "connect", what, every)


def _setup(signals: Signals) -> Iterator[Verdict]:
    for fault in signals.setup.faults:
        detail = f" ({fault.detail})" if fault.detail else ""
        what = f"{fault.where}: {fault.what}{detail}"
        code = _code_of(fault)
        severity = Severity.CRITICAL if fault.lost else None
        yield found(
            code, f"{fault.where}: {fault.what}", what, fault.flows, severity, fault.command
        )
    for gap in signals.setup.gaps:
        yield found("FT141", f"{gap.site}: {gap.text}", f"{gap.site}: {gap.text}", (gap.flow,))


def _code_of(fault: SetupFault) -> str:
    if WENT_BACK in fault.what:
        return "FT142"
    if _SLOT in fault.what:
        return "FT111"
    return "FT110" if fault.where == "connect" else "FT140"


def _site(signals: Signals, site: Site, flows: Sequence[Flow], limits: Limits) -> Iterator[Verdict]:
    seen = signals.site(site)
    if seen is None:
        return
    here = tuple(flow.name for flow in flows if site in flow.targets)
    if seen.read_only:
        yield found("FT105", site, f"{site} is read-only", here)
    if seen.connections > limits.connections * seen.most_connections:
        what = f"{site}: {seen.connections} of {seen.most_connections} connections are in use"
        yield found("FT162", site, what)
    if abs(seen.skew_seconds) > limits.skew:
        way = "ahead of" if seen.skew_seconds > 0 else "behind"
        what = f"{site}'s clock is {abs(seen.skew_seconds):.0f} s {way} the watcher's"
        yield found("FT160", site, what)
    for each in seen.waiting:
        dead = each.state == "dead"
        if dead or each.oldest_seconds > limits.parked:
            what = (
                f"flow {each.flow} to {site}: {each.changes} changes are {each.state},"
                f" the oldest for {duration(each.oldest_seconds)}: {each.error}"
            )
            yield found("FT131" if dead else "FT130", f"{each.flow} to {site}", what, (each.flow,))
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
    for slot in seen.slots:
        if slot.safe_bytes is None:
            if slot.status in ("reserved", "extended"):
                what = f"slot {slot.name} may keep External's log until the disk is full"
                yield found("FT113", "max_slot_wal_keep_size", what, severity=Severity.WARNING)
            continue
        whole = slot.safe_bytes + slot.retained_bytes
        if slot.safe_bytes < min(limits.safe_bytes, limits.safe_share * whole):
            what = (
                f"slot {slot.name}: {size(slot.retained_bytes)} of External's log wait,"
                f" {size(max(slot.safe_bytes, 0))} are left before changes are lost"
            )
            yield found("FT112", slot.name, what, of.get(slot.name, ()))


def _workers(signals: Signals, every: tuple[str, ...], limits: Limits) -> Iterator[Verdict]:
    seen = signals.site(Site.SUPABASE)
    if seen is None:
        return
    alive = [each for each in seen.workers if each.silent_seconds <= limits.silent_worker]
    silent = [each for each in seen.workers if each.silent_seconds > limits.silent_worker]
    if not alive:
        last = min((each.silent_seconds for each in silent), default=None)
        since = f"; the last one was seen {duration(last)} ago" if last is not None else ""
        yield found("FT106", "workers", f"no worker runs{since}", every)
    for each in silent:
        # One that was started since has taken its place.
        if not any(other.since_seconds < each.silent_seconds for other in alive):
            what = f"worker {each.name} has said nothing for {duration(each.silent_seconds)}"
            yield found("FT107", each.name, what)
    for flow, why in {f: why for each in alive for f, why in each.halted.items()}.items():
        yield found("FT124", flow, why, (flow,), command=CODES["FT124"].hint)
    polling = [each for each in alive if each.way == "polling" and "not set" not in each.reason]
    if alive and len(polling) == len(alive):
        yield found("FT161", "realtime", f"workers look by themselves: {polling[0].reason}")


def _directions(
    signals: Signals, flows: Sequence[Flow], namespace: str, limits: Limits
) -> Iterator[Verdict]:
    for flow in flows:
        if flow.capture is Capture.BATCH:
            continue
        for target in flow.targets:
            seen = signals.site(target)
            if seen is not None:
                yield from _direction(signals, seen, flow, target, namespace, limits)


def _direction(
    signals: Signals, seen: SiteSignals, flow: Flow, target: Site, namespace: str, limits: Limits
) -> Iterator[Verdict]:
    subject, of = f"{flow.name} to {target}", (flow.name,)
    lags = [lag for lag in seen.lags if lag.flow == flow.name]
    beats = [lag.heartbeat_seconds for lag in lags if lag.heartbeat_seconds is not None]
    still = min([*beats, signals.beating_seconds])
    if still > limits.still:
        behind = to_apply(signals, seen, flow, target, namespace)
        left = f", {behind} records to apply" if behind else ""
        what = f"flow {subject} stands still for {duration(still)}{left}"
        severity = Severity.CRITICAL if still > limits.critical else None
        yield found("FT121", subject, what, of, severity)
    late = worst(lags)
    if late is not None and late[0] > limits.late * 1000:
        what = f"flow {subject}: half of its changes come later than {late[0] / 1000:.1f} s"
        yield found("FT120", subject, what, of)


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
        if run.status == "failed":
            what = f"the run of {subject} has failed {run.failures} times: {run.error}"
            yield found("FT151", subject, what, (run.flow,))
        late = run.late_seconds
        if late is not None and late > limits.overdue * run.interval_seconds:
            due = duration(run.interval_seconds)
            what = f"the last run of {subject} was {duration(late)} ago; one is due every {due}"
            yield found("FT150", subject, what, (run.flow,))


def _compared(signals: Signals, limits: Limits) -> Iterator[Verdict]:
    if signals.compared is None:
        return
    for table, rows in signals.compared.differing.items():
        yield found("FT170", table, f"{rows} rows of {table} differ between the sites")
    if limits.verify_seconds and signals.compared.seconds > limits.compared * limits.verify_seconds:
        ago = duration(signals.compared.seconds)
        yield found("FT171", "verify", f"the sites were compared {ago} ago")


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
