"""A captured change, and how a Debezium event becomes one."""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

from ftstream.core.unavailable import may_be_partial


class Partition(NamedTuple):
    """A topic partition."""

    topic: str
    partition: int


class Operation(enum.StrEnum):
    """What happened to the row; `snapshot` is an insert or update as a snapshot sees it."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    SNAPSHOT = "snapshot"
    TRUNCATE = "truncate"


_OPERATIONS = {
    "c": Operation.INSERT,
    "u": Operation.UPDATE,
    "d": Operation.DELETE,
    "r": Operation.SNAPSHOT,
    "t": Operation.TRUNCATE,
}


class Change(msgspec.Struct, frozen=True, gc=False):
    """One captured insert, update or delete of one entity (a row, known by table and id).

    `image` is the row as JSON, in Debezium's encoding, or None for a delete. `partial` says that the
    log did not hold every value: the image has placeholders (unchanged TOAST).
    `source_position` is the write-ahead log position, `source_time` the commit time, in microseconds.
    """

    table: str
    entity_id: str
    operation: Operation
    image: bytes | None
    partial: bool
    topic: str
    partition: int
    offset: int
    source_position: int | None
    source_time: int | None
    source_transaction: int | None = None


class MalformedMessage(Exception):
    """A record that is not a Debezium event of this flow."""


class _Source(msgspec.Struct, gc=False):
    lsn: int | None = None
    txId: int | None = None
    ts_us: int | None = None


class _Envelope(msgspec.Struct, gc=False):
    op: str
    source: _Source
    after: msgspec.Raw = msgspec.Raw(b"null")


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def decode(
    table: str, topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None
) -> Change | None:
    """The change a Debezium record holds; None for a tombstone, which repeats the delete before it.

    Raises MalformedMessage when it is not an event, or lacks its key.
    """
    if value is None:
        return None
    try:
        envelope = _decode_envelope(value)
        operation = _OPERATIONS[envelope.op]
        entity_id = "" if key is None else key.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
        raise MalformedMessage(
            f"{topic}[{partition}]@{offset}: not a change event: {error}"
        ) from error
    if key is None and operation is not Operation.TRUNCATE:
        raise MalformedMessage(f"{topic}[{partition}]@{offset}: a change without a key")
    image = None if operation in (Operation.DELETE, Operation.TRUNCATE) else bytes(envelope.after)
    if image == b"null":
        raise MalformedMessage(f"{topic}[{partition}]@{offset}: {operation} without a row")
    source = envelope.source
    return Change(
        table,
        entity_id,
        operation,
        image,
        image is not None and may_be_partial(image),
        topic,
        partition,
        offset,
        source.lsn,
        source.ts_us,
        source.txId,
    )


class _Heartbeat(msgspec.Struct, gc=False):
    op: str
    ts_ms: int


_decode_heartbeat = msgspec.json.Decoder(_Heartbeat).decode


def heartbeat_time(value: bytes | None) -> float | None:
    """When a heartbeat was captured, in seconds since 1970; None for anything else."""
    try:
        beat = _decode_heartbeat(value or b"")
    except msgspec.DecodeError:
        return None
    return beat.ts_ms / 1000 if beat.op == "m" else None
