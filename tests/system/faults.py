"""Everything that can fail, made to fail while changes flow, and what came of it."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import LiteralString

from ftstream.connect.client import ConnectClient
from ftstream.flows import FLOWS, GFX, OVERRIDES, CaptureNames, log_captures
from ftstream.local.demo.rig import Rig
from tests.conftest import until
from tests.system.edits import TWO_WAY, Edits, must_agree
from tests.system.imports import Imports
from tests.system.proxy import Proxy
from tests.system.scene import Worker, set_up

RATE = 400.0
"""Row changes per second; what runs in a few minutes has fewer to catch up with."""

PARTS_READ = 0.0, 0.5
"""How much of a file a connector has read when it is struck: one row, and half of them."""

SESSION_SECONDS = 10.0
"""After which a silent worker's partitions go to others (broker_session_timeout)."""

TERMINATE = (
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where application_name = 'ftstream' and pid <> pg_backend_pid()"
)


@dataclass(frozen=True)
class Outcome:
    """What came of one fault: changes in Kafka while it lasted, and of those lost and doubled.

    An imported row that never got to Kafka is lost too.
    """

    fault: str
    sent: int
    lost: int
    doubled: int
    healed_seconds: float
    restarted: bool
    """Whether a failed task had to be restarted, which `ftstream connectors apply` does."""

    def __str__(self) -> str:
        return (
            f"{self.fault:<32} {self.sent:>7} {self.lost:>5} {self.doubled:>8}"
            f" {self.healed_seconds:>8.1f} {'yes' if self.restarted else 'no':>9}"
        )


HEADING = (
    f"{'fault':<32} {'changes':>7} {'lost':>5} {'doubled':>8} {'healed s':>8} {'restarted':>9}"
)


class World:
    """Two workers that reach everything through proxies, and connectors that do so too."""

    def __init__(
        self, rig: Rig, proxies: ExitStack, settings: Mapping[str, str] | None = None
    ) -> None:
        """`settings`: variables of its commands and workers besides."""
        stack = rig.stack
        via, at = stack.kafka_via
        self.stack = stack
        self.to_supabase = proxies.enter_context(Proxy(_port(rig, "supabase")))
        self.to_external = proxies.enter_context(Proxy(_port(rig, "external")))
        self.to_kafka = proxies.enter_context(Proxy(via, at))
        self.capture = proxies.enter_context(Proxy(_port(rig, "external")))
        rig.overrides = dict(settings or {}) | {
            "FTSTREAM_EXTERNAL__CAPTURE_HOST": "127.0.0.1",
            "FTSTREAM_EXTERNAL__CAPTURE_PORT": str(self.capture.port),
        }
        self.through = {
            "FTSTREAM_SUPABASE__DSN": _by(rig, "supabase", self.to_supabase),
            "FTSTREAM_EXTERNAL__DSN": _by(rig, "external", self.to_external),
            "FTSTREAM_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{at}",
        }
        self.scene = proxies.enter_context(set_up(rig, (GFX, OVERRIDES)))
        self.workers = [self.new_worker(), self.new_worker()]
        self.imports = Imports(self.scene, self.capture)

    def new_worker(self) -> Worker:
        return self.scene.worker(**self.through)

    def suffer(self, seconds: float, *faults: str, rate: float = RATE) -> Outcome:
        """Let them happen under load, wait until all is applied, and look whether each change is, once."""
        before = self.scene.captured()
        edits = Edits(self.scene)
        with self.scene.load(rate=rate, patient=True), edits:
            for fault in faults:
                self.scene.until_applied(200)
                FAULTS[fault](self, seconds)
            over = time.monotonic()
            self.scene.until_applied(200)
        restarted = self._connector_failed()
        if restarted:
            self.scene.rig.run("connectors", "apply")
        self.scene.caught_up()
        healed = time.monotonic() - over
        self.scene.caught_up(*TWO_WAY)
        self.scene.until_nothing_is_parked()
        missing = self.imports.missing()
        if not missing:  # else the sites differ, and the outcome tells it
            self.scene.must_be_equal()
            must_agree(self.scene)
            edits.must_have_overruled_nobody()
        edits.must_have_bounced_never()
        logged, captured = self.scene.logged(), self.scene.captured()
        return Outcome(
            ", ".join(faults),
            sent=len(captured - before),
            lost=len(captured - logged.keys()) + len(missing),
            doubled=sum(times > 1 for times in logged.values()),
            healed_seconds=healed,
            restarted=restarted,
        )

    def _connector_failed(self) -> bool:
        """Wait until the connectors and their tasks run, or one of them has failed."""
        while True:
            status = self.scene.command("connectors", "status", "--json")
            if not status.stdout:
                continue  # Connect is not up yet
            found = json.loads(status.stdout)
            tasks = [task["state"] for each in found for task in each["tasks"]]
            states = [*tasks, *(each["state"] for each in found)]
            if "FAILED" in states:
                return True
            if all(each["tasks"] for each in found) and set(states) == {"RUNNING"}:
                return False

    def until_woken(self, since: object = None) -> None:
        """Wait until Realtime wakes a worker, and has begun to after a time."""
        woken: LiteralString = (
            "select worker from ftstream.wake_ups where way = 'realtime'"
            " and seen_at > now() - interval '1 minute'"
            " and since > coalesce(%s::timestamptz, '-infinity')"
        )
        until(lambda: bool(self.scene.execute("supabase", woken, since)), 60)

    # -- what can happen

    def kill_worker(self, seconds: float) -> None:
        self.workers.pop(0).kill()
        self.workers.append(self.new_worker())

    def stop_worker(self, seconds: float) -> None:
        worker = self.workers.pop(0)
        assert worker.stop() == 0, worker.log
        self.workers.append(self.new_worker())

    def freeze_worker(self, seconds: float) -> None:
        """It wakes when its partitions are long in other hands."""
        self.workers[0].process.send_signal(signal.SIGSTOP)
        time.sleep(seconds + SESSION_SECONDS)
        self.workers[0].process.send_signal(signal.SIGCONT)

    def add_and_take_workers(self, seconds: float) -> None:
        chance, end = random.Random(seconds), time.monotonic() + seconds
        while time.monotonic() < end:
            self.workers.append(self.new_worker())
            time.sleep(chance.uniform(0.1, 4))
            worker = self.workers.pop(chance.randrange(len(self.workers)))
            if chance.random() < 0.5:
                worker.kill()
            else:
                # One that has not said a word yet knows no signals.
                assert worker.stop() == (0 if worker.log else -signal.SIGTERM), worker.log

    def terminate_sessions(self, seconds: float) -> None:
        for _ in range(5):
            self.scene.execute("supabase", TERMINATE)
            self.scene.execute("external", TERMINATE)
            time.sleep(seconds / 5)

    def lose_commits(self, seconds: float) -> None:
        lost = self.to_supabase.lost
        for _ in range(5):
            self.to_supabase.lose_commits = 1
            time.sleep(seconds / 5)
        self.to_supabase.lose_commits = 0
        assert self.to_supabase.lost > lost

    # -- what can happen to capture while files are imported

    @property
    def captures(self) -> list[CaptureNames]:
        return [CaptureNames(each, self.scene.rig.namespace) for each in log_captures(FLOWS)]

    def restart_connectors(self, seconds: float) -> None:
        """As a person or a rebalance does, connector and task."""

        async def restart() -> None:
            async with ConnectClient(self.scene.rig.settings.connect) as client:
                for names in self.captures:
                    await client.restart(names.connector)

        for read in PARTS_READ:
            self._amid_imports(lambda: asyncio.run(restart()), read)

    def restart_connect(self, seconds: float) -> None:
        """Gracefully, so that its tasks commit where they are."""

        def restart() -> None:
            self.stack.stop("connect")
            self.capture.let_go()
            self.stack.start("connect")

        self._amid_imports(restart, PARTS_READ[0])

    def change_configuration(self, seconds: float) -> None:
        """To one that does the same, and back."""

        async def put(size: str) -> None:
            async with ConnectClient(self.scene.rig.settings.connect) as client:
                for names in self.captures:
                    config = await client.get_config(names.connector)
                    assert config is not None
                    await client.put_config(names.connector, config | {"max.batch.size": size})

        for size, read in zip(("2047", "2048"), PARTS_READ, strict=True):
            self._amid_imports(lambda: asyncio.run(put(size)), read)  # noqa: B023  # run at once

    def _amid_imports(self, blow: Callable[[], None], read: float) -> None:
        """Strike while both connectors read what is imported; returns when they read again."""

        def strike() -> None:
            readers = self._readers()
            blow()
            self.capture.let_go()
            until(lambda: self._readers().isdisjoint(readers) and None not in self._readers(), 60)

        until(lambda: None not in self._readers(), 60)
        self.imports.strike(strike, read)

    def _readers(self) -> set[int | None]:
        """The processes on External that read the log for the connectors."""
        slots = [names.slot for names in self.captures]
        query: LiteralString = (
            "select active_pid from pg_replication_slots where slot_name = any(%s)"
        )
        return {row[0] for row in self.scene.execute("external", query, slots)}


def _port(rig: Rig, site: str) -> int:
    return int(
        (rig.settings.external if site == "external" else rig.settings.supabase).parameter("port")
    )


def _by(rig: Rig, site: str, proxy: Proxy) -> str:
    database = rig.settings.external if site == "external" else rig.settings.supabase
    return database.dsn.get_secret_value().replace(f":{_port(rig, site)}/", f":{proxy.port}/")


def _killed(name: str) -> Callable[[World, float], None]:
    def strike(world: World, seconds: float) -> None:
        world.stack.kill(name)
        time.sleep(seconds)
        world.stack.start(name)

    return strike


def _realtime_killed(world: World, seconds: float) -> None:
    """Which loses nothing; but wake-ups come by it before, and again afterwards."""
    world.until_woken()
    world.stack.kill("realtime")
    ((gone,),) = world.scene.execute("supabase", "select now()")
    time.sleep(seconds)
    world.stack.start("realtime")
    world.until_woken(since=gone)


def _frozen(name: str) -> Callable[[World, float], None]:
    def strike(world: World, seconds: float) -> None:
        world.stack.kill(name, signal.SIGSTOP)
        time.sleep(seconds)
        world.stack.kill(name, signal.SIGCONT)

    return strike


def _cut(name: str) -> Callable[[World, float], None]:
    def strike(world: World, seconds: float) -> None:
        proxy: Proxy = getattr(world, name)
        proxy.cut()
        time.sleep(seconds)
        proxy.restore()

    return strike


def _delayed(name: str) -> Callable[[World, float], None]:
    def strike(world: World, seconds: float) -> None:
        proxy: Proxy = getattr(world, name)
        proxy.delay = 0.2
        time.sleep(seconds)
        proxy.delay = 0.0

    return strike


LINKS = {
    "worker - Supabase": "to_supabase",
    "worker - External": "to_external",
    "worker - Kafka": "to_kafka",
    "Connect - External": "capture",
}
SERVICES = ("connect", "kafka", "external", "supabase", "realtime")

FAULTS: Mapping[str, Callable[[World, float], None]] = {
    "worker killed": World.kill_worker,
    "worker frozen, partitions moved": World.freeze_worker,
    "worker stopped": World.stop_worker,
    "workers come and go": World.add_and_take_workers,
    **{f"{name} killed": _killed(name) for name in SERVICES},
    "realtime killed": _realtime_killed,
    **{f"{name} frozen": _frozen(name) for name in SERVICES},
    **{f"{link} cut": _cut(name) for link, name in LINKS.items()},
    **{f"{link} 200 ms late": _delayed(name) for link, name in LINKS.items()},
    "sessions terminated": World.terminate_sessions,
    "answers to commits lost": World.lose_commits,
    "connector restarted": World.restart_connectors,
    "Connect restarted gracefully": World.restart_connect,
    "configuration changed meanwhile": World.change_configuration,
}


@contextmanager
def world_of(rig: Rig) -> Iterator[World]:
    """A world with its workers ready."""
    with ExitStack() as proxies:
        world = World(rig, proxies)
        for worker in world.workers:
            worker.ready()
        yield world
