"""The writer: in order, as long as it takes, without repeating what another worker applied."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import pytest

from ftstream.apply import parking, writer
from ftstream.apply.applier import Applier
from ftstream.apply.buffer import Buffer, Buffered
from ftstream.apply.housekeeping import Housekeeper
from ftstream.apply.intake import Intake
from ftstream.apply.merge import Batch, FromLog, FromParked, Position
from ftstream.apply.offsets import Offsets
from ftstream.apply.parked import ParkedRecord, ParkedState
from ftstream.apply.parked_store import Parked, ParkedChanges
from ftstream.apply.parking import Parking
from ftstream.apply.sites import ApplyFailed
from ftstream.apply.tally import Tally
from ftstream.apply.writer import Writer
from ftstream.failures import FENCED, Failure, FlowHalted, Severity, classify
from ftstream.flows import Site
from ftstream.kafka.chunk import Chunk
from ftstream.kafka.partition import Partition
from ftstream.messages.change import Entity, decode
from ftstream.notification import Notification
from ftstream.settings import ApplySettings
from tests.unit.test_chunk import FakeRecord

HANDS = Partition("gfx.gfx_hands", 0)
BEATS = Partition("gfx.heartbeat", 0)
EVENT = b'{"op":"c","source":{"lsn":5,"ts_us":6},"after":{"id":"a"}}'
PARTIAL = b'{"op":"u","source":{},"after":{"id":"a","x":"\\u0000ftstream: unchanged value"}}'


def of_row(key: bytes, event: bytes = EVENT) -> bytes:
    """The event as one of another row."""
    return event.replace(b'"id":"a"', b'"id":"%s"' % key)


class FakeTarget:
    """A target that holds offsets and parked changes, and fails as it is told to."""

    def __init__(self) -> None:
        self.offsets: dict[Partition, int] = {HANDS: 0, BEATS: 0}
        self.batches: list[Batch] = []
        self.parked: list[ParkedRecord] = []
        self.failures: list[str | None] = []
        self.unfit: dict[str, str] = {}
        """Entity id to the SQLSTATE that its changes fail with."""
        self.locked: set[str] = set()
        self.lost_answers = 0
        self.counted: list[bool] = []

    # -- as Applier

    async def apply(self, batch: Batch) -> None:
        if self.failures:
            raise ApplyFailed(classify(self.failures.pop(0), "no luck"))
        if any(self.offsets[span.partition] != span.expected for span in batch.spans):
            raise ApplyFailed(classify(FENCED, "the applied offsets have moved"))
        held = {e for e in batch.entities if e[1] in self.locked}
        if held:
            raise ApplyFailed(classify("55P03", "locked"), held)
        for _, entity_id in sorted(batch.entities):
            if entity_id in self.unfit:
                raise ApplyFailed(classify(self.unfit[entity_id], "does not fit"))
        self.offsets |= {span.partition: span.next for span in batch.spans}
        self.batches.append(batch)
        gone = batch.entities if isinstance(batch.fence, FromParked) else batch.settled
        self.parked = [a for a in self.parked if (a.table, a.entity_id) not in gone]
        self.parked += batch.parked
        if self.lost_answers:
            self.lost_answers -= 1
            raise ApplyFailed(classify(None, "server closed the connection"))

    async def prepare(self) -> bool:
        await self.apply(Batch((), FromLog()))
        return False

    # -- as Offsets

    async def applied(self, partitions: Iterable[Partition]) -> dict[Partition, Position]:
        return {partition: Position(self.offsets[partition], None) for partition in partitions}

    # -- as ParkedChanges

    async def queued(self, partitions: Iterable[Partition]) -> set[Entity]:
        return {(a.table, a.entity_id) for a in self.parked}

    async def waiting(self, entities: Collection[Entity]) -> set[Entity]:
        return await self.queued([]) & set(entities)

    async def due(self, partitions: Iterable[Partition]) -> list[Parked]:
        return [
            Parked(a.table, a.entity_id, a.operation is None, a.at, a.offset, a.key, a.message)
            for a in self.parked
            if a.state is ParkedState.PARKED
        ]

    async def postpone(
        self, changes: Sequence[Parked], failure: Failure, *, counted: bool, dead_after: float
    ) -> bool:
        self.counted.append(counted)
        return counted

    # -- as Housekeeper

    async def maintain(self, keep: ApplySettings) -> None:
        """Nothing to do."""

    async def record_status(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Nobody looks."""


class Flow:
    """A writer with a fake target; `acknowledged` collects where chunks begin."""

    def __init__(self) -> None:
        self.target = FakeTarget()
        self.acknowledged: list[int] = []
        self.told: list[Notification] = []
        self.ends = 0
        self.buffer = Buffer(100, 10_000, lambda: None, lambda: None)
        self.buffer.restart({HANDS: 0, BEATS: 0}, 1)
        applier, offsets = cast(Applier, self.target), cast(Offsets, self.target)
        self.parking = Parking(
            "gfx",
            applier,
            offsets,
            cast(ParkedChanges, self.target),
            decode,
            self._ends,
            self.told.append,
            60,
        )
        tables = {HANDS.topic: "gfx_hands"}
        self.writer = Writer(
            "gfx",
            applier,
            offsets,
            self.parking,
            self.buffer,
            Intake("gfx", tables, decode, self.told.append),
            Tally(
                "gfx",
                Site.SUPABASE,
                {t: t for t in tables.values()},
                cast(Housekeeper, self.target),
                ApplySettings(),
                status=None,
            ),
            ApplySettings(batch_rows=4, most_parked=10),
        )

    async def _ends(self) -> Mapping[Partition, int]:
        return {HANDS: self.ends}

    def read(self, first: int, rows: int = 1, value: bytes = EVENT, key: bytes = b"a") -> None:
        self.read_keys(first, [key] * rows, value)

    def read_keys(self, first: int, keys: Sequence[bytes], value: bytes = EVENT) -> None:
        records = [FakeRecord(first + i, key, of_row(key, value)) for i, key in enumerate(keys)]
        chunk = Chunk(HANDS, records, len(keys), 1)
        self.buffer.put(Buffered(chunk, lambda: self.acknowledged.append(first)))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        await self.writer.applied({HANDS})
        task = asyncio.create_task(self.writer.run())
        yield task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def written(self) -> None:
        await self.writer.flush(5)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0)

    @property
    def written_offsets(self) -> list[int]:
        return [change.offset for batch in self.target.batches for change in batch.changes]


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch) -> Flow:
    monkeypatch.setattr(writer, "_backoff", lambda tries: 0.0)
    monkeypatch.setattr(parking, "ROUND_SECONDS", 0.0)
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
    flow.target.offsets[HANDS] = 2
    flow.read(0, rows=4)
    async with flow.running():
        await flow.written()
    (batch,) = flow.target.batches
    assert [change.offset for change in batch.changes] == [2, 3]
    assert flow.acknowledged == [0]


async def test_batch_that_another_worker_applied_is_only_acknowledged(flow: Flow) -> None:
    flow.target.offsets[HANDS] = 4
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


async def test_record_that_is_no_change_is_dead_whole_and_the_flow_goes_on(flow: Flow) -> None:
    flow.read(0, value=b"surprise")
    flow.read(1)
    async with flow.running():
        await flow.written()
    (dead,) = flow.target.parked
    assert (dead.state, dead.offset, dead.key, dead.message) == (
        ParkedState.DEAD,
        0,
        b"a",
        b"surprise",
    )
    assert "not a change event" in dead.failure.message
    assert flow.written_offsets == [1]
    assert flow.acknowledged == [0, 1]


async def test_change_that_does_not_fit_is_parked_alone(flow: Flow) -> None:
    flow.target.unfit = {"b": "22003"}
    flow.read_keys(0, [b"a", b"b", b"c", b"d"])
    async with flow.running():
        await flow.written()
        await flow.until(lambda: bool(flow.target.counted))
    assert flow.written_offsets == [0, 2, 3]
    assert [(a.entity_id, a.offset, a.message) for a in flow.target.parked] == [
        ("b", 1, of_row(b"b"))
    ]
    assert flow.acknowledged == [0]
    assert flow.target.offsets[HANDS] == 4


async def test_parked_change_is_applied_once_it_fits(flow: Flow) -> None:
    flow.target.unfit = {"b": "22003"}
    flow.read_keys(0, [b"a", b"b"])
    async with flow.running():
        await flow.written()
        flow.target.unfit = {}
        await flow.until(lambda: not flow.target.parked)
        assert flow.target.batches[-1].fence == FromParked()
        flow.read(2, value=PARTIAL, key=b"b")
        await flow.written()
    assert flow.written_offsets == [0, 1, 2]


async def test_attempts_count_only_once_all_that_was_in_kafka_is_applied(flow: Flow) -> None:
    flow.target.unfit = {"b": "22003"}
    flow.ends = 3
    flow.read_keys(0, [b"a", b"b"])
    async with flow.running():
        await flow.written()
        await flow.until(lambda: len(flow.target.counted) > 3)
        assert not any(flow.target.counted)
        flow.read(2)
        await flow.written()
        await flow.until(lambda: flow.target.counted[-1])
    assert [told.kind for told in flow.told][:1] == ["dead_change"]


async def test_locked_rows_wait_alone_and_never_die(flow: Flow) -> None:
    flow.target.locked = {"b", "c"}
    flow.read_keys(0, [b"a", b"b", b"c", b"d"])
    async with flow.running():
        await flow.written()
        assert flow.written_offsets == [0, 3]
        await flow.until(lambda: len(flow.target.counted) > 3)
        flow.target.locked = set()
        await flow.until(lambda: not flow.target.parked)
    assert not any(flow.target.counted)


async def test_later_whole_change_takes_the_place_of_parked_ones(flow: Flow) -> None:
    flow.target.locked = {"b"}
    flow.read_keys(0, [b"b", b"a"])
    async with flow.running():
        await flow.written()
        flow.target.locked = set()
        flow.target.parked = [replace(a, state=ParkedState.DEAD) for a in flow.target.parked]
        flow.read(2, key=b"b")
        await flow.written()
    assert flow.target.parked == []
    assert flow.target.batches[-1].settled == {("gfx_hands", "b")}


async def test_later_partial_change_queues_behind_and_is_applied_with_the_first(flow: Flow) -> None:
    flow.target.locked = {"b"}
    flow.read_keys(0, [b"b", b"a"])
    async with flow.running():
        await flow.written()
        flow.read(2, value=PARTIAL, key=b"b")
        flow.read(3, key=b"a")
        await flow.written()
        assert [a.offset for a in flow.target.parked] == [0, 2]
        assert flow.written_offsets == [1, 3]
        flow.target.locked = set()
        await flow.until(lambda: not flow.target.parked)
    assert [change.offset for change in flow.target.batches[-1].changes] == [0, 2]


async def test_change_parked_by_a_commit_whose_answer_was_lost_is_known(flow: Flow) -> None:
    flow.target.locked = {"b"}
    flow.read_keys(0, [b"b", b"a"])
    async with flow.running():
        flow.target.lost_answers = 1
        await flow.written()
        flow.read(2, value=PARTIAL, key=b"b")
        await flow.written()
        assert [a.offset for a in flow.target.parked] == [0, 2]


async def test_batch_that_takes_too_long_is_halved(flow: Flow) -> None:
    flow.target.failures = ["57014"]
    flow.read_keys(0, [b"a", b"b", b"c", b"d"])
    async with flow.running():
        await flow.written()
    assert [len(batch.changes) for batch in flow.target.batches] == [2, 2]
    assert flow.target.batches[0].spans[0].next == flow.target.batches[1].spans[0].expected == 2


async def test_batch_of_nothing_but_offsets_that_takes_too_long_is_tried_again(flow: Flow) -> None:
    flow.target.failures = ["57014"] * 3
    flow.read(0, value=b"surprise")
    async with flow.running():
        await flow.written()
    assert flow.target.offsets[HANDS] == 1


async def test_flow_of_which_too_much_is_parked_halts(flow: Flow) -> None:
    flow.target.unfit = {str(i): "23502" for i in range(20)}
    for first in range(0, 20, 4):
        flow.read_keys(first, [str(first + i).encode() for i in range(4)])
    async with flow.running() as task:
        with pytest.raises(FlowHalted, match=r"changes of 1[12] rows are parked.*does not fit"):
            await asyncio.wait_for(asyncio.shield(task), 5)


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
    longest: Callable[[int], float] = lambda tries: max(writer._backoff(tries) for _ in range(50))  # noqa: E731
    assert longest(0) <= 0.05
    assert longest(3) > longest(0)
    assert 5 <= longest(1_000_000) <= 10


async def test_row_of_a_partition_that_moved_away_stays_known_to_batches_in_hand(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none_here(partitions: Iterable[Partition]) -> set[Entity]:
        return set()

    flow.target.locked = {"b"}
    flow.read_keys(0, [b"b", b"a"])
    async with flow.running():
        await flow.written()
        monkeypatch.setattr(flow.target, "queued", none_here)
        await flow.writer.applied({BEATS})
        flow.read(2, value=PARTIAL, key=b"b")
        await flow.written()
    assert [a.offset for a in flow.target.parked] == [0, 2]


async def test_what_another_worker_left_settles_what_that_one_has_parked(flow: Flow) -> None:
    """The other parked offset 0; the rest of the batch tells the whole row."""
    flow.target.locked = {"b"}
    flow.read_keys(0, [b"b", b"a"])
    async with flow.running():
        await flow.written()
    (parked,) = flow.target.parked
    flow.target.locked = set()
    again = Flow()
    again.target.parked, again.target.offsets = [], {HANDS: 0, BEATS: 0}
    again.read_keys(0, [b"b", b"b"])
    async with again.running():
        again.target.parked, again.target.offsets[HANDS] = [parked], 1
        await again.written()
    assert again.target.batches[-1].settled == {("gfx_hands", "b")}
    assert again.target.parked == []


def test_delete_whose_key_the_log_does_not_hold_is_told_with_table_and_way_on() -> None:
    told: list[Notification] = []
    zero = b"00000000-0000-0000-0000-000000000000"
    value = b'{"op":"d","source":{},"before":{"id":"%s","hand_num":7,"grade":null}}' % zero
    intake = Intake("gfx", {HANDS.topic: "gfx_hands"}, decode, told.append)
    intake.batch([Chunk(HANDS, [FakeRecord(0, zero, value)], 1, 1)])
    (one,) = told
    assert (one.kind, one.severity) == ("delete_without_key", Severity.ERROR)
    for words in ("hand_num = 7", "ALTER TABLE gfx_hands REPLICA IDENTITY DEFAULT", "--repair"):
        assert words in one.message


@pytest.mark.parametrize(("sqlstate", "halts"), [("22001", True), ("42804", False)])
async def test_table_of_another_shape_parks_more_rows_than_values_may(
    flow: Flow, sqlstate: str, halts: bool
) -> None:
    keys = [b"r%d" % n for n in range(12)]
    flow.target.unfit = {key.decode(): sqlstate for key in keys}
    flow.read_keys(0, keys)
    flow.read(12)  # of another table, as it were
    async with flow.running() as task:
        if halts:
            with pytest.raises(FlowHalted, match=r"changes of 1\d rows are parked"):
                await task
        else:
            await flow.written()
            assert len(flow.target.parked) == 12
            assert flow.written_offsets[-1] == 12
