"""Where Kafka's topics end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition

from ftstream.kafka.clients import open_consumer
from ftstream.kafka.errors import TopicMissing
from ftstream.kafka.partition import Partition
from ftstream.kafka.topics import partition_counts
from ftstream.settings import KafkaSettings


class Ends:
    """Reads where a flow's topics end; made by `open_ends`."""

    def __init__(self, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]) -> None:
        self._consumer = consumer
        self._partitions = partitions

    async def read(self) -> Mapping[Partition, int]:
        """The offset after the last record of each partition."""
        ends = await self._consumer.end_offsets(self._partitions)
        return {Partition(p.topic, p.partition): end for p, end in ends.items()}


@asynccontextmanager
async def open_ends(kafka: KafkaSettings, topics: Sequence[str]) -> AsyncIterator[Ends]:
    """A reader of these topics' ends. Raises KafkaUnreachable, TopicMissing."""
    counts = await partition_counts(kafka)
    missing = [topic for topic in topics if topic not in counts]
    if missing:
        raise TopicMissing(f"Kafka has no topic {', '.join(missing)}: run `ftstream init`")
    async with open_consumer(kafka) as consumer:
        yield Ends(
            consumer,
            [TopicPartition(topic, number) for topic in topics for number in range(counts[topic])],
        )
