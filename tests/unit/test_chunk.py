"""Chunks: records cut by bytes, none lost, none reordered."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from ftstream.kafka.chunk import chunks
from ftstream.kafka.partition import Partition

PARTITION = Partition("gfx.gfx_hands", 2)


@dataclass(frozen=True)
class FakeRecord:
    offset: int
    key: bytes | None
    value: bytes | None

    @property
    def weight(self) -> int:
        return len(self.key or b"") + len(self.value or b"")


def records(sizes: list[int | None]) -> list[FakeRecord]:
    """A record for each size; None is a tombstone."""
    return [
        FakeRecord(100 + i, b"k", None if size is None else b"x" * size)
        for i, size in enumerate(sizes)
    ]


@given(st.lists(st.none() | st.integers(0, 50)), st.integers(1, 60))
def test_chunks_hold_every_record_once_and_in_order(
    sizes: list[int | None], most_bytes: int
) -> None:
    given_records = records(sizes)
    cut = list(chunks(PARTITION, given_records, most_bytes, epoch=3))
    assert [record for chunk in cut for record in chunk.records] == given_records
    assert all(chunk.epoch == 3 and chunk.partition == PARTITION for chunk in cut)


@given(st.lists(st.none() | st.integers(0, 50)), st.integers(1, 60))
def test_only_a_single_record_exceeds_the_bound(sizes: list[int | None], most_bytes: int) -> None:
    for chunk in chunks(PARTITION, records(sizes), most_bytes, epoch=0):
        assert chunk.records
        assert chunk.size == sum(len(r.key or b"") + len(r.value or b"") for r in chunk.records)
        assert chunk.size <= most_bytes or len(chunk.records) == 1


def test_chunk_tells_where_it_begins_and_where_the_next_one_does() -> None:
    first, second = chunks(PARTITION, records([10, 10, 10]), 22, epoch=0)
    assert (first.first, first.next) == (100, 102)
    assert (second.first, second.next) == (102, 103)


def test_offsets_that_are_left_out_begin_a_chunk() -> None:
    found = [FakeRecord(at, b"k", b"x") for at in (3, 4, 7, 8)]
    cut = list(chunks(PARTITION, found, 1_000, epoch=0))
    assert [(chunk.first, chunk.next) for chunk in cut] == [(3, 5), (7, 9)]


def test_no_records_make_no_chunk() -> None:
    assert list(chunks(PARTITION, [], 100, epoch=0)) == []
