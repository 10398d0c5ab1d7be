"""Whether Kafka's log goes on where the target is: nothing may be skipped silently."""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition

from ftstream.apply.merge import Position, record_digest
from ftstream.kafka.clients import open_consumer
from ftstream.kafka.partition import Partition
from ftstream.settings import KafkaSettings

READ_SECONDS = 15.0


class Break(enum.Enum):
    """How a log does not go on where the target is."""

    LOST = "records are lost"
    RECREATED = "the topic was recreated"
    REPARTITIONED = "the topic has another number of partitions"


@dataclass(frozen=True, slots=True)
class Discontinuity:
    """One partition whose log does not go on at `applied`; it can be read from `resume`."""

    kind: Break
    partition: Partition
    applied: int
    resume: int
    explanation: str

    def __str__(self) -> str:
        where = f"{self.partition.topic}[{self.partition.partition}]"
        return f"{where}: {self.kind.value}: {self.explanation}"


async def discontinuities(
    kafka: KafkaSettings, applied: Mapping[Partition, Position], partitions: Mapping[str, int]
) -> list[Discontinuity]:
    """Compare where the target is with what Kafka holds; nothing found means that all goes on.

    `partitions`: topic to the number of partitions it should have. Raises KafkaUnreachable.
    """
    async with open_consumer(kafka, auto_offset_reset="earliest") as consumer:
        return await _Log(consumer).compare(applied, partitions)


class _Log:
    """What Kafka holds, through a consumer in no group."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    async def compare(
        self, applied: Mapping[Partition, Position], partitions: Mapping[str, int]
    ) -> list[Discontinuity]:
        tps = {partition: TopicPartition(*partition) for partition in applied}
        self._consumer.assign(list(tps.values()))
        first = await self._consumer.beginning_offsets(list(tps.values()))
        ends = await self._consumer.end_offsets(list(tps.values()))
        found = self._repartitioned(applied, partitions)
        inside: dict[Partition, Position] = {}
        unread: dict[Partition, int] = {}
        for partition, position in applied.items():
            begin, end = first[tps[partition]], ends[tps[partition]]
            if broken := _outside(partition, position.next, begin, end):
                found.append(broken)
                continue
            if begin < position.next and position.digest is not None:
                inside[partition] = position
            if position.next < end:
                unread[partition] = position.next
        bounds = {p: (first[tps[p]], ends[tps[p]]) for p in inside}
        recreated = await self._recreated(inside, bounds)
        told = {each.partition for each in recreated}
        holes = await self._holes({p: at for p, at in unread.items() if p not in told})
        return [*found, *recreated, *holes]

    async def _holes(self, unread: Mapping[Partition, int]) -> list[Discontinuity]:
        """Return the partitions whose log goes on later than at the applied offset."""
        records = await self._records(unread)
        return [
            _hole(partition, unread[partition], unread[partition], record.offset)
            for partition, record in records.items()
            if record.offset != unread[partition]
        ]

    def _repartitioned(
        self, applied: Mapping[Partition, Position], partitions: Mapping[str, int]
    ) -> list[Discontinuity]:
        found = []
        for topic in dict.fromkeys(partition.topic for partition in applied):
            there = len(self._consumer.partitions_for_topic(topic) or ())
            if there != partitions[topic]:
                explanation = f"{there}, not {partitions[topic]}"
                where = Partition(topic, 0)
                found.append(Discontinuity(Break.REPARTITIONED, where, 0, 0, explanation))
        return found

    async def _recreated(
        self, inside: Mapping[Partition, Position], bounds: Mapping[Partition, tuple[int, int]]
    ) -> list[Discontinuity]:
        """Return those whose record before the applied offset is another one, or is not there."""
        before = await self._records({p: at.next - 1 for p, at in inside.items()})
        found = []
        for partition, at in inside.items():
            record, (first, end) = before.get(partition), bounds[partition]
            if record is None or record.offset != at.next - 1:
                goes_on = end if record is None else record.offset
                found.append(_hole(partition, at.next, at.next - 1, goes_on))
            elif at.digest != record_digest(record.key, record.value):
                other = f"the record at offset {record.offset} is not the one that was applied"
                found.append(Discontinuity(Break.RECREATED, partition, at.next, first, other))
        return found

    async def _records(self, offsets: Mapping[Partition, int]) -> dict[Partition, Any]:
        """The first record at or after each of these offsets.

        The log ends later; a transaction's marks may be all that it holds there.
        """
        found: dict[Partition, Any] = {}
        waiting = {TopicPartition(*partition) for partition in offsets}
        if not waiting:
            return found
        self._consumer.assign(list(waiting))
        for partition, offset in offsets.items():
            self._consumer.seek(TopicPartition(*partition), offset)
        ends = await self._consumer.end_offsets(list(waiting))
        deadline = time.monotonic() + READ_SECONDS
        while waiting:
            if time.monotonic() > deadline:
                raise OSError("records that should be there do not come")
            for tp, records in (await self._consumer.getmany(*waiting, timeout_ms=200)).items():
                if records:
                    found[Partition(*tp)] = records[0]
            read = {tp for tp in waiting if Partition(*tp) in found}
            waiting -= read | {
                tp for tp in waiting if await self._consumer.position(tp) >= ends[tp]
            }
        return found


def _hole(partition: Partition, applied: int, first: int, found: int) -> Discontinuity:
    explanation = f"offsets {first} to {found - 1} are not there"
    return Discontinuity(Break.LOST, partition, applied, found, explanation)


def _outside(partition: Partition, applied: int, first: int, end: int) -> Discontinuity | None:
    if applied < first:
        lost = f"offsets {applied} to {first - 1} were deleted before they were applied"
        return Discontinuity(Break.LOST, partition, applied, first, lost)
    if applied > end:
        explanation = f"it ends at offset {end}, and offsets up to {applied - 1} were applied"
        return Discontinuity(Break.RECREATED, partition, applied, first, explanation)
    return None


def summary(found: Sequence[Discontinuity]) -> str:
    """Return what is broken, the first few by name."""
    more = f", and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(map(str, found[:3])) + more
