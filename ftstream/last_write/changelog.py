"""The topic that a cache is kept in: written when Kafka takes it, read when partitions are assigned.

Nobody waits for either. Faust's own recovery pauses all partitions of the worker, at every rebalance, until
a changelog is read to its end, and has no limit; its producer keeps without limit what Kafka does not take,
and ends the process over what Kafka refuses.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Collection

from aiokafka import TopicPartition

from ftstream.kafka.chunk import Record
from ftstream.kafka.clients import open_consumer
from ftstream.kafka.errors import KafkaError
from ftstream.kafka.publishing import Message, Publishing
from ftstream.retry import Trouble, until_done
from ftstream.settings import KafkaSettings

log = logging.getLogger(__name__)

MOST_WAITING = 10_000
"""Keys; while as many wait for Kafka, others are left out."""

AT_ONCE = 500
LINGER_SECONDS = 0.2
"""In which several values of a key become one record."""

WRITE_SECONDS = 10.0
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 2.0
FETCH_BYTES = 2**20


class Changelog:
    """Of one Table."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._publishing = Publishing(kafka, WRITE_SECONDS)
        self._waiting: dict[bytes, Message] = {}
        self._filled = asyncio.Event()
        self._trouble = Trouble(log, f"{topic} is not written")

    @property
    def waiting(self) -> int:
        """Keys whose value Kafka does not have yet."""
        return len(self._waiting)

    def put(self, partition: int, key: bytes, value: bytes) -> None:
        """Have it written some time, unless a later value comes first, or too much waits already."""
        if key in self._waiting or len(self._waiting) < MOST_WAITING:
            self._waiting[key] = Message(self._topic, key, value, partition)
            self._filled.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._filled.wait()
            await asyncio.sleep(LINGER_SECONDS)
            await until_done(self._write, self._trouble, KafkaError, seconds=RETRY_SECONDS)

    async def close(self) -> None:
        """Write what waits, for a moment."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._waiting:
                    await self._write()
        except (KafkaError, TimeoutError) as error:
            log.debug("%s is not complete: %s", self._topic, error)
        finally:
            await self._publishing.abandon()

    async def read(self, partitions: Collection[int]) -> AsyncIterator[Record]:
        """All records that these partitions hold now. Raises KafkaUnreachable."""
        bounds = {"fetch_max_bytes": FETCH_BYTES, "max_partition_fetch_bytes": FETCH_BYTES}
        async with open_consumer(self._kafka, auto_offset_reset="earliest", **bounds) as consumer:
            assigned = [TopicPartition(self._topic, number) for number in partitions]
            consumer.assign(assigned)
            await consumer.seek_to_beginning()
            ends = await consumer.end_offsets(assigned)
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                found = await consumer.getmany(timeout_ms=200, max_records=AT_ONCE)
                for record in itertools.chain.from_iterable(found.values()):
                    yield record

    async def _write(self) -> None:
        """Some of what waits. Raises KafkaError."""
        messages = [*itertools.islice(self._waiting.values(), AT_ONCE)]
        done = await self._publishing.publish(messages)
        for message in messages[:done]:
            if self._waiting[message.key] is message:  # else a later value has come meanwhile
                del self._waiting[message.key]
        if not self._waiting:
            self._filled.clear()
