"""Asks a flow's agent to bring rows in step: each request travels like a change, in its row's order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.errors import KafkaError as ClientError

from ftstream.flows import Names, Site, Table
from ftstream.kafka.clients import open_producer
from ftstream.kafka.errors import KafkaError
from ftstream.messages.change import REPAIR_REQUEST
from ftstream.settings import KafkaSettings


class Repairs:
    """Sends requests; made by `open_repairs`."""

    def __init__(self, producer: Any, names: Names, target: Site) -> None:
        self._producer = producer
        self._names = names
        self._target = target

    async def request(self, table: Table, ids: Collection[str]) -> None:
        """Have these rows read from their owner and written, or removed if it does not have them.

        The key decides the partition, as for the connector's records: a request comes after every
        change of its row that is in Kafka by now. Raises KafkaError.
        """
        topic = self._names.topic(table, self._target.other)
        try:
            sent = [
                await self._producer.send(topic, REPAIR_REQUEST, key=entity_id.encode())
                for entity_id in ids
            ]
            await asyncio.gather(*sent)
        except ClientError as error:
            raise KafkaError(f"topic {topic} does not take requests: {error}") from error


@asynccontextmanager
async def open_repairs(kafka: KafkaSettings, names: Names, target: Site) -> AsyncIterator[Repairs]:
    """A sender of requests for a flow. Raises KafkaUnreachable."""
    async with open_producer(kafka, linger_ms=5) as producer:
        yield Repairs(producer, names, target)
