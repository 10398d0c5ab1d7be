"""Waking by Supabase Realtime: the real client against the stand-in, over a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import LiteralString

import psutil
import psycopg
import pytest
from psycopg import AsyncConnection, sql
from pydantic import SecretStr

from ftstream.capture.wake_ups import WorkerWakeUp, seen
from ftstream.capture.waker import Waker
from ftstream.flows import OVERRIDES, Site
from ftstream.local.stack import process
from ftstream.local.stack import realtime as service
from ftstream.local.stack.ports import choose_ports
from ftstream.logs import logging_config
from ftstream.postgres.connection import open_connection
from ftstream.settings import RealtimeSettings
from ftstream.setup import run_init
from ftstream.supabase.realtime import Pauses, Realtime
from ftstream.supabase.subscription import Patience
from ftstream.supabase.wake_up import Way
from tests.conftest import POLL_SECONDS

from .conftest import Cluster, MemoryTopics, Pair, made_pair, with_least_rights

KEY = "api-key-of-the-test"
TABLE = ("public", "watched")
PATIENCE = Patience(join=2.0, beat=0.1, silent=0.5, close=0.3)
PAUSES = Pauses(least=0.05, most=0.2)


@dataclass
class StandIn:
    """The stand-in as a process of its own, and the database that it watches."""

    pair: Pair
    server: service.RealtimeProcess
    identity: process.Identity

    @property
    def settings(self) -> RealtimeSettings:
        url = f"http://127.0.0.1:{self.server.port}/{self.pair.database}"
        return RealtimeSettings(url=url, key=SecretStr(KEY))

    def ready(self) -> None:
        log, probe = self.server.log, self.server.probe
        process.wait_until_ready(self.server.name, self.identity, log, probe, 30, Event())

    def control(self, **wish: str) -> dict[str, object]:
        """Have it behave another way; what it knows of its connections."""
        data = json.dumps(wish).encode() if wish else None
        address = f"http://127.0.0.1:{self.server.port}/_control"
        with urllib.request.urlopen(address, data, timeout=5) as answer:
            known: dict[str, object] = json.load(answer)
            return known

    def write(self, query: sql.SQL) -> None:
        cluster = self.pair.supabase
        dsn = cluster.dsn("postgres", self.pair.database)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(query)


@pytest.fixture(scope="module")
def stand_in(
    clusters: dict[Site, Cluster], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StandIn]:
    folder = tmp_path_factory.mktemp("realtime")
    with made_pair(clusters) as pair:
        server = _server(pair, folder)
        made = StandIn(pair, server, process.spawn(server.command()))
        try:
            made.ready()
            made.write(sql.SQL("create table watched (id integer primary key, name text)"))
            made.write(sql.SQL("create publication supabase_realtime for table watched"))
            yield made
        finally:
            process.stop(made.identity, server.stop_signal, 10)


def _server(pair: Pair, folder: Path) -> service.RealtimeProcess:
    (port,) = choose_ports(1)
    dsn = pair.supabase.superuser
    return service.RealtimeProcess(folder, folder / "log", port, dsn, KEY)


class Listener:
    """A supervisor that runs, and how often it has woken somebody."""

    def __init__(self, settings: RealtimeSettings, table: tuple[str, str]) -> None:
        self.woken = 0
        self.realtime = Realtime(settings, [table], self._wake, PATIENCE, PAUSES)
        self.task = asyncio.create_task(self.realtime.run())

    def _wake(self) -> None:
        self.woken += 1

    @property
    def way(self) -> Way:
        return self.realtime.state.way

    async def subscribed(self, after: datetime | None = None) -> datetime:
        """Wait until Realtime wakes, by a client that is newer; since when it does."""
        await eventually(
            lambda: self.way is Way.REALTIME and (not after or self.realtime.state.since > after)
        )
        return self.realtime.state.since

    async def polling(self, reason: str) -> None:
        """Wait until it says so, and why."""
        await eventually(
            lambda: self.way is Way.POLLING and reason in self.realtime.state.reason,
            lambda: self.realtime.state,
        )


@asynccontextmanager
async def listening(
    stand_in: StandIn, table: tuple[str, str] = TABLE, settings: RealtimeSettings | None = None
) -> AsyncIterator[Listener]:
    """A supervisor; at the end no task and no socket of it may be left."""
    before = asyncio.all_tasks()
    listener = Listener(settings or stand_in.settings, table)
    try:
        yield listener
    finally:
        listener.task.cancel()
        await asyncio.wait([listener.task], timeout=10)
    assert listener.task.cancelled()
    await eventually(lambda: asyncio.all_tasks() <= before, asyncio.all_tasks)
    await eventually(lambda: not sockets_to(stand_in.server.port))


def sockets_to(port: int) -> list[object]:
    return [
        connection
        for connection in psutil.Process().net_connections("tcp")
        if connection.raddr and connection.raddr.port == port
    ]


async def eventually(
    condition: Callable[[], bool], found: Callable[[], object] = lambda: None, seconds: float = 20
) -> None:
    """As `until`, while the event loop goes on."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {found()}"
        await asyncio.sleep(POLL_SECONDS)


async def wakes(
    listener: Listener,
    stand_in: StandIn,
    query: LiteralString = "insert into watched values (2) on conflict (id) do update set name = ''",
) -> None:
    """A write wakes, by the client that there is now."""
    before = listener.woken
    stand_in.write(sql.SQL(query))
    await eventually(lambda: listener.woken > before)


async def test_inserts_updates_and_deletes_wake(stand_in: StandIn) -> None:
    async with listening(stand_in) as listener:
        await listener.subscribed()
        await wakes(listener, stand_in, "insert into watched values (1, 'a')")
        await wakes(listener, stand_in, "update watched set name = 'b' where id = 1")
        await wakes(listener, stand_in, "delete from watched where id = 1")


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("close", "CLOSED"),
        ("drop", "CHANNEL_ERROR"),
        ("go_away", "CHANNEL_ERROR"),
        ("expire_token", "CHANNEL_ERROR: Token has expired"),
        ("system_error", "CHANNEL_ERROR: the database does not answer"),
        ("huge_frame", "1009"),
    ],
)
async def test_a_client_that_meets_a_fault_is_replaced_and_somebody_is_woken(
    stand_in: StandIn, act: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ftstream")
    async with listening(stand_in) as listener:
        first, before = await listener.subscribed(), listener.woken
        stand_in.control(act=act)
        await listener.subscribed(after=first)
        # At the end of the one, and at the beginning of the next.
        assert listener.woken >= before + 2
        await wakes(listener, stand_in)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("ftstream")]
    assert len(told) == 3 and reason in told[1], told


@contextmanager
def behaving(stand_in: StandIn, mode: str) -> Iterator[None]:
    stand_in.control(mode=mode)
    try:
        yield
    finally:
        stand_in.control(mode="well")


async def test_a_server_that_has_gone_silent_is_left_although_its_socket_is_open(
    stand_in: StandIn,
) -> None:
    async with listening(stand_in) as listener:
        await listener.subscribed()
        with behaving(stand_in, "silent"):
            await listener.polling("has not answered a heartbeat")
        await listener.subscribed()
        await wakes(listener, stand_in)


async def test_an_answer_to_the_join_is_no_subscription(stand_in: StandIn) -> None:
    with behaving(stand_in, "no_system"):
        async with listening(stand_in) as listener:
            await listener.polling("did not say within 2 s that it is subscribed")
            stand_in.control(mode="well")
            await listener.subscribed()
            await wakes(listener, stand_in)


async def test_refused_connections_are_tried_again_for_as_long_as_it_takes(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(stand_in) as listener:
        await listener.subscribed()
        with behaving(stand_in, "refuse"):
            stand_in.control(act="drop")
            await listener.polling("HTTP 503")
            since, before = listener.realtime.state.since, listener.woken
            # More often than the library itself would try.
            await eventually(lambda: listener.woken > before + 5)
            assert listener.realtime.state.since == since
        await listener.subscribed()
        await wakes(listener, stand_in)


async def test_a_second_subscription_of_the_same_client_may_hide_a_gap(stand_in: StandIn) -> None:
    async with listening(stand_in) as listener:
        first, before = await listener.subscribed(), listener.woken
        stand_in.control(act="system_again")
        await eventually(lambda: listener.woken > before)
        assert listener.realtime.state.since == first


async def test_a_frozen_server_is_noticed_and_does_not_hold_up_the_end(stand_in: StandIn) -> None:
    process.send(stand_in.identity, signal.SIGSTOP)
    try:
        async with listening(stand_in) as listener:
            await listener.polling("did not say")
    finally:
        process.send(stand_in.identity, signal.SIGCONT)
    async with listening(stand_in) as listener:
        await listener.subscribed()
        process.send(stand_in.identity, signal.SIGSTOP)
        try:
            await listener.polling("has not answered a heartbeat")
        finally:
            process.send(stand_in.identity, signal.SIGCONT)
        await listener.subscribed()
        process.send(stand_in.identity, signal.SIGSTOP)
        listener.task.cancel()
        done, _ = await asyncio.wait([listener.task], timeout=5)
        process.send(stand_in.identity, signal.SIGCONT)
        assert done


async def test_a_server_that_was_killed_is_found_again(stand_in: StandIn) -> None:
    async with listening(stand_in) as listener:
        await listener.subscribed()
        process.send(stand_in.identity, signal.SIGKILL)
        await listener.polling("cannot be reached")
        stand_in.identity = process.spawn(stand_in.server.command())
        await listener.subscribed()
        await wakes(listener, stand_in)


async def test_a_callback_that_fails_does_not_deafen_the_client(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(stand_in) as listener:
        first = await listener.subscribed()
        listener.woken = None  # type: ignore[assignment]  # so that the next one fails
        stand_in.write(sql.SQL("insert into watched values (3)"))
        await eventually(lambda: "TypeError" in caplog.text)
        listener.woken = 0
        await wakes(listener, stand_in)
        assert listener.realtime.state.since == first


async def test_tables_that_realtime_does_not_publish_are_named(stand_in: StandIn) -> None:
    async with listening(stand_in, table=("public", "cue_sheets")) as listener:
        await listener.polling("lacks: public.cue_sheets")


INSERT: LiteralString = (
    "with player as (insert into gfx_players (player_hash, name) values ('h', 'n') returning id)"
    " insert into player_overrides (gfx_player_id, field_name, override_value, reason, created_by)"
    " select id, 'name', 'v', 'r', 'test' from player"
)


async def test_a_worker_notes_for_the_crew_what_wakes_its_publisher(stand_in: StandIn) -> None:
    """From `init` to a write that wakes, with the rights that `init` gives."""
    least = with_least_rights(stand_in.pair)
    settings = least.settings.model_copy(update={"realtime": stand_in.settings})
    async for _ in run_init(settings, MemoryTopics(), (OVERRIDES,)):
        pass
    woken: list[None] = []
    waker = Waker(settings, OVERRIDES.tables, lambda: woken.append(None))
    running = asyncio.create_task(waker.run())
    async with await open_connection(settings.supabase.conninfo()) as connection:
        try:
            (noted,) = await _noted(connection, "realtime")
            assert noted.reason == "" and noted.worker.endswith(f":{os.getpid()}")
            before = len(woken)
            stand_in.write(sql.SQL(INSERT))
            await eventually(lambda: len(woken) > before)
            with behaving(stand_in, "refuse"):
                stand_in.control(act="drop")
                (noted,) = await _noted(connection, "polling")
                assert noted.reason and noted.seen_at
        finally:
            running.cancel()
            await asyncio.wait([running])
        await waker.close()
        assert await seen(connection, 60) == []


async def test_without_realtime_the_crew_is_told_that_the_publisher_looks_by_itself(
    stand_in: StandIn,
) -> None:
    waker = Waker(stand_in.pair.settings, OVERRIDES.tables, lambda: None)
    assert (waker.state.way, waker.state.reason) == (Way.POLLING, "realtime.url is not set")


async def _noted(connection: AsyncConnection, way: str) -> list[WorkerWakeUp]:
    deadline = time.monotonic() + 20
    while not (rows := [row for row in await seen(connection, 60) if row.way == way]):
        assert time.monotonic() < deadline, f"nobody is woken by {way}"
        await asyncio.sleep(POLL_SECONDS)
    return rows


async def test_the_key_is_in_no_line_of_the_log(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name, options in logging_config("debug")["loggers"].items():
        caplog.set_level(options["level"], name)
    secret = "a-key-that-is-wrong"
    wrong = stand_in.settings.model_copy(update={"key": SecretStr(secret)})
    async with listening(stand_in, settings=wrong) as listener:
        await listener.polling("HTTP 403")
    async with listening(stand_in) as listener:
        first = await listener.subscribed()
        stand_in.control(act="drop")
        await listener.subscribed(after=first)
    assert "HTTP 403" in caplog.text
    assert secret not in caplog.text and KEY not in caplog.text
    log = stand_in.server.log.read_text()
    assert KEY not in log and secret not in log
