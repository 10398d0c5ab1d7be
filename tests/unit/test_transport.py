"""Where reading begins after an assignment, and what is committed, without a broker."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import uvloop
from faust.types import TP
from pydantic import SecretStr

from ftstream.app import Worker
from ftstream.kafka.partition import Partition
from ftstream.kafka.transport import Consumer
from ftstream.settings import Database, Settings

HANDS, SHEETS = TP("gfx.gfx_hands", 0), TP("external.cue_sheets", 0)

SITES = Settings(
    external=Database(dsn=SecretStr("postgresql://w@127.0.0.1:1/external")),
    supabase=Database(dsn=SecretStr("postgresql://w@127.0.0.1:1/supabase")),
)


class FakeReader:
    """A flow whose target answers when it is told to."""

    def __init__(self, tp: TP, applied: int) -> None:
        self.topics = (tp.topic,)
        self.answers = asyncio.Event()
        self.begun: list[tuple[Mapping[Partition, int], int]] = []
        self.forgot = 0
        self.halted = False
        self._applied = {Partition(*tp): applied}

    def forget(self) -> None:
        self.forgot += 1

    async def locate(self, partitions: set[Partition]) -> Mapping[Partition, int] | None:
        await self.answers.wait()
        assert partitions == set(self._applied)
        return None if self.halted else self._applied

    def begin(self, offsets: Mapping[Partition, int], epoch: int) -> None:
        self.begun.append((offsets, epoch))


class FakeThread:
    def __init__(self) -> None:
        self.sought: dict[TP, tuple[int, int]] = {}

    async def seek_from(self, offsets: Mapping[TP, int], epoch: int) -> None:
        self.sought |= {tp: (offset, epoch) for tp, offset in offsets.items()}


class FakeConsumer(Consumer):
    """The real decisions without a broker."""

    def __init__(self, *readers: FakeReader) -> None:
        self.futures: list[asyncio.Future[None]] = []
        self.app = SimpleNamespace(
            consumer_generation_id=1, readers=readers, add_future=self._add_future
        )
        self.flowing: set[TP] = {HANDS, SHEETS}
        self._thread = FakeThread()
        self._epochs = itertools.count(1)
        self._read_offset: dict[TP, int | None] = {}
        self._committed_offset: dict[TP, int | None] = {}
        self._acked: dict[TP, list[int]] = defaultdict(list)
        self._acked_index: dict[TP, set[int]] = defaultdict(set)

    def _add_future(self, work: Coroutine[Any, Any, None]) -> None:
        self.futures.append(asyncio.ensure_future(work))

    def _is_changelog_tp(self, tp: TP) -> bool:
        return False

    def assignment(self) -> set[TP]:
        return {HANDS, SHEETS}

    def pause_partitions(self, tps: Iterable[TP]) -> None:
        self.flowing -= set(tps)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        self.flowing |= set(tps)


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_each_flow_begins_where_its_target_is_once_that_answers() -> None:
    hands, sheets = FakeReader(HANDS, 500), FakeReader(SHEETS, 900)
    consumer = FakeConsumer(hands, sheets)
    await consumer.perform_seek()
    assert consumer.flowing == set()
    assert (hands.forgot, sheets.forgot) == (1, 1)

    hands.answers.set()
    await settle()
    assert consumer.flowing == {HANDS}
    assert consumer._thread.sought == {HANDS: (500, 1)}
    assert hands.begun == [({Partition(*HANDS): 500}, 1)]

    sheets.answers.set()
    await asyncio.gather(*consumer.futures)
    assert consumer.flowing == {HANDS, SHEETS}
    assert sheets.begun == [({Partition(*SHEETS): 900}, 2)]


async def test_answer_that_comes_after_the_next_assignment_is_not_used() -> None:
    hands, sheets = FakeReader(HANDS, 500), FakeReader(SHEETS, 500)
    consumer = FakeConsumer(hands, sheets)
    await consumer.perform_seek()
    consumer.app.consumer_generation_id = 2
    hands.answers.set()
    sheets.answers.set()
    await asyncio.gather(*consumer.futures)
    assert (hands.begun, consumer.flowing) == ([], set())


async def test_flow_that_halts_stays_paused_and_the_others_begin() -> None:
    hands, sheets = FakeReader(HANDS, 500), FakeReader(SHEETS, 500)
    hands.halted = True
    consumer = FakeConsumer(hands, sheets)
    await consumer.perform_seek()
    hands.answers.set()
    sheets.answers.set()
    await asyncio.gather(*consumer.futures)
    assert (hands.begun, consumer.flowing) == ([], {SHEETS})


def test_newest_acknowledged_chunk_is_committed() -> None:
    consumer = FakeConsumer()
    assert consumer._new_offset(HANDS) is None
    consumer._acked[HANDS] = [40, 90]
    consumer._acked_index[HANDS] = {40, 90}
    assert consumer._new_offset(HANDS) == 91
    assert consumer._new_offset(HANDS) is None
    assert consumer._acked_index[HANDS] == set()


def test_consumers_thread_does_not_run_on_uvloop() -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        thread_loop: asyncio.AbstractEventLoop = Worker(SITES).consumer._thread.thread_loop
        return thread_loop

    found = uvloop.run(loop())
    assert isinstance(found, asyncio.SelectorEventLoop)
    found.close()


def test_rebalance_in_a_worker_that_stops_leaves_the_client_to_its_thread() -> None:
    """Faust would close it in the loop of the main thread."""

    class Client:
        _closed = False

    async def close() -> bool:
        consumer = Worker(SITES).consumer
        consumer._thread._consumer = client = Client()
        consumer.close()
        await asyncio.sleep(0)
        consumer._thread.thread_loop.close()
        return client._closed

    assert asyncio.run(close()) is False
