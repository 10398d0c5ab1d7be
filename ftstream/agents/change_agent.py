"""The Faust agent of one flow and target: reads its topics into the buffer; a writer drains it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import faust
from mode.supervisors import CrashingSupervisor

from ftstream.adapters.kafka.chunk import Chunk
from ftstream.adapters.postgres.applier import Applier
from ftstream.agents.buffer import Buffer, Buffered, GapInLog
from ftstream.agents.writer import Writer
from ftstream.core.change import Partition
from ftstream.flows import Flow, Names, Site
from ftstream.settings import Settings

log = logging.getLogger(__name__)

FLUSH_TIMEOUT = 20.0
"""Seconds a stopping worker gives its last batches; what is left is read again by the next worker."""


class ChangeAgent:
    """Generic over flows: what differs between them comes from flows.py."""

    def __init__(self, app: faust.App, flow: Flow, target: Site, settings: Settings) -> None:
        names = Names(flow, settings.namespace)
        self.flow, self.target = flow, target
        tables = {names.topic(table, target.other): table.name for table in flow.tables}
        self.topics = (*tables, names.heartbeat_topic)
        self._app = app
        self._applier = Applier(flow, target, settings)
        bounds = settings.apply
        self._buffer = Buffer(bounds.buffer_rows, bounds.buffer_bytes, self._pause, self._resume)
        self._writer = Writer(flow.name, tables, self._applier, self._buffer, bounds)
        self._writing: asyncio.Future[None] | None = None
        self._declare()

    async def start(self) -> None:
        """Connect, waiting for the databases as long as it takes, and begin to write."""
        await self._writer.prepare()
        self._writing = self._app.add_future(self._writer.run())

    async def stop(self) -> None:
        """Write what was read, then let go of the databases. Nothing may be read any more."""
        if self._writing is not None:
            if not self._writing.done():
                await self._flush()
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await self._applier.close()

    def forget(self) -> None:
        """Partitions are assigned anew: what was read of them is read again."""
        self._buffer.restart({}, epoch=0)

    async def applied_offsets(self, partitions: set[Partition]) -> Mapping[Partition, int]:
        """Where the target is, waiting for it as long as it takes."""
        return await self._writer.applied_offsets(partitions)

    def begin(self, offsets: Mapping[Partition, int], epoch: int) -> None:
        """Reading begins at these offsets, in chunks of this epoch."""
        self._buffer.restart(offsets, epoch)

    def _declare(self) -> None:
        topic = self._app.topic(
            *self.topics,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
        )

        async def read(stream: Any) -> None:
            # noack: a chunk is acknowledged when it is in the database, and in order.
            async for event in stream.noack().events():
                chunk: Chunk = event.value
                try:
                    self._buffer.put(Buffered(chunk, event.ack))
                except GapInLog as error:
                    await self._app.crash(error)
                    raise

        # Its supervisor ends the process: the default one restarts the agent and commits past the failure.
        self._app.agent(
            topic, name=f"{self.flow.name}-{self.target}", supervisor_strategy=CrashingSupervisor
        )(read)

    async def _flush(self) -> None:
        try:
            await self._writer.flush(FLUSH_TIMEOUT)
        except TimeoutError:
            log.warning("flow %s: stopped with unwritten changes, to be read again", self.flow.name)

    def _partitions(self) -> set[Any]:
        return {tp for tp in self._app.consumer.assignment() if tp.topic in self.topics}

    def _pause(self) -> None:
        self._app.consumer.pause_partitions(self._partitions())

    def _resume(self) -> None:
        self._app.consumer.resume_partitions(self._partitions())
