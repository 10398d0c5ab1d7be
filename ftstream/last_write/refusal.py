"""What becomes of a change that cannot stand at its target, because rows of the target are in its way.

A unique value that another row holds, a row referred to that is not there, a row that refers to one which is
to be deleted: whatever it is, the change waits, or it is refused. A refusal goes to the site that made the
change, which takes the target's row instead, as a write of its own: in the version after the one refused,
and only if it has not written the row since. So no later edit of anybody is lost to a refusal, and a site
that alone writes a row is never overruled by what is merely late.

tests/two_writers.py has two sites that do nothing but this; extend it before the rule.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ftstream.messages.change import Change, Entity, Stamp

UNKNOWN = Stamp(-1, "")
"""The last write of a row that is older than ftstream."""


@dataclass(frozen=True, slots=True)
class InTheWay:
    """A row that keeps a change from being applied, as its target knows it.

    `last` is its last write, `reserved` the version in which the other site takes it over if it was refused
    (0 if it never was).
    """

    entity: Entity
    last: Stamp = UNKNOWN
    reserved: int = 0

    @property
    def promised(self) -> bool:
        """Whether the other site was told to take this row as it is here, and has not answered yet."""
        return self.reserved > self.last.version


@dataclass(frozen=True, slots=True)
class Wait:
    """What is in the way is about to change. The other site is asked to have the changes `ask` give way."""

    ask: tuple[Entity, ...] = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """The other site is to take the row as it is here in place of its write `over`, as its write `stamp`."""

    over: Stamp
    stamp: Stamp


def refusing(change: Change, there: str) -> Refuse:
    """Refuse a change from `there`; of a refusal that site's write of the row is refused in turn."""
    if change.refusal is not None:
        theirs = change.refusal.theirs
        return Refuse(theirs, Stamp(max(change.version, theirs.version) + 1, there))
    stamp = change.stamp
    return Refuse(stamp, Stamp(stamp.version + 1, stamp.site))


def decide(
    change: Change, in_the_way: Collection[InTheWay], *, here: str, there: str
) -> Wait | Refuse:
    """Say whether a change from `there` waits `here`, or is refused."""
    if change.refusal is not None:
        # This site's own writes are in its way, and asked to yield. Where those were refused themselves, each
        # site would wait for the other: the one that wins ties has its way.
        if here > there and any(row.promised for row in in_the_way):
            return refusing(change, there)
        return Wait(tuple(row.entity for row in in_the_way if row.last.site == here))
    stamp = change.stamp
    for row in in_the_way:
        # Written later, and here: it stays. One that the change's own site wrote last is about to change, as
        # that site held both rows one after the other; an older one of this site is refused over there.
        later = row.last.site == here and row.last > stamp
        if later or (change.yields and row.promised):
            return refusing(change, there)
    return Wait()
