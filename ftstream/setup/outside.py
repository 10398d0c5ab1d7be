"""What setting up needs of Kafka and Connect, as ports: tests put others in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ftstream.connect.client import ConnectClient
from ftstream.kafka.topics import (
    TopicSpec,
    delete_topics,
    ensure_topics,
    existing_topics,
    missing_topics,
)
from ftstream.settings import Settings


class Topics(Protocol):
    """Each method may raise KafkaError."""

    async def missing(self, specs: Sequence[TopicSpec]) -> list[str]:
        """The names of those that do not exist."""
        ...

    async def existing(self, specs: Sequence[TopicSpec]) -> list[str]:
        """The names of those that exist, whatever they are like."""
        ...

    async def ensure(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create those that do not exist, and return their names."""
        ...

    async def delete(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Delete those that exist, and return their names."""
        ...


class Connectors(Protocol):
    """Each method may raise ConnectError."""

    async def exists(self, name: str) -> bool: ...

    async def remove(self, name: str) -> bool:
        """Delete a connector with the position it keeps; False if there was none."""
        ...


class KafkaTopics:
    """The topics of the Kafka in the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def missing(self, specs: Sequence[TopicSpec]) -> list[str]:
        return await missing_topics(self._settings, specs)

    async def existing(self, specs: Sequence[TopicSpec]) -> list[str]:
        return await existing_topics(self._settings, specs)

    async def ensure(self, specs: Sequence[TopicSpec]) -> list[str]:
        return await ensure_topics(self._settings, specs)

    async def delete(self, specs: Sequence[TopicSpec]) -> list[str]:
        return await delete_topics(self._settings, specs)


class KafkaConnectors:
    """The connectors of the Kafka Connect in the settings."""

    def __init__(self, settings: Settings) -> None:
        self._connect = settings.connect

    async def exists(self, name: str) -> bool:
        async with ConnectClient(self._connect) as client:
            return await client.get_config(name) is not None

    async def remove(self, name: str) -> bool:
        async with ConnectClient(self._connect) as client:
            if await client.get_config(name) is None:
                return False
            # Deleting a connector keeps its position: one of the same name, made later, would look
            # for it in a slot that never had it.
            await client.forget_offsets(name)
            return await client.delete(name)
