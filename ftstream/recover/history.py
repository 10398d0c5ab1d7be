"""What happened to an entity: each change that a site has received of it, and what can be restored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import takewhile
from typing import Any

import msgspec

from ftstream.messages.change import Stamp
from ftstream.messages.members import members

Row = Mapping[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RowState:
    """What an entity was: PostgreSQL's own JSON of the row, in which no number loses a digit; None: no row.

    `json_nulls` names the columns in it that hold a JSON null, which there looks like no value at all.
    """

    image: str | None
    json_nulls: frozenset[str] = frozenset()


ABSENT = RowState(None)


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change as the site `at` has received it.

    `stamp`, `author` and what the write left are known of flows captured by outbox: see RowState. There a
    transaction's writes of an entity are one change, of the last who was named as its author.
    """

    at: str
    logged_at: datetime
    operation: str | None
    outcome: str
    source_time: datetime | None
    stamp: Stamp | None = None
    author: str = ""
    image: str | None = None
    json_nulls: frozenset[str] = frozenset()

    @property
    def state(self) -> RowState:
        """What the write left."""
        return RowState(self.image, self.json_nulls)

    @property
    def row(self) -> Row | None:
        """The row, its fractions as Decimals."""
        if self.image is None:
            return None
        return {name: _value(raw) for name, raw in members(self.image.encode()).items()}


def _value(raw: bytes | msgspec.Raw) -> Any:
    """The value, or its text where it nests too deep to be looked into."""
    text = bytes(raw).decode()
    try:
        return json.loads(text, parse_float=Decimal)
    except RecursionError:
        return text


def ordered(entries: Iterable[HistoryEntry]) -> list[HistoryEntry]:
    """In the order of the writes; those that have no stamp in the order of their arrival."""
    return sorted(entries, key=_order)


def _order(entry: HistoryEntry) -> tuple[float, str, datetime]:
    at = entry.source_time or entry.logged_at
    return (at.timestamp(), entry.stamp.site if entry.stamp else "", entry.logged_at)


def writes(entries: Iterable[HistoryEntry]) -> list[HistoryEntry]:
    """Each write once, in order, however often it came, or was parked before it was settled."""
    found: dict[Stamp, HistoryEntry] = {}
    for entry in entries:
        if entry.stamp is not None and entry.outcome not in ("parked", "dead", "duplicate"):
            found.setdefault(entry.stamp, entry)
    return [found[stamp] for stamp in sorted(found)]


def effective(entries: Sequence[HistoryEntry]) -> list[HistoryEntry]:
    """Of writes in order those that a row was, or is: each is greater than those before it.

    A write that was refused never was: what its site takes over then, greater than it, says what the row is.
    """
    return [entry for entry in entries if entry.outcome != "refused"]


def changed(before: Row | None, after: Row | None) -> dict[str, tuple[Any, Any]]:
    """The columns that differ, with both values."""
    ours, theirs = before or {}, after or {}
    return {
        name: (ours.get(name), theirs.get(name))
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    }


@dataclass(frozen=True, slots=True)
class Restoration:
    """What an entity is to be again; `state` None: nobody knows, and `reason` says why."""

    entity_id: str
    state: RowState | None
    reason: str = ""


def restoration(
    entity_id: str,
    entries: Sequence[HistoryEntry],
    since: int,
    author: str | None = None,
    *,
    last: Iterable[Stamp] = (),
    reaches: Mapping[str, int] | None = None,
) -> Restoration | None:
    """The last state before `since` (microseconds); None if nothing has happened to it since.

    `entries` are its writes, in order; `last` is its last write as each site knows it; `reaches` says by
    site since when the log there is whole (microseconds). With an `author` only what that author has
    written last is taken back, to the state before.
    """
    if missing := _unreceived(entries, since, last):
        return Restoration(entity_id, None, missing)
    done = effective(entries)
    later = [e for e in done if _since(e, since)]
    if not any(_by(entry, author) for entry in later):
        return None
    taken = [*takewhile(lambda e: _since(e, since) and _by(e, author), reversed(done))]
    if not taken:
        return Restoration(entity_id, None, f"{done[-1].author} has changed it since")
    before, first = done[: len(done) - len(taken)], taken[-1]
    logs = {} if reaches is None else reaches
    if not before:
        if first.operation == "insert" and all(at <= since for at in logs.values()):
            return Restoration(entity_id, ABSENT)
        return Restoration(entity_id, None, _unknown(logs))
    if _gap(before[-1], logs):
        return Restoration(entity_id, None, _unknown(logs))
    return Restoration(entity_id, before[-1].state)


def _unreceived(entries: Sequence[HistoryEntry], since: int, last: Iterable[Stamp]) -> str | None:
    """Why what is known cannot be all: a site has a later write than the logs."""
    known = {entry.stamp for entry in entries}
    for stamp in last:
        if stamp.version >= since and stamp not in known:
            at = moment(stamp.version)
            return (
                f"its write on {stamp.site} at {at:%Y-%m-%d %H:%M:%S} UTC is in no log: not received yet"
                " (`ftstream wait`), parked (`ftstream dead list`), or older than the logs"
            )
    return None


def _gap(before: HistoryEntry, reaches: Mapping[str, int]) -> bool:
    """Say whether a later write may be lost: one log tells writes in order, another may begin after this."""
    version = before.stamp.version if before.stamp else 0
    return any(site != before.at and at > version for site, at in reaches.items())


def _unknown(reaches: Mapping[str, int]) -> str:
    reason = "what it was before was never received here, or is no longer logged"
    logs = (
        f"the log of {s} reaches back to {moment(at):%Y-%m-%d %H:%M} UTC"
        for s, at in reaches.items()
    )
    return "; ".join((reason, *logs))


def moment(version: int) -> datetime:
    """The time that a version tells."""
    return _EPOCH + timedelta(microseconds=version)


def version_of(at: datetime) -> int:
    """The version of a write at that time, exactly."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def _since(entry: HistoryEntry, since: int) -> bool:
    return entry.stamp is not None and entry.stamp.version >= since


def _by(entry: HistoryEntry, author: str | None) -> bool:
    """A login's are those, too, that it has made in the name of others."""
    return author is None or entry.author == author or entry.author.endswith(f" ({author})")
