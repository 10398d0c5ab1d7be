"""The writer of one flow and target: takes chunks from its buffer, applies them, acknowledges them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from ftstream.adapters.postgres.applier import Applier, ApplyFailed
from ftstream.agents.buffer import Buffer, Buffered
from ftstream.core.change import (
    Change,
    MalformedMessage,
    Operation,
    Partition,
    decode,
    heartbeat_time,
)
from ftstream.core.failures import Failure, FlowHalted, Policy
from ftstream.core.plan import Batch, Span
from ftstream.settings import Apply

log = logging.getLogger(__name__)

T = TypeVar("T")

MAINTENANCE_INTERVAL = 3600.0


class Writer:
    """Applies the flow's changes in batches, in order, for as long as it takes; loses none."""

    def __init__(
        self, flow: str, tables: Mapping[str, str], applier: Applier, buffer: Buffer, bounds: Apply
    ) -> None:
        """`tables`: topic to table; a topic that is not among them carries heartbeats."""
        self._flow = flow
        self._tables = tables
        self._applier = applier
        self._buffer = buffer
        self._bounds = bounds
        self._decoded: asyncio.Queue[tuple[Batch, list[Buffered]]] = asyncio.Queue(maxsize=1)
        self._applied: Counter[str] = Counter()
        self._heartbeat: float | None = None
        self._unwritten = 0
        # What each kind of work is waiting for: several meet the same trouble, one of them tells it.
        self._troubles: dict[str, str] = {}

    async def prepare(self) -> None:
        """Connect and build the statements, waiting for the databases if need be."""
        await self.until_done("prepare", self._applier.prepare)

    async def run(self) -> None:
        """Write until cancelled, or until the flow halts. A batch is decoded while one is in flight."""
        parts = (self._fill(), self._drain(), self._report(), self._maintain())
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def flush(self, timeout: float) -> None:
        """Wait until everything read so far is applied; TimeoutError when the time is up."""
        async with asyncio.timeout(timeout):
            while self._unwritten or self._buffer.rows:
                await asyncio.sleep(0.01)

    async def applied_offsets(self, partitions: set[Partition]) -> Mapping[Partition, int]:
        """Where the target is, which is where to read on."""
        return await self.until_done("assign", lambda: self._applier.applied_offsets(partitions))

    async def _fill(self) -> None:
        while True:
            taken = await self._buffer.take(self._bounds.batch_rows, self._bounds.batch_bytes)
            self._unwritten += len(taken)
            await self._decoded.put((self._decode(taken), taken))

    async def _drain(self) -> None:
        while True:
            batch, taken = await self._decoded.get()
            await self._write(batch)
            for item in taken:
                item.acknowledge()
            self._unwritten -= len(taken)
            self._applied.update(change.table for change in batch.changes)
            self._heartbeat = batch.heartbeat or self._heartbeat

    async def _report(self) -> None:
        """Keep sync_status up to date, once a second: it is for people, and may lag."""
        while True:
            await asyncio.sleep(1)
            applied, self._applied = self._applied, Counter()
            heartbeat, self._heartbeat = self._heartbeat, None
            if applied or heartbeat is not None:
                await self._record(applied, heartbeat)

    async def _record(self, applied: Counter[str], heartbeat: float | None) -> None:
        rows = [
            {
                "source": self._flow,
                "entity_type": table,
                "records": applied[table],
                "heartbeat": heartbeat,
            }
            for table in self._tables.values()
        ]
        await self.until_done("report", partial(self._applier.record_status, rows))

    async def _maintain(self) -> None:
        while True:
            await self.until_done("maintain", self._applier.maintain)
            await asyncio.sleep(MAINTENANCE_INTERVAL)

    def _decode(self, taken: Sequence[Buffered]) -> Batch:
        try:
            return self._batch(taken)
        except MalformedMessage as error:
            hint = "look at that record; to go on without it, set the applied offset past it"
            raise FlowHalted(self._flow, Failure(Policy.HALT, "", str(error), hint)) from error

    def _batch(self, taken: Sequence[Buffered]) -> Batch:
        changes: list[Change] = []
        spans: dict[Partition, Span] = {}
        heartbeat: float | None = None
        for item in taken:
            chunk = item.chunk
            partition = chunk.partition
            table = self._tables.get(partition.topic)
            position: int | None = None
            for record in chunk.records:
                if table is None:
                    heartbeat = heartbeat_time(record.value) or heartbeat
                elif change := decode(table, *partition, record.offset, record.key, record.value):
                    changes.append(change)
                    position = change.source_position
                    if change.operation is Operation.TRUNCATE:
                        log.warning(
                            "flow %s: TRUNCATE of %s is recorded in sync_log, not repeated: the"
                            " target keeps its rows",
                            self._flow,
                            table,
                        )
            first = spans[partition].expected if partition in spans else chunk.first
            spans[partition] = Span(partition, first, chunk.next, position)
        return Batch(tuple(changes), tuple(spans.values()), heartbeat)

    async def _write(self, batch: Batch) -> None:
        remaining = batch

        async def attempt() -> None:
            nonlocal remaining
            try:
                await self._applier.apply(remaining)
            except ApplyFailed as error:
                if error.failure.policy is not Policy.FENCED:
                    raise
                remaining = await self._unapplied(batch)
                if remaining.spans:
                    await self._applier.apply(remaining)

        await self.until_done("apply", attempt)

    async def _unapplied(self, batch: Batch) -> Batch:
        """What another worker, or a commit whose answer was lost, has left of it."""
        partitions = {span.partition for span in batch.spans}
        applied = await self._applier.applied_offsets(partitions)
        for span in batch.spans:
            if applied[span.partition] < span.expected:
                raise FlowHalted(self._flow, _went_back(span, applied[span.partition]))
        return batch.after(applied)

    async def until_done(self, work: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until it succeeds; one line in the log for each change of what is wrong."""
        for tries in itertools.count():
            try:
                result = await attempt()
            except ApplyFailed as error:
                if error.failure.policy is Policy.HALT:
                    raise FlowHalted(self._flow, error.failure) from error
                self._trouble(work, error.failure)
                await asyncio.sleep(_backoff(tries))
            else:
                self._over(work, tries)
                return result
        raise AssertionError("unreachable: the loop has no end")

    def _trouble(self, work: str, failure: Failure) -> None:
        state = "connection" if failure.connection else failure.sqlstate
        if state not in self._troubles.values():
            hint = f" ({failure.hint})" if failure.hint else ""
            log.warning("flow %s: retrying: %s%s", self._flow, failure.message, hint)
        self._troubles[work] = state

    def _over(self, work: str, tries: int) -> None:
        if self._troubles.pop(work, None) is not None and not self._troubles:
            log.warning("flow %s: recovered after %d tries", self._flow, tries)


def _went_back(span: Span, applied: int) -> Failure:
    where = f"{span.partition.topic}[{span.partition.partition}]"
    return Failure(
        Policy.HALT,
        "",
        f"{where}: the applied offset went back from {span.expected} to {applied}",
        "was the target restored? Start the worker again: it reads on from there",
    )


def _backoff(tries: int) -> float:
    """Seconds to wait, with jitter, so that workers do not come back all at once."""
    return random.uniform(0.5, 1) * min(10.0, 0.05 * 2.0 ** min(tries, 10))
