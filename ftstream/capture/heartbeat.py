"""Signs of life of a connector in Kafka, since a task that lost its way still says RUNNING."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiokafka import TopicPartition

from ftstream.flows import CaptureNames
from ftstream.kafka.clients import open_consumer
from ftstream.kafka.topics import require_topics
from ftstream.settings import KafkaSettings

READ_SECONDS = 10.0

SILENT_SECONDS = 60.0
"""A heartbeat is due every 10 s; a task that lost its way goes on saying RUNNING."""


@dataclass(frozen=True, slots=True)
class RecordCounts:
    """How many records the capture has ever written: of changes, and of heartbeats."""

    changes: int
    heartbeats: int


async def written(kafka: KafkaSettings, names: CaptureNames) -> RecordCounts:
    """The ends of its topics, summed. Raises KafkaUnreachable, TopicMissing."""
    await require_topics(kafka, [*names.topics, names.heartbeat_topic])
    async with open_consumer(kafka) as consumer:
        changes = [
            TopicPartition(topic, partition)
            for topic in names.topics
            for partition in range(kafka.partitions)
        ]
        beats = TopicPartition(names.heartbeat_topic, 0)
        ends = await _ends(consumer, [*changes, beats])
        return RecordCounts(sum(ends[one] for one in changes), ends[beats])


async def last_heartbeat(kafka: KafkaSettings, names: CaptureNames) -> datetime | None:
    """Say when Connect wrote the newest record of the heartbeat topic; None if that is empty.

    Raises KafkaUnreachable, TopicMissing.
    """
    await require_topics(kafka, [names.heartbeat_topic])
    partition = TopicPartition(names.heartbeat_topic, 0)
    async with open_consumer(kafka) as consumer:
        end = (await _ends(consumer, [partition]))[partition]
        begin = (await consumer.beginning_offsets([partition]))[partition]
        if end == begin:
            return None
        consumer.seek(partition, end - 1)
        record = await asyncio.wait_for(consumer.getone(partition), READ_SECONDS)
        return datetime.fromtimestamp(record.timestamp / 1000, UTC)


async def _ends(consumer: Any, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    consumer.assign(partitions)
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    return ends
