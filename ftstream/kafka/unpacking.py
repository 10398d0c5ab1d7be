"""Bounds what a batch of records unpacks to: 16 MB of zeros sent by zstd would be the worker's whole memory.

Connect and ftstream send batches of 128 KB to 16 MB, so one that passes the bound is somebody else's. Its
first record says so, and is kept with the dead changes and told; the others are read as tombstones, so that
no offset seems to be lost.
aiokafka has no setting for this (https://github.com/aio-libs/aiokafka): its functions are replaced here.
"""

from __future__ import annotations

import gzip
import io
import mmap
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cramjam
from aiokafka import codec
from aiokafka.consumer import fetcher
from aiokafka.record._crecords import default_records, legacy_records

from ftstream.settings import MAX_REQUEST_BYTES

MOST_BYTES = 4 * MAX_REQUEST_BYTES
"""Four of the largest records that a producer sends."""

FETCH_BYTES = 32 * 2**20
"""Unpacked of one fetch of a partition; what comes after the batch that reaches it is fetched again."""

LZ4_RATIO = 255
"""No lz4 gains more: what is smaller than a part of this needs no buffer of MOST_BYTES."""


TOO_LARGE = f"unpack to more than {MOST_BYTES // 2**20} MiB: no producer of ftstream's sends such"

_DAMAGED = (cramjam.DecompressionError, zlib.error, struct.error, OSError, EOFError, ValueError)


class Unreadable(Exception):
    """A batch that cannot be unpacked, or unpacks to more than MOST_BYTES."""


class _StandIn(NamedTuple):
    """What is read in place of a record of an unreadable batch."""

    offset: int
    timestamp: int
    timestamp_type: int
    value: bytes | None
    key: None = None
    checksum: None = None
    headers: tuple[()] = ()


class _Batch:
    """A record batch whose unpacking may fail without the consumer failing with it."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(self._batch)
        except Unreadable as error:
            return self._stand_ins(error)

    def _stand_ins(self, error: Unreadable) -> Iterator[_StandIn]:
        batch = self._batch
        first, following = batch.base_offset, batch.next_offset
        said = f"records {first} to {following - 1} {error}".encode()
        for offset in range(first, following):
            value = said if offset == first else None
            yield _StandIn(offset, batch.max_timestamp, batch.timestamp_type, value)


class _Batches:
    """aiokafka's MemoryRecords, of such batches, up to FETCH_BYTES."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self._before = _unpacked.bytes

    def has_next(self) -> bool:
        enough = _unpacked.bytes - self._before >= FETCH_BYTES
        return bool(self._records.has_next()) and not enough

    def next_batch(self) -> _Batch:
        return _Batch(self._records.next_batch())


@dataclass(slots=True)
class _Count:
    """What this process has unpacked."""

    bytes: int = 0


_unpacked = _Count()


class _PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka is not typed
    def __init__(self, tp: Any, records: Any, *rest: Any) -> None:
        super().__init__(tp, _Batches(records), *rest)


def _gzip(payload: Any) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(payload)) as file:
        return _within(file.read(MOST_BYTES + 1))


def _lz4(payload: Any) -> bytes:
    if len(payload) * LZ4_RATIO <= MOST_BYTES:
        return bytes(cramjam.lz4.decompress(payload))
    return _into_buffer(cramjam.lz4.decompress_into, payload)


def _zstd(payload: Any) -> bytes:
    return _into_buffer(cramjam.zstd.decompress_into, payload)


def _snappy(payload: Any) -> bytes:
    blocks = _snappy_blocks(memoryview(payload))
    if sum(map(cramjam.snappy.decompress_raw_len, blocks)) > MOST_BYTES:
        raise Unreadable(TOO_LARGE)
    return bytes(codec.snappy_decode(payload))


def _snappy_blocks(payload: memoryview) -> Iterator[memoryview]:
    """Return the blocks of Java's framing (16 bytes, then length and block in turns), or the one block."""
    if not codec._detect_xerial_stream(payload):
        yield payload
        return
    at = 16
    while at < len(payload):
        (length,) = struct.unpack_from("!I", payload, at)
        yield payload[at + 4 : at + 4 + length]
        at += 4 + length


def _into_buffer(unpack: Callable[[Any, Any], int], payload: Any) -> bytes:
    # Anonymous memory: what is not written to takes no room.
    with mmap.mmap(-1, MOST_BYTES + 1) as buffer:
        return _within(buffer[: unpack(payload, buffer)])


def _within(unpacked: bytes) -> bytes:
    if len(unpacked) > MOST_BYTES:
        raise Unreadable(TOO_LARGE)
    return unpacked


def _readable(unpack: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def bounded(payload: Any) -> bytes:
        try:
            found = unpack(payload)
        except _DAMAGED as error:
            full = "failed to write whole buffer" in str(error)
            raise Unreadable(TOO_LARGE if full else f"cannot be unpacked: {error}") from error
        _unpacked.bytes += len(found)
        return found

    return bounded


def bound_batches() -> None:
    """Have every consumer of this process unpack within the bound."""
    fetcher.PartitionRecords = _PartitionRecords
    for name, unpack in (("gzip", _gzip), ("lz4", _lz4), ("zstd", _zstd), ("snappy", _snappy)):
        for records in (default_records, legacy_records):
            if hasattr(records, f"{name}_decode"):  # older batches know no zstd
                setattr(records, f"{name}_decode", _readable(unpack))
