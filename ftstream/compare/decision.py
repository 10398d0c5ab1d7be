"""Which site's row stays where both were filled before they met, or have come to differ since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ftstream.messages.change import Stamp


@dataclass(frozen=True, slots=True)
class Held:
    """What a site holds of an entity.

    `written`: when its row says that it was written, in microseconds; 0 if it does not say. `last`: its
    last write, None if that is older than ftstream. `reserved`: a version of the other site that is not less
    counts here only, where a write was refused to it and that refusal is not answered.
    """

    there: bool = False
    written: int = 0
    last: Stamp | None = None
    deleted: bool = False
    reserved: int = 0

    def stamp(self, site: str) -> Stamp | None:
        """The last write, as far as anybody knows."""
        if self.last is not None:
            return self.last
        return Stamp(max(1, self.written), site) if self.there else None


@dataclass(frozen=True, slots=True)
class Decision:
    """The site whose row stays, and tells the other one of it; what the other one has is kept first.

    `version` None: in that of its last write. `unknown`: it has none, so only as long as nobody has
    written the row since it was looked at. `alone`: only one site has the row; `deletes`: not the winner.
    """

    entity_id: str
    winner: str
    version: int | None
    unknown: bool
    alone: bool
    deletes: bool = False


def decide(
    entity_id: str,
    held: Mapping[str, Held],
    *,
    owner: str | None = None,
    prefer: str | None = None,
    horizon: int = 0,
    gap: str | None = None,
) -> Decision | None:
    """Return what to do about an entity of which the sites differ; None if neither has ever had it.

    The owner's row stays, if there is one; else the last write, or for rows that are older than ftstream
    that of the site to `prefer`. Versions up to the `horizon` would be refused. Where both know the same last
    write, and a site has a `gap`, it has written the row since, and nobody noted it: then its row stays.
    """
    stamps = {site: each.stamp(site) for site, each in held.items()}
    known = {site: stamp for site, stamp in stamps.items() if stamp is not None}
    if not known:
        return None
    unnoted = gap is not None and len({each.last for each in held.values()}) == 1
    winner = owner or (gap if gap and unnoted else _winner(held, known, prefer))
    (other,) = (each for site, each in held.items() if site != winner)
    version = _version(held[winner], other, horizon)
    if version is None and unnoted and winner == gap:
        version = _least(other, horizon)  # a write of its own, which nobody knows yet
    alone = sum(each.there for each in held.values()) == 1
    deletes = alone and not held[winner].there
    return Decision(entity_id, winner, version, held[winner].last is None, alone, deletes)


def _least(other: Held, horizon: int) -> int:
    """The least version that the other site takes."""
    return max((other.last.version if other.last else horizon) + 1, other.reserved)


def _version(winner: Held, other: Held, horizon: int) -> int | None:
    """One that the other site cannot but take; its own, if that is one."""
    last, known = winner.last, other.last
    # A write that is known there already is taken once more: that repairs what has come to differ.
    least = _least(other, horizon)
    if last is not None and last.version >= max(
        known.version if known else horizon + 1, other.reserved
    ):
        return None
    if last is not None:
        return least
    # Not less than what an old row there says of itself, where this one is preferred: decided again,
    # before it has arrived, it is still the one that stays.
    later = other.there and other.written >= winner.written
    preferred = max(1, other.written) + 1 if later else 0
    return max(least, winner.written, preferred)


def _winner(held: Mapping[str, Held], known: Mapping[str, Stamp], prefer: str | None) -> str:
    both_old = len(known) == 2 and all(each.last is None for each in held.values())
    if both_old and prefer is not None:
        return prefer
    if len(known) == 2 and len(set(known.values())) == 1:
        # Both know the same write, and one has lost its row: it was not this write that took it.
        there = [site for site, each in held.items() if each.there and not each.deleted]
        (stamp,) = set(known.values())
        return there[0] if len(there) == 1 else stamp.site
    return max(known, key=lambda site: known[site])


@dataclass(frozen=True, slots=True)
class Clash:
    """Rows that would have the same unique value: one entity under two ids, perhaps."""

    columns: tuple[str, ...]
    value: str
    ids: tuple[tuple[str, str], ...]
    """Site and id of each."""


def clashes(columns: tuple[str, ...], values: Mapping[str, Mapping[str, str]]) -> Iterable[Clash]:
    """`values`: site to id to value, of the rows that stay."""
    holders: dict[str, list[tuple[str, str]]] = {}
    for site, rows in values.items():
        for entity_id, value in rows.items():
            holders.setdefault(value, []).append((site, entity_id))
    for value, ids in sorted(holders.items()):
        if len({entity_id for _, entity_id in ids}) > 1:
            yield Clash(columns, value, tuple(sorted(ids)))
