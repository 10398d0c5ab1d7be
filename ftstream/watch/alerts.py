"""Which troubles are told, and when: once, when they get worse, after a while, and at their end. Pure."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta

from ftstream.failures import Severity
from ftstream.watch.codes import CODES
from ftstream.watch.judge import Verdict, causes, is_hidden

PATIENCE = timedelta(seconds=8)
"""What is seen in one look alone is not told: it may be over at the next."""

RANKS = {each: rank for rank, each in enumerate(Severity)}

Key = tuple[str, str]
"""Code and subject."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A trouble from its first look to its end; `told_as`: how severe it was when it was told last."""

    code: str
    subject: str
    opened_at: datetime
    severity: Severity
    what: str
    command: str
    flows: tuple[str, ...]
    seen_at: datetime
    told_at: datetime | None = None
    told_as: Severity | None = None
    times: int = 0
    acknowledged_by: str = ""
    closed_at: datetime | None = None

    @property
    def key(self) -> Key:
        return self.code, self.subject


class Occasion(enum.StrEnum):
    """Why it is told."""

    OPENED = "opened"
    WORSE = "worse"
    AGAIN = "again"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Telling:
    """One message to the receivers."""

    occasion: Occasion
    alert: Alert


@dataclass(frozen=True, slots=True)
class Mute:
    """What is not told until a time; an empty code or subject means any."""

    code: str
    subject: str
    until: datetime

    def covers(self, alert: Alert, now: datetime) -> bool:
        return (
            now < self.until
            and self.code in ("", alert.code)
            and self.subject in ("", alert.subject)
        )


@dataclass(frozen=True, slots=True)
class Hours:
    """A time of the week off air, on these days (Monday is 0), which may go past midnight."""

    days: frozenset[int]
    begin: time
    end: time

    def cover(self, moment: datetime) -> bool:
        at, today = moment.time(), moment.weekday()
        if self.begin <= self.end:
            return today in self.days and self.begin <= at < self.end
        yesterday = (today - 1) % 7
        return (today in self.days and at >= self.begin) or (
            yesterday in self.days and at < self.end
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """How alerts are told. Off air only what is critical does not wait."""

    on_air: bool = True
    mutes: Sequence[Mute] = ()
    blind: frozenset[str] = frozenset()
    """Codes of which nobody can tell now whether they are over."""
    calm: timedelta = timedelta(seconds=8)
    """How long a trouble is not seen before it is over."""
    again: Mapping[Severity, timedelta] = field(
        default_factory=lambda: {
            Severity.INFO: timedelta(days=1),
            Severity.WARNING: timedelta(hours=6),
            Severity.ERROR: timedelta(hours=1),
            Severity.CRITICAL: timedelta(minutes=15),
        }
    )


@dataclass(frozen=True, slots=True)
class AlertStep:
    """What has come of a look: the alerts that are open now, those that are over, and what is to be told."""

    open: Mapping[Key, Alert]
    closed: Sequence[Alert]
    tellings: Sequence[Telling]


def step(
    known: Collection[Alert], verdicts: Sequence[Verdict], now: datetime, rules: Rules
) -> AlertStep:
    """Return what the alerts become by one look. What cannot be seen now stays as it is."""
    alerts = {alert.key: alert for alert in known}
    seen = {verdict.key: verdict for verdict in causes(verdicts)}
    for key, verdict in seen.items():
        alerts[key] = _seen(alerts.get(key), verdict, now)
    closed, tellings = [], []
    for key, alert in list(alerts.items()):
        if key in seen:
            telling = _telling(alert, now, rules)
            if telling is not None:
                tellings.append(telling)
                alerts[key] = telling.alert
        elif _is_over(alert, verdicts, now, rules):
            over = replace(alert, closed_at=now)
            closed.append(over)
            del alerts[key]
            if alert.times and not _muted(alert, now, rules):
                tellings.append(Telling(Occasion.OVER, over))
    return AlertStep(alerts, closed, tellings)


def _seen(known: Alert | None, verdict: Verdict, now: datetime) -> Alert:
    if known is None:
        return Alert(
            verdict.code.name,
            verdict.subject,
            now,
            verdict.severity,
            verdict.what,
            verdict.command,
            verdict.flows,
            now,
        )
    return replace(
        known,
        severity=verdict.severity,
        what=verdict.what,
        command=verdict.command,
        flows=verdict.flows,
        seen_at=now,
    )


def _is_over(alert: Alert, verdicts: Sequence[Verdict], now: datetime, rules: Rules) -> bool:
    code = CODES.get(alert.code)  # None: of another version of ftstream
    if alert.code in rules.blind:
        return False
    if code is not None and is_hidden(code, alert.flows, verdicts):
        return False
    return now - alert.seen_at >= rules.calm


def _telling(alert: Alert, now: datetime, rules: Rules) -> Telling | None:
    patience = timedelta(seconds=CODES[alert.code].patience) or PATIENCE
    if now - alert.opened_at < patience or _muted(alert, now, rules):
        return None
    if not rules.on_air and alert.severity is not Severity.CRITICAL:
        return None
    occasion = _occasion(alert, now, rules)
    if occasion is None:
        return None
    worst = max((alert.severity, alert.told_as or alert.severity), key=lambda each: RANKS[each])
    told = replace(alert, told_at=now, told_as=worst, times=alert.times + 1)
    if occasion is Occasion.WORSE:
        told = replace(told, acknowledged_by="")  # what somebody has seen was less
    return Telling(occasion, told)


def _occasion(alert: Alert, now: datetime, rules: Rules) -> Occasion | None:
    if alert.told_at is None or alert.told_as is None:
        return Occasion.OPENED
    if RANKS[alert.severity] > RANKS[alert.told_as]:
        return Occasion.WORSE
    if not alert.acknowledged_by and now - alert.told_at >= rules.again[alert.severity]:
        return Occasion.AGAIN
    return None


def _muted(alert: Alert, now: datetime, rules: Rules) -> bool:
    return any(mute.covers(alert, now) for mute in rules.mutes)


def newest(*stores: Collection[Alert]) -> Iterator[Alert]:
    """Return each alert as it was kept last, of several stores, some of which may be behind."""
    found: dict[tuple[str, str, datetime], Alert] = {}
    for alert in (alert for store in stores for alert in store):
        key = (*alert.key, alert.opened_at)
        other = found.get(key)
        if other is None or _rank(alert) > _rank(other):
            found[key] = alert
    yield from found.values()


def _rank(alert: Alert) -> tuple[bool, datetime, int, bool]:
    return alert.closed_at is not None, alert.seen_at, alert.times, bool(alert.acknowledged_by)
