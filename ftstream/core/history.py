"""What happened to an entity: each change that a site has received of it, and what can be restored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from ftstream.core.register import Stamp

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One change as the site `at` has received it.

    `stamp`, `author` and `image` are known of flows captured by outbox; `image` None: it was deleted. It
    is PostgreSQL's own JSON, in which no number loses a digit; `json_nulls` names the columns in it that
    hold a JSON null.
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
    def row(self) -> Row | None:
        """The row, its fractions as Decimals."""
        if self.image is None:
            return None
        row: Row = json.loads(self.image, parse_float=Decimal)
        return row


def ordered(entries: Iterable[Entry], tie: str) -> list[Entry]:
    """In the order of the writes; those that have no stamp in the order of their arrival."""
    return sorted(entries, key=lambda entry: _order(entry, tie))


def _order(entry: Entry, tie: str) -> tuple[float, bool, datetime]:
    at = entry.source_time or entry.logged_at
    return (at.timestamp(), bool(entry.stamp and entry.stamp.site == tie), entry.logged_at)


def writes(entries: Iterable[Entry], tie: str) -> list[Entry]:
    """Each write once, in order, however often it came, or was put aside before it was settled."""
    found: dict[Stamp, Entry] = {}
    for entry in entries:
        if entry.stamp is not None and entry.outcome not in ("parked", "dead", "duplicate"):
            found.setdefault(entry.stamp, entry)
    return [found[stamp] for stamp in sorted(found, key=lambda s: (s.version, s.site == tie))]


def effective(entries: Sequence[Entry]) -> list[Entry]:
    """Of writes in order those that a row was, or is: each is greater than those before it.

    A write that was refused never was: the answer to it, greater than it, says what the row is.
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
    """What an entity is to be again; `write` None: nobody knows, and `reason` says why."""

    entity_id: str
    write: Entry | None
    reason: str


def restoration(
    entity_id: str, entries: Sequence[Entry], since: int, author: str | None
) -> Restoration | None:
    """The last state before `since` (microseconds); None if nothing has happened to it since.

    `entries` are its writes, in order. With an `author` only what that author has written last is taken
    back, to the last state of before.
    """
    done = effective(entries)
    later = [e for e in done if e.stamp and e.stamp.version >= since and _by(e, author)]
    if not later:
        return None
    last = done[-1]
    if not _by(last, author):
        return Restoration(entity_id, None, f"{last.author} has changed it since")
    first = later[0].stamp
    before = [e for e in done if e.stamp and first and e.stamp < first]
    if not before:
        return Restoration(entity_id, None, "what it was before was never received here")
    return Restoration(entity_id, before[-1], "")


def _by(entry: Entry, author: str | None) -> bool:
    return author is None or entry.author == author
