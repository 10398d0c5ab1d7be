"""A rig under load: traffic, workers with logs of their own, and what must hold at the end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from psycopg import sql
from psycopg.rows import TupleRow

from ftstream.compare.progress import watch
from ftstream.compare.verification import verify
from ftstream.flows import GFX, CaptureNames, Flow, Names, Site, log_captures
from ftstream.kafka.clients import client_options
from ftstream.local.demo.rig import SITES, Rig, SiteName
from ftstream.local.demo.traffic import Traffic
from tests.conftest import POLL_SECONDS, until
from tests.dangling import CHECKS

RATE = 200.0
"""Row changes per second: a worker always has some under way, and keeps up on two slow cores."""

Coordinate = tuple[str, int, int]
"""Topic, partition, offset."""


_HARMLESS = re.compile(r"[-0-9]+ [:,0-9]+ (INFO|WARNING) ")


class Worker:
    """A worker's process and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def said(self, words: str) -> int:
        """How many lines of the log hold these words."""
        return sum(words in line for line in self.log.splitlines())

    def matched(self, pattern: str) -> int:
        """How many lines of the log this is found in."""
        return len(re.findall(pattern, self.log))

    @property
    def errors(self) -> list[str]:
        """Lines that are neither information nor a warning, those of tracebacks among them."""
        return [line for line in self.log.splitlines() if not _HARMLESS.match(line)]

    def until_said(self, words: str, times: int = 1, seconds: float = 40.0) -> None:
        """Wait for a line of the log, or for its repetition."""
        try:
            until(lambda: self.said(words) >= times or self.process.poll() is not None, seconds)
        except AssertionError:
            raise AssertionError(f"not said: {words}\n{self.log}") from None
        assert self.said(words) >= times, self.log

    def ready(self) -> Worker:
        self.until_said("INFO ready")
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop; returns its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # Python's fault handler tells where it is
            self.process.wait()
            raise AssertionError(f"does not stop:\n{self.log}") from None

    def halted(self) -> None:
        """Wait until a flow has halted, with one line that says so, and stop what goes on."""
        self.until_said("the other flows go on")
        assert self.stop() == 0
        assert len(self.errors) == 1, self.log

    def ended(self) -> int:
        """Wait until it ends by itself; returns its exit code."""
        return self.process.wait(60)


def pass_for_the_worker(connection: psycopg.Connection) -> None:
    """Have a superuser's transaction go past guards, capture and all other triggers, as the worker does."""
    connection.execute("set local session_replication_role = replica")
    connection.execute("set local session authorization ftstream_apply")
    connection.execute("set local ftstream.applying = 'on'")


class Load:
    """Traffic on External in a thread of its own; the block's end stops it.

    A `patient` one goes on once External is back.
    """

    def __init__(self, seed: int, dsn: str, rate: float, *, patient: bool = False) -> None:
        self._seed, self._dsn, self._rate = seed, dsn, rate
        self._patient = patient
        self.changes = 0
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._write())
        except BaseException as error:  # noqa: BLE001  # raised again where the block ends
            self._error = error

    async def _write(self) -> None:
        traffic = Traffic(self._seed, self._dsn, self._rate)
        while not self._stop.is_set():
            try:
                self.changes += (await traffic.run(self._stop)).changes
            except psycopg.OperationalError:
                if not self._patient:
                    raise
                await asyncio.sleep(POLL_SECONDS)
            except psycopg.errors.UniqueViolation:
                if not self._patient:
                    raise
                # The operation was committed, and the answer lost: go on with another play.
                self._seed += 1_000_000
                traffic = Traffic(self._seed, self._dsn, self._rate)


class Scene:
    """One module's rig, with everything set up; tests start their own workers."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.names = Names(GFX, rig.namespace)
        (capture,) = log_captures([GFX])
        self.capture = CaptureNames(capture, rig.namespace)
        self._numbers = itertools.count(1)

    # -- doing

    def worker(self, *, command: Sequence[str] = (), **environment: str) -> Worker:
        """Start a worker; `environment` overrides settings, by the names of their variables."""
        log = self.rig.stack.folder / "logs" / f"{self.rig.namespace}-{next(self._numbers)}.log"
        traced = {"PYTHONFAULTHANDLER": "1", **environment}
        return Worker(self.rig.start_worker(log, traced, command), log)

    def load(self, rate: float = RATE, *, patient: bool = False) -> Load:
        return Load(next(self._numbers), self.rig.dsn("external"), rate, patient=patient)

    def write(self, changes: int) -> None:
        """Let traffic make some changes, and return when they are committed."""
        traffic = Traffic(next(self._numbers), self.rig.dsn("external"), 1e6)
        asyncio.run(traffic.run(max_changes=changes))

    def execute(self, site: SiteName, query: LiteralString, *values: object) -> list[TupleRow]:
        """Run SQL as the site's superuser, past guards and rights."""
        user = "supabase_admin" if site == "supabase" else None
        with psycopg.connect(self.rig.dsn(site, user), autocommit=True) as connection:
            cursor = connection.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def uncaptured(self, site: SiteName, query: LiteralString, *values: object) -> None:
        """Write past capture and guards, as nobody should."""
        user = "supabase_admin" if site == "supabase" else None
        with psycopg.connect(self.rig.dsn(site, user)) as connection:
            pass_for_the_worker(connection)
            connection.execute(query, values)

    def rename(self, site: SiteName, table: str, name: str) -> None:
        """Give a table another name."""
        query = sql.SQL("alter table {} rename to {}")
        with psycopg.connect(self.rig.dsn(site), autocommit=True) as connection:
            connection.execute(query.format(sql.Identifier(table), sql.Identifier(name)))

    def publish(
        self,
        table: str,
        key: bytes | None,
        value: bytes | None,
        compression: str | None = None,
        times: int = 1,
    ) -> None:
        """Put a record into a change topic, as anybody who may write there can."""
        topic = self.names.topic(GFX.table(table), Site.EXTERNAL)
        self.publish_to(topic, key, value, compression, times)

    def publish_to(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        compression: str | None = None,
        times: int = 1,
    ) -> None:
        """Put a record into any topic; several `times` in one batch."""

        async def send() -> None:
            async with AIOKafkaProducer(
                **client_options(self.rig.settings.kafka),
                max_request_size=2**28,
                max_batch_size=2**28,
                linger_ms=200,
                compression_type=compression,
            ) as producer:
                sent = [await producer.send(topic, value, key=key) for _ in range(times)]
                await asyncio.gather(*sent)

        asyncio.run(send())

    def command(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run an ftstream command, whatever comes of it."""
        return subprocess.run(
            [sys.executable, "-m", "ftstream", *arguments],
            env=os.environ | self.rig.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )

    def notifications(self, kind: str) -> list[str]:
        """The messages of this kind, as the command tells them."""
        told = json.loads(self.command("notifications", "--json").stdout)
        return [each["message"] for each in told if each["type"] == kind]

    # -- looking

    @property
    def applied(self) -> int:
        """Changes in the target's log."""
        return int(self.execute("supabase", "select count(*) from ftstream.sync_log")[0][0])

    def until_applied(self, more: int) -> None:
        """Wait until the target has logged this many changes more than now."""
        goal = self.applied + more
        until(lambda: self.applied >= goal, 60)

    def until_captured(self) -> None:
        """Wait until everything committed on External is in Kafka."""
        position = self.execute("external", "select pg_current_wal_insert_lsn()::text")[0][0]
        self.execute("external", "select pg_logical_emit_message(true, 'test', '')")
        until(
            lambda: (
                self.execute(
                    "external",
                    "select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots"
                    " where slot_name = %s",
                    position,
                    self.capture.slot,
                )
                == [(True,)]
            ),
            60,
        )

    def caught_up(self, *flows: Flow) -> None:
        """Wait until everything committed before is applied, by default of gfx; not for what is parked."""

        async def wait() -> None:
            for flow in flows or (GFX,):
                async with watch(flow, self.rig.settings) as progress:
                    await progress.wait(90, patience=0)

        asyncio.run(wait())

    def must_be_in_step(self) -> None:
        """Both sites are equal, and each change in Kafka was logged exactly once; none is parked."""
        self.must_be_equal()
        logged = self.logged()
        assert [where for where, times in logged.items() if times > 1] == []
        assert set(logged) == self.captured()

    def must_be_equal(self) -> None:
        """Everything is applied, nothing is parked, and the sites hold the same."""
        self.caught_up()
        self.until_nothing_is_parked()
        verdicts = asyncio.run(verify(GFX, self.rig.settings))
        assert sum(verdict.rows for verdict in verdicts) > 0
        assert [verdict for verdict in verdicts if not verdict.equal] == []

    def until_nothing_is_parked(self) -> None:
        """Wait until no change waits on either site; else tells what does, and why."""
        waiting: LiteralString = (
            "select state, flow, table_name, entity_id, attempts, error, hint"
            " from ftstream.parked_change"
        )

        def parked() -> list[TupleRow]:
            return [row for site in SITES for row in self.execute(site, waiting)]

        try:
            until(lambda: not parked(), 60)
        except AssertionError:
            raise AssertionError(f"still parked: {parked()}") from None

    def must_not_dangle(self) -> None:
        """Every row that another one refers to is there, on both sites."""
        for site in SITES:
            checks = [row[0] for row in self.execute(site, CHECKS)]
            assert checks
            found = [row for check in checks for row in self.execute(site, check)]
            dangling = [(name, rows) for name, rows in found if rows]
            assert dangling == [], f"{site}: {dangling}"

    def captured(self) -> set[Coordinate]:
        """Where Kafka holds a change: every record that is not a tombstone."""
        return asyncio.run(self._captured())

    def logged(self) -> Counter[Coordinate]:
        """How often each change was logged, but for its being parked."""
        rows = self.execute(
            "supabase",
            "select topic, kafka_partition, kafka_offset from ftstream.sync_log"
            " where outcome not in ('parked', 'dead') and kafka_offset is not null",
        )
        return Counter((topic, partition, offset) for topic, partition, offset in rows)

    async def _captured(self) -> set[Coordinate]:
        async with AIOKafkaConsumer(
            **client_options(self.rig.settings.kafka), auto_offset_reset="earliest"
        ) as consumer:
            consumer.assign(self.partitions)
            ends = await consumer.end_offsets(self.partitions)
            found: set[Coordinate] = set()
            while any([(await consumer.position(tp)) < end for tp, end in ends.items()]):
                for tp, records in (await consumer.getmany(timeout_ms=100)).items():
                    found |= {(tp.topic, tp.partition, r.offset) for r in records if r.value}
            return found

    @property
    def partitions(self) -> list[TopicPartition]:
        """Those of the change topics."""
        numbers = range(self.rig.settings.kafka.partitions)
        topics = self.names.topics(Site.SUPABASE)
        return [TopicPartition(topic, number) for topic in topics for number in numbers]

    def parked(self) -> list[TupleRow]:
        """State, row and error of each change that is parked or dead."""
        return self.execute(
            "supabase",
            "select state, table_name, entity_id, error from ftstream.parked_change order by id",
        )

    # -- the consumer group

    @property
    def group(self) -> str:
        return f"{self.rig.namespace}.ftstream"

    def set_group(self, where: str) -> None:
        """Commit the group's offsets at the "start" or the "end" of all partitions."""

        async def commit() -> None:
            async with AIOKafkaConsumer(
                **client_options(self.rig.settings.kafka),
                group_id=self.group,
                enable_auto_commit=False,
            ) as consumer:
                consumer.assign(self.partitions)
                at = consumer.beginning_offsets if where == "start" else consumer.end_offsets
                await consumer.commit(await at(self.partitions))

        asyncio.run(commit())

    def committed(self) -> Mapping[tuple[str, int], int]:
        """What the group has committed, of the change topics."""

        async def read() -> Mapping[Any, Any]:
            async with admin(self.rig) as client:
                return dict(await client.list_consumer_group_offsets(self.group))

        topics = self.names.topics(Site.SUPABASE)
        found = asyncio.run(read())
        return {(tp.topic, tp.partition): m.offset for tp, m in found.items() if tp.topic in topics}

    def members(self) -> int:
        """How many workers the group counts."""

        async def read() -> int:
            async with admin(self.rig) as client:
                (answer,) = await client.describe_consumer_groups([self.group])
                return sum(len(group[5]) for group in answer.groups)

        return asyncio.run(read())

    def offsets(self) -> Mapping[tuple[str, int], int]:
        """What the target has applied, of the change topics."""
        rows = self.execute(
            "supabase",
            "select topic, kafka_partition, next_offset from ftstream.applied_offset"
            " where topic = any(%s) and next_offset > 0",
            list(self.names.topics(Site.SUPABASE)),
        )
        return {(topic, partition): offset for topic, partition, offset in rows}

    def versions(self) -> Sequence[TupleRow]:
        """Where each row's current version lies: changes with every write, even an equal one."""
        return [
            row for table in GFX.tables for row in self.execute("supabase", _VERSIONS[table.name])
        ]


_VERSIONS: Mapping[str, LiteralString] = {
    "gfx_sessions": "select id, xmin::text, ctid::text from gfx_sessions order by id",
    "gfx_hands": "select id, xmin::text, ctid::text from gfx_hands order by id",
    "gfx_hand_players": "select id, xmin::text, ctid::text from gfx_hand_players order by id",
    "gfx_players": "select id, xmin::text, ctid::text from gfx_players order by id",
}


@contextlib.contextmanager
def set_up(rig: Rig, flows: Sequence[Flow] = (GFX,), *, spoilt: bool = False) -> Iterator[Scene]:
    """The rig after `init`, with the connectors of these flows; workers left are stopped at the end.

    Then nothing may dangle, unless a test has spoilt rows on purpose.
    """
    rig.run("init")
    rig.run("connectors", "apply", *(flow.name for flow in flows if log_captures([flow])))
    scene = Scene(rig)
    yield scene
    rig.stop_workers()
    if not spoilt:
        scene.must_not_dangle()


@contextlib.asynccontextmanager
async def admin(rig: Rig) -> Any:
    """Kafka's admin client."""
    client = AIOKafkaAdminClient(**client_options(rig.settings.kafka))
    await client.start()
    try:
        yield client
    finally:
        await client.close()
