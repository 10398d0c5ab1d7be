"""Faust's Kafka transport, changed in four ways: it delivers chunks, starts where the target
database is, commits what was acknowledged last, and leaves closing the client to its own thread.

Faust delivers one event per record, at 60 to 120 microseconds of CPU each (four asyncio tasks,
sensors, locks). Here one event carries a chunk of records, so that this cost is paid once in
hundreds of records. What Faust counts in events (buffers, acks) it counts in chunks.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from ftstream.kafka.chunk import Chunk, Record, chunks
from ftstream.kafka.partition import Partition
from ftstream.kafka.unpacking import bound_batches
from ftstream.logs import SERVICES

log = logging.getLogger(__name__)

CHUNK_BYTES = 2 * 2**20
"""Small enough that a buffer's bounds mean something, large enough to make a chunk's cost vanish."""

COMMIT_SECONDS = 5.0
"""For the last commit of a worker that stops."""

PAUSED_SECONDS = 0.02
FETCH_WAIT_MS = 100
FETCH_BYTES = 16 * 2**20
"""Of one answer of the broker, over all partitions (the client's default is 50 MiB)."""


class _Thread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # Faust is not typed
    """Where the client really reads, with bounds that Faust has no settings for."""

    logger = SERVICES

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # Whatever Faust calls from the main thread as if it were this one's: uvloop would crash over it.
        super().__init__(*arguments, thread_loop=asyncio.SelectorEventLoop(), **options)
        self._epochs: dict[TP, int] = {}

    def close(self) -> None:
        """Leave it to the thread's own end, which closes the client.

        Faust calls this when a rebalance ends in a worker that is about to stop, and closes the client in the
        main thread's loop: with uvloop the process crashes now and then, else its last commit never returns.
        """

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Say nothing: Faust would ask to report a bug after some idle minutes, since nobody commits then."""

    async def seek_from(self, offsets: Mapping[TP, int], epoch: int) -> None:
        """Records fetched from here on carry this epoch. Raises IllegalStateError if taken away."""
        await self.call_thread(self._seek_from, self._ensure_consumer(), offsets, epoch)

    async def _seek_from(self, consumer: Any, offsets: Mapping[TP, int], epoch: int) -> None:
        for tp, offset in offsets.items():
            consumer.seek(tp, offset)
            self._epochs[tp] = epoch

    async def ends(self, partitions: Collection[TP]) -> dict[TP, int]:
        """Say where partitions end, whoever reads them."""
        found: dict[TP, int] = await self.call_thread(
            self._ensure_consumer().end_offsets, list(partitions)
        )
        return found

    async def _fetch_records(self, *arguments: Any, **options: Any) -> dict[TP, Fetched]:
        # A fetch may begin before a rebalance and return after the seek that follows it, so neither
        # Faust's generation then nor the one now tells which of the two its records belong to. Seeks
        # run in this thread too: here it is known.
        found = await super()._fetch_records(*arguments, **options)
        return {tp: Fetched(records, self._epochs.get(tp, 0)) for tp, records in found.items()}

    def _create_worker_consumer(self, transport: Any) -> Any:
        bound_batches()
        consumer = super()._create_worker_consumer(transport)
        # A fetch that waits on idle partitions holds up the busy ones of the same broker: Faust's 1.5 s
        # would be seen as latency whenever a batch was just read.
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._fetch_max_bytes = FETCH_BYTES
        return consumer


class Reader(Protocol):
    """Who reads some topics, from where its target database is."""

    @property
    def topics(self) -> Sequence[str]: ...

    def forget(self) -> None:
        """Drop what was read: partitions are reassigned."""

    async def locate(self, partitions: set[Partition]) -> Mapping[Partition, int] | None:
        """Say where to read on, None for nowhere; waits for the target as long as it takes."""

    def begin(self, offsets: Mapping[Partition, int], epoch: int) -> None:
        """Records come from these offsets on, in chunks of this epoch; others are to be dropped."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Records of one partition, and the epoch that they were fetched in."""

    records: Sequence[Record]
    epoch: int


class Consumer(driver.Consumer):  # type: ignore[misc]  # Faust is not typed
    """Delivers chunks; seeks to the applied offsets, whatever the group has committed."""

    logger = SERVICES

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._epochs = itertools.count(1)

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def ends(self, partitions: Collection[TP]) -> dict[TP, int]:
        """Say where partitions end, whoever reads them."""
        ends: dict[TP, int] = await self._thread.ends(partitions)
        return ends

    async def on_stop(self) -> None:
        """Commit what was acknowledged, for a while: the group's offsets are for people to look at."""
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self.commit_and_end_transactions()
        except TimeoutError:
            # Seen now and then, in tests that stop workers by the hundred: Faust's commit never returns.
            log.warning("the group's offsets were not committed in %.0f s", COMMIT_SECONDS)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        if not self.app.should_stop:
            log.info("%d partitions assigned", len(assigned))
        for reader in self.app.readers:
            reader.forget()  # Faust seeks only where something is assigned
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Called by Faust after every assignment, before records flow.

        It returns at once, with all partitions paused: Faust gives it broker_request_timeout, after
        which the worker would live on without ever reading again, and a database can be down for
        longer. Each reader goes on when its own target has answered.
        """
        generation = self.app.consumer_generation_id
        assigned = {tp for tp in self.assignment() if not self._is_changelog_tp(tp)}
        self.pause_partitions(assigned)
        self._read_offset.update(dict.fromkeys(assigned))
        self._committed_offset.update(dict.fromkeys(assigned))
        for reader in self.app.readers:
            reader.forget()
        self.app.add_future(self._begin_all(assigned, generation))

    async def _begin_all(self, assigned: set[TP], generation: int) -> None:
        begun = await asyncio.gather(
            *(
                self._begin(
                    reader, {tp for tp in assigned if tp.topic in reader.topics}, generation
                )
                for reader in self.app.readers
            )
        )
        if all(begun):
            log.info("ready")

    async def _begin(self, reader: Reader, assigned: set[TP], generation: int) -> bool:
        """Let one reader read on from where its target is; False if partitions moved meanwhile."""
        if not assigned:
            return True
        offsets = await reader.locate({Partition(*tp) for tp in assigned})
        if offsets is None or generation != self.app.consumer_generation_id:
            return False
        epoch = next(self._epochs)
        try:
            reader.begin(offsets, epoch)
            await self._thread.seek_from({tp: offsets[Partition(*tp)] for tp in assigned}, epoch)
        except IllegalStateError:
            return False  # taken away: another assignment follows
        if generation != self.app.consumer_generation_id:
            return False
        self.resume_partitions(assigned)
        return True

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                await self._deliver_next()
        except (*self.consumer_stopped_errors, asyncio.CancelledError):
            if not self.transport.app.should_stop:
                raise
        except Exception as error:
            # A failed fetcher task would leave a worker that is alive and deaf.
            await self.app.crash(error)
            raise

    async def _deliver_next(self) -> None:
        if self.flow_active and not self._get_active_partitions():
            await asyncio.sleep(PAUSED_SECONDS)  # Faust would sleep for a second
            return
        found, _ = await self._wait_next_records(1.0)
        await asyncio.sleep(0)
        # Partitions that were paused since the fetch are delivered too: the client does not fetch these
        # records again.
        for tp, fetched in (found or {}).items():
            for chunk in chunks(Partition(*tp), fetched.records, CHUNK_BYTES, fetched.epoch):
                if not self.flow_active:
                    return  # a rebalance: everything is sought and read again
                await self.wait_first(
                    self.callback(self._chunk_message(tp, chunk)), self.suspend_flow.wait()
                )

    def _chunk_message(self, tp: TP, chunk: Chunk) -> Any:
        message = self._to_message(tp, chunk.records[-1])
        message.value = chunk
        return message

    def _new_offset(self, tp: TP) -> int | None:
        """Return what to commit: agents acknowledge in order, so the newest acknowledged chunk covers all."""
        acked = self._acked[tp]
        if not acked:
            return None
        newest: int = max(acked)
        self._acked_index[tp].difference_update(acked)
        acked.clear()
        return newest + 1


class Transport(driver.Transport):  # type: ignore[misc]
    """The aiokafka transport with this consumer."""

    Consumer = Consumer
