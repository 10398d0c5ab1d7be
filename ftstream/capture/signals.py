"""Signals to a flow's connector, and the notifications it answers with, both through Kafka."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError

from ftstream.flows import CaptureNames, Table
from ftstream.kafka.clients import open_consumer, open_producer
from ftstream.kafka.errors import KafkaError
from ftstream.kafka.topics import require_topics
from ftstream.settings import KafkaSettings

REQUEST_MS = 10_000


@dataclass(frozen=True, slots=True)
class Signal:
    """What the connector is told to do; `identity` comes back in its notifications."""

    identity: str
    kind: str
    data: Mapping[str, Any]

    def encoded(self) -> bytes:
        body = {"id": self.identity, "type": self.kind, "data": dict(self.data)}
        return json.dumps(body).encode()


def incremental_snapshot(tables: Iterable[Table], identity: str | None = None) -> Signal:
    """Read these tables again, in chunks, while changes go on being captured."""
    names = [table.qualified for table in tables]
    data = {"type": "incremental", "data-collections": names}
    return Signal(identity or str(uuid.uuid4()), "execute-snapshot", data)


async def send(kafka: KafkaSettings, names: CaptureNames, signal: Signal) -> None:
    """Put the signal where the flow's connector reads it; it is kept while that is down.

    Raises KafkaUnreachable, KafkaError.
    """
    await require_topics(kafka, [names.signal_topic])
    async with open_producer(kafka, request_timeout_ms=REQUEST_MS) as producer:
        # The key says which connector is meant: its topic.prefix.
        key = names.prefix.encode()
        with _answering(names.signal_topic):
            await producer.send_and_wait(names.signal_topic, signal.encoded(), key=key, partition=0)


@dataclass(frozen=True, slots=True)
class SnapshotStep:
    """One step of a snapshot as the connector tells it."""

    identity: str
    kind: str
    details: Mapping[str, str]

    @property
    def ended(self) -> bool:
        """Whether this is the last word on the signal."""
        return self.kind in ("COMPLETED", "ABORTED", "STOPPED", "SKIPPED")

    @property
    def failure(self) -> str | None:
        """What went wrong, or None. A snapshot that skipped a table still says COMPLETED."""
        if self.kind in ("ABORTED", "STOPPED", "SKIPPED"):
            return self.kind.lower()
        if self.kind == "TABLE_SCAN_COMPLETED" and self.scan not in ("SUCCEEDED", "EMPTY"):
            return self.scan
        return None

    @property
    def scan(self) -> str:
        """How the scan of a table went: SUCCEEDED, EMPTY, SQL_EXCEPTION, NO_PRIMARY_KEY, ..."""
        return self.details.get("status", "")

    @property
    def table(self) -> str:
        """The qualified table it is about, or an empty string."""
        for key in ("scanned_collection", "current_collection_in_progress"):
            if value := self.details.get(key):
                return value
        return ""

    @property
    def rows(self) -> int | None:
        """Rows read of the table, where it says."""
        value = self.details.get("total_rows_scanned")
        return None if value is None else int(value)


def decode_notification(value: bytes) -> SnapshotStep:
    """Raises ValueError or KeyError for what is not a notification."""
    body = json.loads(value)
    details = body.get("additional_data") or {}
    return SnapshotStep(body["id"], body["type"], details)


class Notifications:
    """The notifications of a flow; made by `open_notifications`."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    async def of(self, signal: Signal, patience: float) -> AsyncIterator[SnapshotStep]:
        """Return those of this signal, up to the last. Raises SignalUnanswered after `patience` seconds
        without one.
        """
        deadline = time.monotonic() + patience
        while True:
            for notification in await self._poll(deadline - time.monotonic()):
                if notification.identity == signal.identity:
                    deadline = time.monotonic() + patience
                    yield notification
                    if notification.ended:
                        return
            if time.monotonic() > deadline:
                raise SignalUnanswered(patience)

    async def _poll(self, seconds: float) -> list[SnapshotStep]:
        batches = await self._consumer.getmany(timeout_ms=int(max(seconds, 0.1) * 1000))
        return [decode_notification(record.value) for batch in batches.values() for record in batch]


class SignalUnanswered(KafkaError):
    """The connector did not answer a signal, or stopped answering."""

    def __init__(self, patience: float) -> None:
        super().__init__(
            f"the connector said nothing for {patience:.0f} s; does it run "
            "(`ftstream connectors status`)? The signal stays in its topic and is not lost"
        )


@asynccontextmanager
async def open_notifications(
    kafka: KafkaSettings, names: CaptureNames
) -> AsyncIterator[Notifications]:
    """Read the notifications of a flow from here on; enter, then signal. Raises KafkaError."""
    await require_topics(kafka, [names.notification_topic, names.heartbeat_topic])
    async with open_consumer(kafka) as consumer:
        partition = TopicPartition(names.notification_topic, 0)
        consumer.assign([partition])
        with _answering(names.notification_topic):
            await consumer.seek_to_end(partition)
            # The seek is lazy: the position must be known before the signal is sent.
            await consumer.position(partition)
        yield Notifications(consumer)


@contextmanager
def _answering(topic: str) -> Iterator[None]:
    """Raises KafkaError if the topic is not there, which the client finds out by waiting for it."""
    try:
        yield
    except (KafkaTimeoutError, UnknownTopicOrPartitionError) as error:
        raise KafkaError(
            f"topic {topic} does not answer; `ftstream connectors apply` creates it"
        ) from error
