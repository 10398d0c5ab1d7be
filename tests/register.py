"""The last-writer-wins register in Python: what advance.sql is compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ftstream.messages.change import Change, Operation, Stamp
from ftstream.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class LastWrite:
    """What a site knows of an entity: its last write, and the newest that came from the other site.

    `reserved` is the version in which the other site takes the row as it is here, if a write was refused to
    it: later writes here are greater, and older ones of that site come too late.
    """

    stamp: Stamp
    operation: Operation
    received: int = 0
    reserved: int = 0


def written(last: LastWrite | None, operation: Operation, clock: int, here: str) -> LastWrite:
    """A user's write: never older than what the writer could see."""
    if last is None:
        return LastWrite(Stamp(clock, here), operation)
    version = max(clock, last.stamp.version + 1, last.reserved + 1)
    return replace(last, stamp=Stamp(version, here), operation=operation)


def prevails(last: LastWrite | None, change: Change) -> bool:
    """Whether a change of the other site, or a refusal, is the last write from now on."""
    if last is None:
        return change.refusal is None
    if change.refusal is not None:
        return last.stamp == change.refusal.over and change.version > last.reserved
    return change.version >= last.reserved and change.stamp > last.stamp


def arrived(last: LastWrite | None, change: Change) -> tuple[LastWrite, Outcome, bool]:
    """A write of the other site arrives: what is known then, what is logged, whether it takes effect.

    Not for a refusal of what this site has never written: there is nothing to know of it.
    """
    stamp = change.stamp
    if last is None:
        return LastWrite(stamp, change.operation, change.version), Outcome.APPLIED, True
    received = max(last.received, change.version)
    if prevails(last, change):
        known = replace(last, stamp=stamp, operation=change.operation, received=received)
        return known, Outcome.APPLIED, True
    if change.refusal is not None:
        return last, Outcome.SUPERSEDED, False
    # Its row is written once more if it is the last write itself: that changes nothing.
    return replace(last, received=received), _loss(last, change), stamp == last.stamp


def refused(last: LastWrite | None, over: Stamp, stamp: Stamp, here: str) -> LastWrite:
    """A write is refused here: the other site is to make the write `stamp` in its stead."""
    known = last or LastWrite(Stamp(0, here), Operation.DELETE)
    return replace(
        known,
        received=max(known.received, over.version),
        reserved=max(known.reserved, stamp.version),
    )


def _loss(last: LastWrite, change: Change) -> Outcome:
    """Why a write has no effect. A conflict is a loss to a write that did not know of it."""
    if change.version <= last.received:
        return Outcome.DUPLICATE
    if change.site == last.stamp.site:
        return Outcome.SUPERSEDED
    match change.operation, last.operation:
        case Operation.DELETE, Operation.DELETE:
            return Outcome.SUPERSEDED  # both wanted the same
        case _, Operation.DELETE:
            return Outcome.CONFLICT_UPDATE_DELETE
        case Operation.DELETE, _:
            return Outcome.CONFLICT_DELETE_UPDATE
        case Operation.INSERT, Operation.INSERT:
            return Outcome.CONFLICT_INSERT_INSERT
        case _:
            return Outcome.CONFLICT_UPDATE_UPDATE
