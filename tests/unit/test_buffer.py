"""The buffer: bounded, in order, and it accepts only what continues each partition."""

from __future__ import annotations

import asyncio

import pytest

from ftstream.apply.buffer import Buffer, Buffered, GapInLog
from ftstream.kafka.chunk import Chunk
from ftstream.kafka.partition import Partition
from tests.unit.test_chunk import FakeRecord

HANDS = Partition("gfx.gfx_hands", 0)
SEATS = Partition("gfx.gfx_hand_players", 0)
EPOCH = 4


class Flow:
    """A buffer of ten rows and a thousand bytes, and what it asked of the consumer."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.buffer = Buffer(
            10, 1_000, lambda: self.asked.append("pause"), lambda: self.asked.append("resume")
        )
        self.buffer.restart({HANDS: 0, SEATS: 0}, EPOCH)

    def put(
        self, partition: Partition, first: int, rows: int, size: int = 1, epoch: int = EPOCH
    ) -> None:
        records = [FakeRecord(first + i, b"k", b"v") for i in range(rows)]
        chunk = Chunk(partition, records, size, epoch)
        self.buffer.put(Buffered(chunk, lambda: None))

    def take(self, rows: int = 1_000, size: int = 10_000) -> list[tuple[str, int, int]]:
        taken = asyncio.run(asyncio.wait_for(self.buffer.take(rows, size), 1))
        return [(item.chunk.partition.topic, item.chunk.first, item.chunk.next) for item in taken]


def test_chunks_come_out_in_the_order_they_went_in() -> None:
    flow = Flow()
    flow.put(HANDS, 0, 2)
    flow.put(SEATS, 0, 1)
    flow.put(HANDS, 2, 1)
    assert flow.take() == [(HANDS.topic, 0, 2), (SEATS.topic, 0, 1), (HANDS.topic, 2, 3)]
    assert flow.buffer.rows == 0


def test_full_in_rows_it_asks_for_a_pause_once_and_still_accepts() -> None:
    flow = Flow()
    flow.put(HANDS, 0, 10)
    flow.put(HANDS, 10, 10)
    assert flow.asked == ["pause"]
    assert flow.buffer.rows == 20


def test_full_in_bytes_it_asks_for_a_pause() -> None:
    flow = Flow()
    flow.put(HANDS, 0, 1, size=1_000)
    assert flow.asked == ["pause"]


def test_less_than_half_full_it_asks_to_go_on() -> None:
    flow = Flow()
    for first in range(0, 12, 4):
        flow.put(HANDS, first, 4)
    flow.take(rows=4)
    assert flow.asked == ["pause"]
    flow.take(rows=4)
    assert flow.asked == ["pause", "resume"]


def test_take_keeps_to_its_bounds_but_takes_one_chunk_at_least() -> None:
    flow = Flow()
    flow.put(HANDS, 0, 5, size=500)
    flow.put(HANDS, 5, 2, size=10)
    flow.put(HANDS, 7, 2, size=10)
    assert flow.take(rows=1) == [(HANDS.topic, 0, 5)]
    assert flow.take(rows=4, size=15) == [(HANDS.topic, 5, 7)]


def test_gap_in_a_partition_is_refused_and_told() -> None:
    flow = Flow()
    flow.put(HANDS, 0, 3)
    with pytest.raises(GapInLog, match=r"gfx\.gfx_hands\[0\]: expected offset 3, got 5"):
        flow.put(HANDS, 5, 1)


def test_records_fetched_before_the_seek_are_dropped_wherever_they_begin() -> None:
    flow = Flow()
    flow.put(HANDS, 700, 3, epoch=EPOCH - 1)
    flow.put(HANDS, 0, 3)
    assert flow.take() == [(HANDS.topic, 0, 3)]


def test_records_of_a_partition_that_is_not_assigned_are_dropped() -> None:
    flow = Flow()
    flow.put(Partition("gfx.gfx_players", 3), 0, 3)
    assert flow.buffer.rows == 0


def test_restart_forgets_what_was_read_and_the_pause() -> None:
    flow = Flow()
    flow.put(HANDS, 0, 10)
    flow.buffer.restart({HANDS: 4}, EPOCH + 1)
    assert (flow.buffer.rows, flow.buffer.paused) == (0, False)
    flow.put(HANDS, 4, 1, epoch=EPOCH + 1)
    assert flow.take() == [(HANDS.topic, 4, 5)]


async def test_take_waits_for_a_chunk() -> None:
    flow = Flow()
    waiting = asyncio.create_task(flow.buffer.take(10, 10))
    await asyncio.sleep(0)
    assert not waiting.done()
    flow.put(HANDS, 0, 1)
    assert len(await asyncio.wait_for(waiting, 1)) == 1
