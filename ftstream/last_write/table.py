"""The Faust Table `last_write` of an agent: the greatest write of each entity that it has seen.

A cache, of which nothing depends (last_write/seen.py): the authority is ftstream.last_write in the target.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any

import faust

from ftstream.flows import Names, Site
from ftstream.kafka.chunk import Chunk
from ftstream.kafka.errors import KafkaError
from ftstream.kafka.partition import Partition
from ftstream.last_write.changelog import Changelog
from ftstream.last_write.seen import SeenWrite, decode, encode, key_of
from ftstream.messages.change import Entity
from ftstream.messages.edit import stamp_in
from ftstream.settings import KafkaSettings

log = logging.getLogger(__name__)

MOST_ENTRIES = 20_000
"""About 300 bytes each; the entities written longest ago are forgotten first."""

RESTORE_SECONDS = 30.0
"""After which the rest of a changelog is left unread."""

AT_ONCE = 500
"""Records after which the other flows of the worker have their turn."""


class _Table(faust.Table):  # type: ignore[misc]  # Faust is not typed
    """Keeps its changelog in a way that neither holds up the worker nor ends it.

    It is not one of `app.tables`: then Faust would have the worker's streams wait for its recovery, and
    its changelog would be one more topic of the consumer group, which parts in a rolling deployment.
    """

    def __init__(self, app: faust.App, changelog: Changelog, **options: Any) -> None:
        super().__init__(app, **options)
        self._written_to = changelog

    def on_key_set(self, key: bytes, value: bytes) -> None:
        """In an agent's loop only: the partition is that of the current event."""
        self._written_to.put(self.partition_for_key(key), key, value)


class LastWrite:
    """What the agent of one flow and target keeps, and how it is kept."""

    def __init__(self, app: faust.App, names: Names, target: Site, kafka: KafkaSettings) -> None:
        self._tables = {names.topic(table, target.other): table.name for table in names.flow.tables}
        self._changelog = Changelog(kafka, names.changelog(target))
        self.table = _Table(
            app,
            self._changelog,
            name=names.last_write(target),
            help=f"last writes of {names.flow.name} that the agent to {target} has seen",
            key_type=bytes,
            value_type=bytes,
            partitions=kafka.partitions,
            schema=faust.Schema(
                key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
            ),
        )
        self._restoring: asyncio.Task[None] | None = None

    def look(self, entity: Entity) -> SeenWrite | None:
        """The greatest write that was seen of it, if it is known."""
        value = self.table.data.get(key_of(entity))
        return None if value is None else decode(value)

    async def note(self, chunk: Chunk) -> None:
        """Note the writes of a chunk; to be called in the agent's loop."""
        table = self._tables[chunk.partition.topic]
        for number, record in enumerate(chunk.records, 1):
            if found := stamp_in(record.value):
                entity_id, stamp = found
                seen = SeenWrite(*stamp, *chunk.partition, record.offset)
                if self._is_news(self.look((table, entity_id)), seen):
                    self._make_room(key := key_of((table, entity_id)))
                    self.table[key] = encode(seen)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)

    def forget(self) -> None:
        """Partitions are reassigned."""
        if self._restoring is not None:
            self._restoring.cancel()
        self.table.data.clear()

    def begin(self, partitions: Collection[Partition]) -> None:
        """Restore what is known of these partitions, while they are read."""
        self.forget()
        self._restoring = asyncio.create_task(self._restore({p.partition for p in partitions}))

    async def run(self) -> None:
        """Write the changelog until cancelled."""
        await self._changelog.run()

    async def close(self) -> None:
        self.forget()
        await self._changelog.close()

    async def _restore(self, partitions: Collection[int]) -> None:
        try:
            async with asyncio.timeout(RESTORE_SECONDS):
                async for record in self._changelog.read(partitions):
                    self._restored(record.key, record.value)
        except (KafkaError, TimeoutError) as error:
            log.warning("%s is not complete: %s", self.table.name, error or "it took too long")
        if entries := len(self.table.data):
            log.info("%s restored: %d entries", self.table.name, entries)

    def _restored(self, key: bytes | None, value: bytes | None) -> None:
        """Not by the Table's own way, which would write it once more."""
        found = decode(value) if key and value else None
        known = self.table.data.get(key)
        if found and self._is_news(decode(known) if known else None, found):
            self._make_room(key)
            self.table.data[key] = value

    def _is_news(self, known: SeenWrite | None, found: SeenWrite) -> bool:
        return known is None or found.stamp > known.stamp

    def _make_room(self, key: bytes | None) -> None:
        """So that the entries are in the order in which they were written."""
        entries = self.table.data
        entries.pop(key, None)
        if len(entries) >= MOST_ENTRIES:
            del entries[next(iter(entries))]
