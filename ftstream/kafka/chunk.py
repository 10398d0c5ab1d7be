"""A chunk: consecutive raw records of one topic partition, delivered to an agent as one event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ftstream.kafka.partition import Partition


class Record(Protocol):
    """What ftstream reads of a Kafka record."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of one partition, `size` bytes in all; never empty.

    `epoch` tells since which seek they were fetched: records of an earlier one are read again.
    """

    partition: Partition
    records: Sequence[Record]
    size: int
    epoch: int

    @property
    def first(self) -> int:
        return self.records[0].offset

    @property
    def next(self) -> int:
        """The offset after the last record."""
        return self.records[-1].offset + 1


def chunks(
    partition: Partition, records: Sequence[Record], most_bytes: int, epoch: int
) -> Iterator[Chunk]:
    """Cut records into chunks of at most that many bytes (a larger record is a chunk of its own).

    Another begins where offsets are left out: what is not there must show.
    """
    start, size, expected = 0, 0, -1
    for index, record in enumerate(records):
        weight = len(record.value or b"") + len(record.key or b"")
        if index > start and (size + weight > most_bytes or record.offset != expected):
            yield Chunk(partition, records[start:index], size, epoch)
            start, size = index, 0
        size += weight
        expected = record.offset + 1
    if start < len(records):
        yield Chunk(partition, records[start:], size, epoch)
