"""Puts changes into their topics, in order, and says how many of them Kafka has for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError as ClientError

from ftstream.kafka.clients import client_options
from ftstream.kafka.errors import KafkaUnreachable, TopicsDiffer
from ftstream.settings import MAX_REQUEST_BYTES, KafkaSettings


class Message(NamedTuple):
    """A record to be."""

    topic: str
    key: bytes
    value: bytes
    partition: int | None = None
    """None: the key decides."""


class Publishing:
    """A producer that keeps the order of a key's records, through retries too."""

    def __init__(self, kafka: KafkaSettings, timeout: float) -> None:
        """`timeout`: seconds after which a record that Kafka has not taken is given up."""
        self._kafka = kafka
        self._timeout_ms = int(timeout * 1000)
        self._producer: Any = None

    async def publish(self, messages: Sequence[Message]) -> int:
        """Publish these, and return how many of the first are in Kafka, on all in-sync replicas.

        Raises KafkaUnreachable if none is: then it begins again, with another connection; TopicsDiffer if
        a topic lacks a partition that a message is for.
        """
        futures: list[asyncio.Future[Any]] = []
        try:
            producer = await self._open()
            await _require_partitions(producer, messages)
            for topic, key, value, partition in messages:
                futures.append(await producer.send(topic, value, key=key, partition=partition))
        except (ClientError, OSError) as error:
            failure: Exception | None = error
        else:
            failure = None
        # The client would try for ever, and send an old state after another publisher's newer one.
        if futures:
            await asyncio.wait(futures, timeout=self._timeout_ms / 1000)
        taken = [_taken(future) for future in futures]
        lost = [i for i, each in enumerate(taken) if each is not None]
        done = lost[0] if lost else len(taken)
        if done < len(messages):
            await self.abandon()
        if not done and messages:
            reason = failure or taken[0]
            raise KafkaUnreachable(self._kafka.bootstrap_servers, str(reason)) from failure
        return done

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def abandon(self) -> None:
        """Close, without sending what waits, which stopping would do: it is handed in again."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer._sender.close()
            await producer.stop()

    async def _open(self) -> Any:
        if self._producer is None:
            producer = AIOKafkaProducer(
                **client_options(self._kafka),
                acks="all",
                enable_idempotence=True,
                compression_type="lz4",
                # Capture lets a little less through: ftstream.require_size, in capture/functions.sql.
                max_request_size=MAX_REQUEST_BYTES,
                request_timeout_ms=self._timeout_ms,
            )
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer


async def _require_partitions(producer: Any, messages: Sequence[Message]) -> None:
    """The client would fail with a bare assertion."""
    for topic, partition in {(m.topic, m.partition) for m in messages if m.partition is not None}:
        if partition not in await producer.partitions_for(topic):
            raise TopicsDiffer(f"{topic} has no partition {partition}: run `ftstream init`")


def _taken(future: asyncio.Future[Any]) -> BaseException | None:
    """Why Kafka has not taken it; None if it has."""
    if not future.done():
        return TimeoutError("not acknowledged in time")
    if future.cancelled():
        return asyncio.CancelledError()
    return future.exception()
