"""The writer of one flow and target: takes chunks from its buffer, applies them, acknowledges them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TypeVar, assert_never

from ftstream.apply.applier import Applier
from ftstream.apply.buffer import Buffer, Buffered
from ftstream.apply.intake import Intake
from ftstream.apply.merge import Batch, Position, Span
from ftstream.apply.offsets import Offsets
from ftstream.apply.parked import ParkedRecord
from ftstream.apply.parking import Parking
from ftstream.apply.result import (
    Applied,
    Blocked,
    Fenced,
    Halt,
    Rejected,
    Retry,
    TooLarge,
    result_of,
)
from ftstream.apply.sites import ApplyFailed
from ftstream.apply.tally import Tally
from ftstream.failures import Failure, FlowHalted, Policy
from ftstream.kafka.partition import Partition
from ftstream.settings import ApplySettings

log = logging.getLogger(__name__)

T = TypeVar("T")


class Writer:
    """Applies the flow's changes in batches, in order, for as long as it takes; loses none."""

    def __init__(
        self,
        flow: str,
        applier: Applier,
        offsets: Offsets,
        parking: Parking,
        buffer: Buffer,
        intake: Intake,
        tally: Tally,
        bounds: ApplySettings,
    ) -> None:
        self._flow = flow
        self._applier = applier
        self._offsets = offsets
        self._parking = parking
        self._buffer = buffer
        self._intake = intake
        self._tally = tally
        self._bounds = bounds
        self._decoded: asyncio.Queue[tuple[Batch, list[Buffered]]] = asyncio.Queue(maxsize=1)
        self._unwritten = 0
        # What each kind of work is waiting for: several meet the same trouble, one of them tells it.
        self._troubles: dict[str, str] = {}

    async def prepare(self) -> None:
        """Connect and build the statements, waiting for the databases if need be."""
        await self.until_done("prepare", self._applier.prepare)

    async def run(self) -> None:
        """Write until cancelled, or until the flow halts. A batch is decoded while one is in flight."""
        parts = (self._fill(), self._drain(), self._parking.run())
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

    async def applied(self, partitions: Collection[Partition]) -> Mapping[Partition, Position]:
        """Say where the target is, which is where to read on; and what waits there is known."""

        async def look() -> Mapping[Partition, Position]:
            await self._parking.begin(partitions)
            return await self._offsets.applied(partitions)

        return await self.until_done("assign", look)

    async def _fill(self) -> None:
        while True:
            taken = await self._buffer.take(self._bounds.batch_rows, self._bounds.batch_bytes)
            self._unwritten += len(taken)
            await self._decoded.put((self._intake.batch([item.chunk for item in taken]), taken))

    async def _drain(self) -> None:
        while True:
            batch, taken = await self._decoded.get()
            await self.write(batch)
            for item in taken:
                item.acknowledge()
            self._unwritten -= len(taken)

    async def write(self, batch: Batch) -> None:
        """Apply the batch; what cannot be applied is parked, so that the others go on."""
        parked: list[ParkedRecord] = []
        waiting = [batch]
        while waiting:
            part = self._parking.route(waiting.pop())
            match await self.until_done("apply", partial(self._apply, part)):
                case Applied():
                    self._parking.applied(part)
                    self._tally.add(part)
                    parked += part.parked
                case Fenced():
                    waiting += await self.until_done("fence", partial(self._unapplied, part))
                case TooLarge():
                    waiting += reversed(part.halves())
                case Rejected(rows) | Blocked(rows):
                    waiting.append(part.parking(rows))
                case _ as never:
                    assert_never(never)
        if parked:
            self._told(parked)

    async def _apply(self, batch: Batch) -> Applied | Fenced | TooLarge | Rejected | Blocked:
        """Raises FlowHalted, and ApplyFailed for what is to be tried again."""
        try:
            await self._applier.apply(batch)
        except ApplyFailed as error:
            match result_of(error, batch):
                case Retry(failure):
                    raise ApplyFailed(failure) from error
                case Halt(failure):
                    raise FlowHalted(self._flow, failure) from error
                case result:
                    return result
        return Applied()

    def _told(self, parked: Sequence[ParkedRecord]) -> None:
        first = parked[0]
        self._tally.failed(parked)
        log.warning(
            "flow %s: %d changes parked: the first, of %s %s, is %s: %s (%s)",
            self._flow,
            len(parked),
            first.table,
            first.entity_id,
            first.state,
            first.failure.message,
            first.failure.hint,
            extra={"partition": first.partition},
        )
        if self._parking.unfit > self._bounds.most_parked:
            raise FlowHalted(
                self._flow,
                Failure(
                    Policy.HALT,
                    "",
                    f"changes of {self._parking.unfit} rows are parked, the last: {first.failure.message}",
                    f"{first.failure.hint}; then start the worker again",
                ),
            )

    async def _unapplied(self, batch: Batch) -> list[Batch]:
        """Return what another worker, or a commit whose answer was lost, has left of it, if anything."""
        partitions = {span.partition for span in batch.spans}
        # What it has parked is in the database, and nobody here took note.
        await self._parking.learn(partitions)
        found = await self._offsets.applied(partitions)
        applied = {partition: each.next for partition, each in found.items()}
        for span in batch.spans:
            if applied[span.partition] < span.expected:
                raise FlowHalted(self._flow, _went_back(span, applied[span.partition]))
        left = batch.after(applied)
        return [left] if left.spans else []

    async def until_done(self, work: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until it succeeds; one line in the log for each change of what is wrong.

        Raises FlowHalted.
        """
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
