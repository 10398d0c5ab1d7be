"""Kafka's clients for work that has an end: each is closed with its context, and says who does not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError as ClientError

from ftstream.kafka.errors import KafkaUnreachable
from ftstream.kafka.unpacking import bound_batches
from ftstream.settings import KafkaSettings


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """The keyword arguments that aiokafka's consumer, producer and admin client have in common."""
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "security_protocol": kafka.security_protocol,
        "ssl_context": kafka.ssl_context(),
    }
    if kafka.authenticated:
        options |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.sasl_username,
            "sasl_plain_password": kafka.sasl_password.get_secret_value(),
        }
    return options


@asynccontextmanager
async def open_consumer(kafka: KafkaSettings, **options: Any) -> AsyncIterator[Any]:
    """Open a consumer in no group: it moves nobody's position. Raises KafkaUnreachable."""
    options = {"group_id": None, "enable_auto_commit": False} | options
    bound_batches()
    consumer = AIOKafkaConsumer(**client_options(kafka), **options)
    with unreachable(kafka):
        try:
            await consumer.start()
            yield consumer
        finally:
            await consumer.stop()


@asynccontextmanager
async def open_producer(kafka: KafkaSettings, **options: Any) -> AsyncIterator[Any]:
    """Open a producer; what it sends, all in-sync replicas have. Raises KafkaUnreachable."""
    producer = AIOKafkaProducer(**client_options(kafka), acks="all", **options)
    with unreachable(kafka):
        try:
            await producer.start()
            yield producer
        finally:
            await producer.stop()


@asynccontextmanager
async def open_admin_client(kafka: KafkaSettings) -> AsyncIterator[Any]:
    """Open a client that makes and removes topics. Raises KafkaUnreachable."""
    admin = AIOKafkaAdminClient(**client_options(kafka))
    with unreachable(kafka):
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()


@contextmanager
def unreachable(kafka: KafkaSettings) -> Iterator[None]:
    """Say of the client's errors, which name no broker, where none answers. Raises KafkaUnreachable."""
    try:
        yield
    except (ClientError, OSError) as error:
        raise KafkaUnreachable(kafka.bootstrap_servers, str(error) or repr(error)) from error
