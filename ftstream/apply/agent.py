"""The Faust agent of one flow and target: reads its topics into the buffer; a writer drains it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import faust
from aiokafka.errors import KafkaError
from faust.types import TP
from mode.supervisors import CrashingSupervisor

from ftstream import metrics, notification
from ftstream.apply.applier import applier_of
from ftstream.apply.buffer import HINT, Buffer, Buffered, GapInLog
from ftstream.apply.continuity import Break, Discontinuity, discontinuities, summary
from ftstream.apply.housekeeping import Housekeeper, Notifier
from ftstream.apply.intake import Decode, Intake
from ftstream.apply.merge import Position
from ftstream.apply.offsets import Offsets
from ftstream.apply.parked_store import ParkedChanges
from ftstream.apply.parking import Parking
from ftstream.apply.pruning import Pruning
from ftstream.apply.schema import Schema
from ftstream.apply.sites import ApplyFailed, Sites
from ftstream.apply.tally import Tally
from ftstream.apply.writer import Writer
from ftstream.failures import Failure, FlowHalted, Halted, Policy
from ftstream.flows import Capture, CaptureNames, Flow, Names, Site, log_captures
from ftstream.kafka.chunk import Chunk
from ftstream.kafka.errors import KafkaUnreachable
from ftstream.kafka.partition import Partition
from ftstream.last_write.seen import nothing_seen
from ftstream.last_write.table import LastWrite
from ftstream.logs import about
from ftstream.messages import avro
from ftstream.messages.avro_schema import SchemaFileError
from ftstream.messages.change import decode
from ftstream.messages.edit import decode_edit
from ftstream.messages.kept_schemas import Readable
from ftstream.notification import Notification
from ftstream.retry import Trouble, until_done
from ftstream.settings import Settings, SettingsError

log = logging.getLogger(__name__)

FLUSH_TIMEOUT = 20.0
"""Seconds a stopping worker gives its last batches; what is left is read again by the next worker."""


SCHEMA_SECONDS = 30.0

START_SECONDS = 10.0
"""For which the other flows of a worker wait for one that cannot be prepared."""


class _Topics(faust.Topic):  # type: ignore[misc]  # Faust is not typed
    """Several topics of one agent, which `faust agents` can name."""

    def get_topic_name(self) -> str:
        return ", ".join(self.topics)


class ChangeAgent:
    """Generic over flows: what differs between them comes from flows.py.

    A flow that halts pauses its own partitions, for good; the others of the worker go on.
    """

    def __init__(
        self,
        app: faust.App,
        flow: Flow,
        target: Site,
        settings: Settings,
        notifier: Notifier,
        keeper: Housekeeper,
        status: Housekeeper,
    ) -> None:
        """`keeper`: of the target; `status`: of Supabase, where sync_status is."""
        names = Names(flow, settings.namespace)
        self.flow, self.target = flow, target
        self.halted: Halted | None = None
        self._app = app
        self._settings = settings
        self._kafka = settings.kafka
        self._notifier = notifier
        self._keeper, self._status = keeper, status
        tables = {names.topic(table, target.other): table.name for table in flow.tables}
        self._heartbeats = _heartbeats(flow, settings.namespace)
        self.topics = (*tables, *([self._heartbeats] if self._heartbeats else []))
        self._changes = [
            Partition(topic, n) for topic in tables for n in range(settings.kafka.partitions)
        ]
        self._schemas = Readable(flow, settings)
        self._last_write = LastWrite(app, names, target, settings.kafka) if flow.two_way else None
        self._wire(tables, settings)
        self._preparing: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Future[None]] = []
        self._declare()
        metrics.HALTED.labels(flow.name, target.value).set(0)

    def _wire(self, tables: Mapping[str, str], settings: Settings) -> None:
        bounds = settings.apply
        self._sites = Sites(self.target, settings)
        schema = Schema(self.flow, self.target, self._notify)
        look = self._last_write.look if self._last_write else nothing_seen
        self._applier = applier_of(self.flow, self._sites, schema, bounds, self._notify, look)
        decoding = self._decode()
        self._offsets = Offsets(self._sites)
        self._buffer = Buffer(bounds.buffer_rows, bounds.buffer_bytes, self._pause, self._resume)
        self._parking = Parking(
            self.flow.name,
            self._applier,
            self._offsets,
            ParkedChanges(self.flow, self._sites),
            decoding,
            self._ends,
            self._notify,
            bounds.dead_after_seconds,
        )
        self._tally = Tally(
            self.flow.name,
            self.target,
            {table.name: self.flow.entity_type(table) for table in self.flow.tables},
            self._keeper,
            bounds,
            # Of a flow captured by batch the runs keep it.
            self._status if self._keeps_status else None,
        )
        intake = Intake(self.flow.name, tables, decoding, self._notify)
        self._writer = Writer(
            self.flow.name,
            self._applier,
            self._offsets,
            self._parking,
            self._buffer,
            intake,
            self._tally,
            bounds,
        )

    def _decode(self) -> Decode:
        match self.flow.capture:
            case Capture.LOG:
                return decode
            case Capture.OUTBOX:
                return partial(decode_edit, self.target.other.value)
            case Capture.BATCH:
                return partial(avro.decode, self._schemas)

    @property
    def _keeps_status(self) -> bool:
        """Supabase has sync_status: of a flow that is carried there the agent of that direction keeps it."""
        first = self.target is Site.SUPABASE or Site.SUPABASE not in self.flow.targets
        return first and self.flow.capture is not Capture.BATCH

    async def start(self) -> None:
        """Connect, and begin to write; a flow that cannot is `halted` at once.

        A site that does not answer is waited for as long as it takes, the other flows not with it.
        """
        self._preparing = asyncio.create_task(self._prepare())
        await asyncio.wait([self._preparing], timeout=START_SECONDS)
        if self._preparing.done():
            try:
                await self._preparing
            except Halted as error:
                self._halt(error)
                return
        work = [self._write(), self._tally.run(), self._watch_schema()]
        if self.flow.capture is Capture.OUTBOX and self.target is self.flow.targets[0]:
            work.append(Pruning(self.flow, self._settings).run())
        if self._last_write:
            work.append(self._last_write.run())
        self._tasks = [self._app.add_future(each) for each in work]

    async def _prepare(self) -> None:
        """Raises FlowHalted."""
        if self.flow.capture is Capture.BATCH:
            try:
                self._schemas.load()
            except (SchemaFileError, SettingsError, OSError) as error:
                unread = Failure(Policy.HALT, "", str(error), "then start the worker again")
                raise FlowHalted(self.flow.name, unread) from error
        await self._writer.prepare()

    async def stop(self) -> None:
        """Write what was read, then let go of the databases. Nothing may be read any more."""
        if self._tasks and self.halted is None:
            await self._flush()
        ending = [*self._tasks, *([self._preparing] if self._preparing else [])]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        if self._last_write:
            await self._last_write.close()
        await self._sites.close()

    async def halt(self, reason: Halted) -> None:
        """Do nothing any more, having applied nothing of what cannot be applied."""
        if self.halted is None:
            self._halt(reason)
            self._buffer.restart({}, epoch=0)
            self._pause()
            await self._app.flow_halted(reason)

    def forget(self) -> None:
        """Partitions are reassigned: what was read of them is read again."""
        self._buffer.restart({}, epoch=0)
        self._parking.forget()
        if self._last_write:
            self._last_write.forget()

    async def locate(self, partitions: set[Partition]) -> Mapping[Partition, int] | None:
        """Say where the target is, once it answers; None if the flow is halted, or halts over it."""
        if self.halted is not None:
            return None
        try:
            await self._prepared()
            return await self._located(partitions)
        except Halted as error:
            await self.halt(error)
            return None

    def begin(self, offsets: Mapping[Partition, int], epoch: int) -> None:
        """Reading begins at these offsets, in chunks of this epoch."""
        self._buffer.restart(offsets, epoch)
        if self._last_write:
            self._last_write.begin(offsets)

    def _halt(self, reason: Halted) -> None:
        self.halted = reason
        metrics.HALTED.labels(self.flow.name, self.target.value).set(1)
        self._notifier.notify(notification.halted(self.flow.name, str(reason)))

    def _notify(self, found: Notification) -> None:
        """To the log at once, to Supabase as soon as it answers."""
        log.warning("%s: %s", found.title, found.message)
        self._notifier.notify(found)

    @property
    def table(self) -> faust.Table | None:
        """The Faust Table of last writes, of a flow that both sites may write."""
        return self._last_write.table if self._last_write else None

    def _declare(self) -> None:
        topic = _Topics(
            self._app,
            topics=self.topics,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
        )

        async def read(stream: Any) -> None:
            about(flow=self.flow.name, target=self.target.value)
            # noack: a chunk is acknowledged when it is in the database, and in order.
            async for event in stream.noack().events():
                chunk: Chunk = event.value
                try:
                    self._buffer.put(Buffered(chunk, event.ack))
                except GapInLog as error:
                    await self._flush()  # up to there all is well: `accept-loss` begins there
                    await self.halt(error)
                else:
                    if self._last_write:
                        await self._last_write.note(chunk)

        read.__doc__ = f"applies what flow {self.flow.name} carries to {self.target}"
        # Its supervisor ends the process: the default one restarts the agent and commits past the failure.
        self._app.agent(
            topic,
            name=f"{self.flow.name}-{self.target}",
            supervisor_strategy=CrashingSupervisor,
        )(read)

    async def _write(self) -> None:
        about(flow=self.flow.name, target=self.target.value)
        try:
            await self._prepared()
            await self._writer.run()
        except Halted as error:
            await self.halt(error)

    async def _prepared(self) -> None:
        """Raises FlowHalted."""
        if self._preparing is not None:
            await self._preparing

    async def _watch_schema(self) -> None:
        """A column that the target gets shows in no image."""
        while True:
            await asyncio.sleep(SCHEMA_SECONDS)
            # Connections of its own: a site that does not answer must not hold up what needs none of it.
            sites = Sites(self.target, self._settings)
            try:
                await self._applier.prepare(sites)
            except ApplyFailed as error:
                if error.failure.policy is Policy.HALT:
                    return await self.halt(FlowHalted(self.flow.name, error.failure))
                # What is wrong shows when something is applied.
                log.debug("flow %s: catalogs not read: %s", self.flow.name, error)
            finally:
                await sites.close()

    async def _flush(self) -> None:
        try:
            await self._writer.flush(FLUSH_TIMEOUT)
        except TimeoutError:
            log.warning("flow %s: stopped with unwritten changes, to be read again", self.flow.name)

    async def _located(self, partitions: set[Partition]) -> Mapping[Partition, int]:
        """Raises FlowHalted if Kafka's log does not go on where the target is."""
        applied = await self._writer.applied(partitions)
        counts = {p.topic: self._kafka.partitions for p in self._changes}
        if self._heartbeats:
            counts[self._heartbeats] = 1
        offsets = {partition: position.next for partition, position in applied.items()}
        breaks = await self._breaks(applied, counts)
        for found in breaks:
            if found.partition.topic == self._heartbeats and found.kind is not Break.REPARTITIONED:
                # Nothing is lost with a heartbeat.
                resume = partial(self._offsets.resume, found.partition, found.applied, found.resume)
                await self._writer.until_done("resume", resume)
                offsets[found.partition] = found.resume
        lost = [found for found in breaks if found.partition.topic != self._heartbeats]
        if lost:
            raise FlowHalted(self.flow.name, Failure(Policy.HALT, "", summary(lost), HINT))
        return offsets

    async def _breaks(
        self, applied: Mapping[Partition, Position], counts: Mapping[str, int]
    ) -> Sequence[Discontinuity]:
        return await until_done(
            partial(discontinuities, self._kafka, applied, counts),
            Trouble(log, f"flow {self.flow.name}: retrying"),
            KafkaUnreachable,
        )

    async def _ends(self) -> Mapping[Partition, int] | None:
        """Say where the change topics end, partitions of other workers included; None: nobody knows."""
        try:
            ends = await self._app.consumer.ends([TP(*partition) for partition in self._changes])
        except KafkaError as error:
            log.debug("flow %s: Kafka does not tell where topics end: %s", self.flow.name, error)
            return None
        return {Partition(*tp): end for tp, end in ends.items()}

    def _partitions(self) -> set[Any]:
        return {tp for tp in self._app.consumer.assignment() if tp.topic in self.topics}

    def _pause(self) -> None:
        self._app.consumer.pause_partitions(self._partitions())

    def _resume(self) -> None:
        if self.halted is None:
            self._app.consumer.resume_partitions(self._partitions())


def _heartbeats(flow: Flow, namespace: str) -> str | None:
    """The topic of the flow's heartbeats. A connector that flows share sends them to no agent."""
    own = (capture for capture in log_captures([flow]) if not capture.outbox)
    return next((CaptureNames(capture, namespace).heartbeat_topic for capture in own), None)
