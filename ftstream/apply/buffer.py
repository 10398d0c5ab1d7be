"""The buffer between the loop that reads Kafka and the writer: bounded in rows and bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ftstream.failures import Halted
from ftstream.kafka.chunk import Chunk
from ftstream.kafka.partition import Partition

HINT = (
    "To go on without them: `ftstream accept-loss`, start the worker again, and then"
    " `ftstream verify --repair`, which carries what they held"
)


class GapInLog(Halted):
    """A record came that is not the next one of its partition."""

    def __init__(self, partition: Partition, expected: int, found: int) -> None:
        super().__init__(
            f"{partition.topic}[{partition.partition}]: expected offset {expected}, got {found}:"
            f" Kafka has lost records between them. {HINT}"
        )


@dataclass(frozen=True, slots=True)
class Buffered:
    """A chunk, and what tells Kafka that it is done."""

    chunk: Chunk
    acknowledge: Callable[[], None]


class Buffer:
    """Chunks in order of arrival. Full, it asks for a pause; it never drops and never blocks.

    What is already fetched when the pause is asked for still comes in: the bounds are exceeded by
    one fetch at most.
    """

    def __init__(
        self, rows: int, size: int, pause: Callable[[], None], resume: Callable[[], None]
    ) -> None:
        self._most_rows, self._most_bytes = rows, size
        self._pause, self._resume = pause, resume
        self._chunks: deque[Buffered] = deque()
        self._rows = self._bytes = 0
        self._expected: dict[Partition, int] = {}
        self._epoch = 0
        self._filled = asyncio.Event()
        self.paused = False

    @property
    def rows(self) -> int:
        """Rows waiting."""
        return self._rows

    def restart(self, offsets: Mapping[Partition, int], epoch: int) -> None:
        """Forget everything: reading starts again at these offsets, in chunks of this epoch."""
        self._chunks.clear()
        self._rows = self._bytes = 0
        self._filled.clear()
        self._expected = dict(offsets)
        self._epoch = epoch
        self.paused = False

    def put(self, item: Buffered) -> None:
        """Take a chunk; raises GapInLog unless it continues its partition."""
        chunk = item.chunk
        expected = self._expected.get(chunk.partition)
        if expected is None or chunk.epoch != self._epoch:
            return  # fetched before partitions were reassigned
        if chunk.first != expected:
            raise GapInLog(chunk.partition, expected, chunk.first)
        self._expected[chunk.partition] = chunk.next
        self._chunks.append(item)
        self._count(len(chunk.records), chunk.size)
        self._filled.set()
        if not self.paused and self._is_full():
            self.paused = True
            self._pause()

    async def take(self, rows: int, size: int) -> list[Buffered]:
        """Wait for a chunk, then take chunks up to these bounds, one at least."""
        await self._filled.wait()
        taken: list[Buffered] = []
        left_rows, left_bytes = rows, size
        while self._chunks and (not taken or self._fits(left_rows, left_bytes)):
            item = self._chunks.popleft()
            taken.append(item)
            left_rows -= len(item.chunk.records)
            left_bytes -= item.chunk.size
        self._count(left_rows - rows, left_bytes - size)
        if not self._chunks:
            self._filled.clear()
        if self.paused and not self._is_half_full():
            self.paused = False
            self._resume()
        return taken

    def _fits(self, rows: int, size: int) -> bool:
        chunk = self._chunks[0].chunk
        return len(chunk.records) <= rows and chunk.size <= size

    def _count(self, rows: int, size: int) -> None:
        self._rows += rows
        self._bytes += size

    def _is_full(self) -> bool:
        return self._rows >= self._most_rows or self._bytes >= self._most_bytes

    def _is_half_full(self) -> bool:
        return self._rows * 2 >= self._most_rows or self._bytes * 2 >= self._most_bytes
