"""Publishes what has been written on Supabase: from its outbox to the topics, one worker at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

import psycopg

from ftstream.capture.outbox import Outbox, OutboxEntry
from ftstream.kafka.errors import KafkaError
from ftstream.kafka.publishing import Message, Publishing
from ftstream.retry import Trouble
from ftstream.settings import Settings

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
"""Between two looks at an outbox that was empty; `wake` makes it shorter."""

RETRY_SECONDS = 1.0

PUBLISH_SECONDS = 10.0
"""In which Kafka takes what is sent, or it is sent again."""

TURN_SECONDS = 30.0
"""After which PostgreSQL ends the turn of a publisher that is frozen."""

LEASE_SECONDS = 15.0
"""After which a publisher that was frozen sends nothing any more: it may be another's turn by now. With
the time that Kafka has, less than a turn."""


class Publisher:
    """Takes changes in the order in which they were written, and out once Kafka has them."""

    def __init__(self, settings: Settings, topics: Mapping[str, str]) -> None:
        """`topics`: table to topic."""
        self._topics = topics
        self._outbox = Outbox(settings, list(topics), TURN_SECONDS)
        self._publishing = Publishing(settings.kafka, PUBLISH_SECONDS)
        self._awake = asyncio.Event()
        self._trouble = Trouble(
            log,
            "changes of Supabase wait in its outbox",
            over="changes of Supabase are published again",
        )

    def wake(self) -> None:
        """Look at once: something may have been written. A hint, nothing depends on it."""
        self._awake.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            try:
                done = await self._look()
            except (psycopg.Error, KafkaError) as error:
                self._trouble.met(error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._trouble.over()
            if not done:
                await self._rest()

    async def close(self) -> None:
        await self._publishing.close()
        await self._outbox.close()

    async def _look(self) -> bool:
        """Publish what waits, if anything does; say whether it did, so that there may be more."""
        return await self._outbox.waiting() and await self._publish()

    async def _publish(self) -> bool:
        async with self._outbox.turn() as turn:
            if turn is None:
                return False
            since = time.monotonic()
            entries = await turn.next()
            if not entries or time.monotonic() - since > LEASE_SECONDS:
                return False
            done = await self._publishing.publish([self._message(entry) for entry in entries])
            await turn.published(entries[:done])
            return True

    def _message(self, entry: OutboxEntry) -> Message:
        return Message(self._topics[entry.table], entry.entity_id.encode(), entry.payload.encode())

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._awake.wait()
        except TimeoutError:
            return
        finally:
            self._awake.clear()
