"""The greatest write of an entity that an agent has seen: a hint at which changes have lost.

It decides nothing. What it names is left unlocked only if the database confirms, in the transaction that
applies the batch, that the change has come before and lost; so what is seen may be deleted, stale, ahead
of the database or made up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from ftstream.kafka.partition import Partition
from ftstream.messages.change import Change, Entity, Stamp


class SeenWrite(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A write, and the record that it came in."""

    version: int
    site: str
    topic: str
    partition: int
    offset: int

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.version, self.site)

    @property
    def at(self) -> Partition:
        return Partition(self.topic, self.partition)


Look = Callable[[Entity], SeenWrite | None]
"""The greatest write that was seen of an entity."""


def nothing_seen(_: Entity) -> SeenWrite | None:
    """Know of no write: for a flow that keeps no account."""
    return None


def key_of(entity: Entity) -> bytes:
    """Neither a table's name nor an id holds a NUL."""
    return "\0".join(entity).encode()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SeenWrite).decode


def encode(seen: SeenWrite) -> bytes:
    return _encode(seen)


def decode(value: bytes) -> SeenWrite | None:
    """None for what is no such value: whoever may write to Kafka may have put it there."""
    try:
        return _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def has_lost(change: Change, seen: SeenWrite | None, applied: Mapping[Partition, int]) -> bool:
    """Say whether a greater write was seen, in a record that the target has applied.

    One that is not applied yet may never be: this change might be the last that arrives.
    """
    if seen is None or seen.stamp <= change.stamp:
        return False
    return seen.offset < applied.get(seen.at, 0)


def losers(
    begins: Mapping[Partition, int], newest: Mapping[Entity, Change], look: Look
) -> frozenset[Entity]:
    """The entities of which not even the newest change of the batch seems to have an effect.

    `begins`: where the batch begins says how far its partitions are applied.
    """
    return frozenset(
        entity for entity, change in newest.items() if has_lost(change, look(entity), begins)
    )
