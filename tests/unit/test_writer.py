"""The writer: in order, as long as it takes, without repeating what another worker applied."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import cast

import pytest

from ftstream.adapters.kafka.chunk import Chunk
from ftstream.adapters.postgres.applier import Applier, ApplyFailed
from ftstream.agents import writer as module
from ftstream.agents.buffer import Buffer, Buffered
from ftstream.agents.writer import Writer
from ftstream.core.change import Partition
from ftstream.core.failures import FENCED, FlowHalted, classify
from ftstream.core.plan import Batch
from ftstream.settings import Apply
from tests.unit.test_chunk import FakeRecord

HANDS = Partition("gfx.gfx_hands", 0)
BEATS = Partition("gfx.heartbeat", 0)
EVENT = b'{"op":"c","source":{"lsn":5,"ts_us":6},"after":{"id":"a"}}'


class FakeApplier:
    """A target that holds offsets, and fails as it is told to."""

    def __init__(self) -> None:
        self.applied: dict[Partition, int] = {HANDS: 0, BEATS: 0}
        self.batches: list[Batch] = []
        self.failures: list[str | None] = []
        self.reported = 0
        self.report_failures = 0

    async def apply(self, batch: Batch) -> None:
        if self.failures:
            raise ApplyFailed(classify(self.failures.pop(0), "no luck"))
        if any(self.applied[span.partition] != span.expected for span in batch.spans):
            raise ApplyFailed(classify(FENCED, "the applied offsets have moved"))
        self.applied |= {span.partition: span.next for span in batch.spans}
        self.batches.append(batch)

    async def applied_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return {partition: self.applied[partition] for partition in partitions}

    async def prepare(self) -> None:
        await self.apply(Batch((), ()))

    async def maintain(self) -> None:
        """Nothing to do."""

    async def record_status(self, rows: Sequence[Mapping[str, object]]) -> None:
        self.reported += 1


class Flow:
    """A writer with a fake target; `acknowledged` collects where chunks begin."""

    def __init__(self) -> None:
        self.target = FakeApplier()
        self.acknowledged: list[int] = []
        self.buffer = Buffer(100, 10_000, lambda: None, lambda: None)
        self.buffer.restart({HANDS: 0, BEATS: 0}, 1)
        self.writer = Writer(
            "gfx",
            {HANDS.topic: "gfx_hands"},
            cast(Applier, self.target),
            self.buffer,
            Apply(batch_rows=4),
        )

    def read(self, first: int, rows: int = 1, value: bytes = EVENT) -> None:
        records = [FakeRecord(first + i, b"a", value) for i in range(rows)]
        chunk = Chunk(HANDS, records, rows, 1)
        self.buffer.put(Buffered(chunk, lambda: self.acknowledged.append(first)))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.writer.run())
        yield task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def written(self) -> None:
        await self.writer.flush(5)


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch) -> Flow:
    monkeypatch.setattr(module, "_backoff", lambda tries: 0.0)
    return Flow()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("ftstream")]


async def test_chunks_are_applied_and_acknowledged_in_order(flow: Flow) -> None:
    for first in range(0, 20, 2):
        flow.read(first, rows=2)
    async with flow.running():
        await flow.written()
    assert flow.acknowledged == list(range(0, 20, 2))
    assert [change.offset for b in flow.target.batches for change in b.changes] == list(range(20))
    assert all(len(batch.changes) <= 4 for batch in flow.target.batches)


async def test_nothing_is_acknowledged_before_it_is_applied(flow: Flow) -> None:
    flow.target.failures = ["53100"] * 5
    flow.read(0)
    async with flow.running():
        while flow.target.failures:
            assert flow.acknowledged == []
            await asyncio.sleep(0)
        await flow.written()
    assert flow.acknowledged == [0]


async def test_part_that_another_worker_applied_is_left_out(flow: Flow) -> None:
    flow.target.applied[HANDS] = 2
    flow.read(0, rows=4)
    async with flow.running():
        await flow.written()
    (batch,) = flow.target.batches
    assert [change.offset for change in batch.changes] == [2, 3]
    assert flow.acknowledged == [0]


async def test_batch_that_another_worker_applied_is_only_acknowledged(flow: Flow) -> None:
    flow.target.applied[HANDS] = 4
    flow.read(0, rows=4)
    async with flow.running():
        await flow.written()
    assert flow.target.batches == []
    assert flow.acknowledged == [0]


async def test_applied_offset_that_went_back_halts(flow: Flow) -> None:
    flow.buffer.restart({HANDS: 10}, 1)
    flow.read(10)
    async with flow.running() as task:
        with pytest.raises(FlowHalted, match=r"went back from 10 to 0.*restored"):
            await asyncio.wait_for(asyncio.shield(task), 5)
    assert flow.acknowledged == []


async def test_retries_are_told_once_for_each_state(
    flow: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    flow.target.failures = ["53100"] * 4 + [None] * 3 + ["08006"] * 2 + ["40001"]
    flow.read(0)
    with caplog.at_level(logging.INFO):
        async with flow.running():
            await flow.written()
    assert [line.split(" (")[0] for line in lines(caplog)] == [
        "flow gfx: retrying: no luck",
        "flow gfx: retrying: no luck",
        "flow gfx: retrying: no luck",
        "flow gfx: recovered after 10 tries",
    ]
    assert "disk is full" in lines(caplog)[0]
    assert "is the database up" in lines(caplog)[1]


async def test_work_that_succeeds_beside_one_that_fails_says_nothing(
    flow: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    async def locked() -> None:
        for _ in range(3):
            await flow.writer.until_done("report", beside)
        if failures:
            raise ApplyFailed(classify(failures.pop(), "locked"))

    async def beside() -> None:
        """Another statement of the same flow, which no lock stops."""

    failures = ["55P03"] * 3
    with caplog.at_level(logging.INFO):
        await flow.writer.until_done("apply", locked)
    assert [line.split(" (")[0] for line in lines(caplog)] == [
        "flow gfx: retrying: locked",
        "flow gfx: recovered after 3 tries",
    ]


async def test_halt_raises_with_the_flows_name_and_applies_nothing_after(flow: Flow) -> None:
    flow.target.failures = ["42P01"]
    flow.read(0)
    flow.read(1)
    async with flow.running() as task:
        with pytest.raises(FlowHalted, match=r"flow gfx halted: no luck \(a table is missing"):
            await asyncio.wait_for(asyncio.shield(task), 5)
    assert flow.target.batches == []
    assert flow.acknowledged == []


async def test_record_that_is_no_change_halts_and_names_itself(flow: Flow) -> None:
    flow.read(0, value=b"surprise")
    async with flow.running() as task:
        with pytest.raises(FlowHalted, match=r"gfx\.gfx_hands\[0\]@0: not a change event"):
            await asyncio.wait_for(asyncio.shield(task), 5)
    assert flow.acknowledged == []


async def test_flush_gives_up_in_time(flow: Flow) -> None:
    flow.target.failures = ["53100"] * 1_000_000
    flow.read(0)
    async with flow.running():
        with pytest.raises(TimeoutError):
            await flow.writer.flush(0.05)


async def test_preparation_waits_for_the_databases(flow: Flow) -> None:
    flow.target.failures = [None, "57P03", None]
    await flow.writer.prepare()
    assert flow.target.failures == []


def test_backoff_grows_to_ten_seconds_and_no_further() -> None:
    longest: Callable[[int], float] = lambda tries: max(module._backoff(tries) for _ in range(50))  # noqa: E731
    assert longest(0) <= 0.05
    assert longest(3) > longest(0)
    assert 5 <= longest(1_000_000) <= 10
