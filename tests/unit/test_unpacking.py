"""A batch that would unpack to more than all memory is one record that says so."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from ftstream.kafka import unpacking
from ftstream.kafka.chunk import chunks
from ftstream.kafka.partition import Partition
from ftstream.kafka.unpacking import MOST_BYTES

HEADER_BYTES = 61
TP = TopicPartition("t", 0)
CODECS = ("gzip", "lz4", "zstd", "snappy")


@pytest.fixture(autouse=True)
def _bounded() -> None:
    unpacking.bound_batches()


def batch(codec: str, *values: bytes, at: int = 10) -> bytearray:
    """A batch as Kafka keeps it, at this offset."""
    number = getattr(DefaultRecordBatch, f"CODEC_{codec.upper()}")
    builder = DefaultRecordBatchBuilder(2, number, 0, -1, -1, -1, 2**30)
    for offset, value in enumerate(values):
        builder.append(offset, timestamp=1, key=b"k", value=value, headers=[])
    built = bytearray(builder.build())
    built[0:8] = at.to_bytes(8, "big")  # the CRC does not cover it
    return built


def read(*batches: bytearray) -> list[Any]:
    records = MemoryRecords(b"".join(batches))
    return list(fetcher.PartitionRecords(TP, records, None, 0, None, None, True, 0))


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_within_the_bound_is_read_as_it_was_sent(codec: str) -> None:
    values = (b"{}", bytes(range(256)) * 8_000)
    found = read(batch(codec, *values), batch(codec, b"next", at=12))
    assert [record.value for record in found] == [*values, b"next"]
    assert [record.offset for record in found] == [10, 11, 12]


def test_what_is_fetched_at_once_is_bounded_over_batches_and_the_rest_comes_next() -> None:
    parts = [batch("zstd", bytes(MOST_BYTES // 4), at=at) for at in range(10, 16)]
    records = MemoryRecords(b"".join(parts))
    reading = fetcher.PartitionRecords(TP, records, None, 0, None, None, True, 0)
    assert [record.offset for record in reading] == [10, 11]
    assert reading.next_fetch_offset == 12


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_beyond_it_is_told_by_its_first_record_and_no_offset_is_left_out(
    codec: str,
) -> None:
    zeros = bytes(MOST_BYTES // 2)
    found = read(batch(codec, zeros, zeros, b"x"), batch(codec, b"next", at=13))
    assert [record.offset for record in found] == [10, 11, 12, 13]
    assert {record.key for record in found[:3]} == {None}
    assert found[0].value.startswith(b"records 10 to 12 unpack to more than 64 MiB")
    assert [record.value for record in found[1:]] == [None, None, b"next"]
    (chunk,) = chunks(Partition("t", 0), found, 2**20, epoch=1)
    assert (chunk.first, chunk.next) == (10, 14)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("kept", [0, 11])
def test_what_is_no_such_data_is_told_too(codec: str, kept: int) -> None:
    damaged = batch(codec, b"a value" * 100, b"another" * 100)
    start = HEADER_BYTES + kept
    damaged[start:] = b"\xf7" * len(damaged[start:])
    records = MemoryRecords(bytes(damaged))
    found = [*fetcher.PartitionRecords(TP, records, None, 0, None, None, False, 0)]
    assert found[0].value.startswith(b"records 10 to 11 cannot be unpacked")
    assert [record.offset for record in found] == [10, 11]
