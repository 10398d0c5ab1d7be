"""Turns chunks of raw records into batches of changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ftstream import notification
from ftstream.apply.merge import Batch, FromLog, Span, record_digest
from ftstream.apply.parked import ParkedRecord, malformed
from ftstream.kafka.chunk import Chunk, Record
from ftstream.kafka.partition import Partition
from ftstream.messages.change import (
    HEARTBEAT_KEY,
    Change,
    MalformedMessage,
    Operation,
    heartbeat_time,
)
from ftstream.notification import Notify

Decode = Callable[[str, str, int, int, bytes | None, bytes | None], Change | None]
"""Of table, topic, partition, offset, key and value. Raises MalformedMessage."""


class Intake:
    """Reads the records of one flow; a record that cannot be read becomes dead, and the flow goes on."""

    def __init__(
        self,
        flow: str,
        tables: Mapping[str, str],
        decode: Decode,
        notify: Notify,
    ) -> None:
        """`tables`: topic to table; a topic that is not among them carries heartbeats."""
        self._flow = flow
        self._decode = decode
        self._tables = tables
        self._notify = notify

    def batch(self, chunks: Sequence[Chunk]) -> Batch:
        """The changes of these chunks, in order, and the offsets that they span."""
        changes: list[Change] = []
        parked: list[ParkedRecord] = []
        spans: dict[Partition, Span] = {}
        heartbeat: float | None = None
        for chunk in chunks:
            partition = chunk.partition
            table = self._tables.get(partition.topic)
            position: int | None = None
            for record in chunk.records:
                if table is None:
                    heartbeat = heartbeat_time(record.value) or heartbeat
                    continue
                if record.key == HEARTBEAT_KEY and (beat := heartbeat_time(record.value)):
                    heartbeat = beat  # of an outbox, which carries it among the changes
                    continue
                if record.value is None:
                    continue  # a tombstone, which repeats the delete before it
                try:
                    change = self._decode(
                        table, *partition, record.offset, record.key, record.value
                    )
                except MalformedMessage as error:
                    parked.append(_dead(table, partition, record, str(error)))
                    continue
                if change is not None:
                    changes.append(change)
                    position = change.source_position
                    if change.operation is Operation.TRUNCATE:
                        self._notify(notification.truncated(self._flow, table))
                    if change.instead:
                        self._notify(notification.unidentified(self._flow, table, change.instead))
            spans[partition] = _span(spans.get(partition), chunk, position)
        return Batch(tuple(changes), FromLog(tuple(spans.values())), heartbeat, tuple(parked))


def _dead(table: str, partition: Partition, record: Record, reason: str) -> ParkedRecord:
    return malformed(table, partition, record.offset, record.key, record.value or b"", reason)


def _span(before: Span | None, chunk: Chunk, position: int | None) -> Span:
    last = chunk.records[-1]
    first = chunk.first if before is None else before.expected
    return Span(chunk.partition, first, chunk.next, position, record_digest(last.key, last.value))
