"""What breaks is told to a phone and a mailbox: one alert, one recovery, and how many seconds it took.

Intervals are those of an installation, but for what waits hours there.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, LiteralString, NamedTuple

import psycopg
import pytest

from ftstream.connect.client import ConnectClient
from ftstream.flows import FLOWS, GFX
from ftstream.local.demo.rig import SITES, Rig
from ftstream.watch.codes import CODES
from tests.conftest import until
from tests.system.faults import World
from tests.system.receiver import Mailbox, Receiver
from tests.system.scene import Worker
from tests.system.test_batch import FILL

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

PATIENT = {
    "FTSTREAM_APPLY__DEAD_AFTER_SECONDS": "5",
    "FTSTREAM_BATCH__INTERVAL_SECONDS": "5",
    "FTSTREAM_BATCH__LEAST_DELETES": "0",
    "FTSTREAM_WATCH__LOOK_SECONDS": "5",
    "FTSTREAM_WATCH__SECONDS": "10",
    "FTSTREAM_WATCH__VERIFY_SECONDS": "20",
}
"""What counts in minutes and hours, in seconds."""

CALM_SECONDS = 30.0
"""After a recovery: what else would be told by then is."""


class Duty(World):
    """A world with a watcher, and whoever is told."""

    def __init__(self, rig: Rig, stack: contextlib.ExitStack) -> None:
        super().__init__(rig, stack, PATIENT)
        self.receiver = stack.enter_context(Receiver())
        self.mailbox = stack.enter_context(Mailbox())
        self.watchers = [self.new_watcher()]
        self.watchers[0].until_said("INFO active")

    def new_watcher(self) -> Worker:
        to_whom = self.receiver.environment_with(self.mailbox.url)
        through = dict(self.through)
        for site, proxy in (("external", self.to_external), ("supabase", self.to_supabase)):
            name = f"FTSTREAM_{site.upper()}__WATCH_DSN"
            port = (
                self.scene.rig.settings.external
                if site == "external"
                else self.scene.rig.settings.supabase
            )
            dsn = port.watch_dsn.get_secret_value()
            through[name] = dsn.replace(f":{port.parameter('port')}/", f":{proxy.port}/")
        return self.scene.worker(command=("ftstream", "watch"), **(to_whom | PATIENT | through))

    def sql(self, site: Any, query: LiteralString, *values: object) -> None:
        self.scene.execute(site, query, *values)

    def command(self, *arguments: str) -> None:
        done = self.scene.command(*arguments)
        assert done.returncode == 0, done

    def until_well(self) -> None:
        """Wait until no alert is open; else say which is."""
        try:
            until(lambda: self.scene.command("alerts", "list").returncode == 0, 240)
        except AssertionError:
            raise AssertionError(self.scene.command("alerts", "list").stdout.decode()) from None

    def connect(self, work: Callable[[ConnectClient], Any]) -> None:
        async def run() -> None:
            async with ConnectClient(self.scene.rig.settings.connect) as client:
                await work(client)

        asyncio.run(run())


class Fault(NamedTuple):
    """What is done, what brings it back, and the code that is told of it; `besides`: what is so, too."""

    code: str
    strike: Callable[[Duty], object]
    mend: Callable[[Duty], object]
    besides: tuple[str, ...] = ()


def kill_workers(duty: Duty) -> None:
    for worker in duty.workers:
        worker.kill()
    duty.workers.clear()


def start_workers(duty: Duty) -> None:
    duty.workers += [duty.new_worker().ready(), duty.new_worker().ready()]


def hang(duty: Duty) -> None:
    duty.workers[0].process.send_signal(signal.SIGSTOP)


def wake(duty: Duty) -> None:
    duty.workers[0].process.send_signal(signal.SIGCONT)


def fail_task(duty: Duty) -> None:
    duty.sql(
        "external",
        "insert into gfx_sessions (session_id, file_name, file_hash, raw_json)"
        " values (%s, 'large', %s, jsonb_build_object('x', repeat(md5(random()::text), 600000)))",
        uuid.uuid4().int % 10**12,
        uuid.uuid4().hex,
    )


def drop_slot(duty: Duty) -> None:
    """Nobody can drop one that is read: it is dropped once its connector has let it go."""
    slot = duty.scene.capture.slot
    duty.scene.rig.stack.kill("connect")
    free = "select not active from pg_replication_slots where slot_name = %s"
    until(lambda: duty.scene.execute("external", free, slot) == [(True,)], 60)
    duty.sql("external", "select pg_drop_replication_slot(%s)", slot)
    duty.scene.rig.stack.start("connect")


def lead_back(duty: Duty) -> None:
    duty.command("init")
    duty.command("connectors", "apply")


class LongTransaction:
    """A transaction that lasts: slots keep the log from its begin on."""

    connection: psycopg.Connection

    @classmethod
    def strike(cls, duty: Duty) -> None:
        duty.sql("external", "alter system set max_slot_wal_keep_size = '200MB'")
        duty.sql("external", "select pg_reload_conf()")
        cls.connection = psycopg.connect(duty.scene.rig.dsn("external"))
        cls.connection.execute("insert into gfx_players (player_hash, name) values ('long', 'n')")
        for _ in range(12):
            duty.sql("external", "select pg_logical_emit_message(false, 'test', '')")
            duty.sql("external", "select pg_switch_wal()")

    @classmethod
    def mend(cls, duty: Duty) -> None:
        cls.connection.close()
        duty.sql("external", "alter system reset max_slot_wal_keep_size")
        duty.sql("external", "select pg_reload_conf()")


def cut(name: str) -> Callable[[Duty], None]:
    return lambda duty: getattr(duty, name).cut()


def restore(name: str) -> Callable[[Duty], None]:
    return lambda duty: getattr(duty, name).restore()


def fail_batch(duty: Duty) -> None:
    duty.sql("external", "create table kept as select * from wsop_players")
    duty.sql("external", "delete from wsop_players where wsop_player_id like 'P1%%'")


def refill(duty: Duty) -> None:
    duty.sql("external", "insert into wsop_players select * from kept on conflict do nothing")
    duty.sql("external", "drop table kept")


def poison(duty: Duty) -> None:
    duty.sql("supabase", "alter table gfx_players add constraint poison check (name <> 'poison')")
    duty.sql("external", "insert into gfx_players (player_hash, name) values ('poison', 'poison')")


def take_antidote(duty: Duty) -> None:
    duty.sql("supabase", "alter table gfx_players drop constraint poison")
    duty.command("dead", "retry", "--all")


def change_unseen(duty: Duty) -> None:
    duty.sql("external", "insert into gfx_players (player_hash, name) values ('unseen', 'n')")
    duty.scene.caught_up(GFX)
    duty.scene.uncaptured(
        "supabase", "update gfx_players set name = %s where player_hash = %s", "other", "unseen"
    )


FAULTS: Mapping[str, Fault] = {
    "all workers killed": Fault("FT106", kill_workers, start_workers),
    "one worker hangs": Fault("FT107", hang, wake),
    "a connector's task fails": Fault(
        "FT110", fail_task, lambda d: d.command("connectors", "apply", "gfx", "--pass-too-large")
    ),
    "a connector is stopped": Fault(
        "FT110",
        lambda d: d.connect(lambda c: c.stop(d.scene.capture.connector)),
        lambda d: d.command("connectors", "apply", "gfx"),
    ),
    "a connector is deleted": Fault(
        "FT110",
        lambda d: d.connect(lambda c: c.delete(d.scene.capture.connector)),
        lambda d: d.command("connectors", "apply", "gfx"),
    ),
    # Connect, which has to let it go, is restarted for it.
    "a slot is dropped": Fault("FT111", drop_slot, lead_back, ("FT104", "FT110", "FT141")),
    "the log runs out": Fault("FT112", LongTransaction.strike, LongTransaction.mend),
    "Supabase is away": Fault("FT102", cut("to_supabase"), restore("to_supabase")),
    "External is away": Fault("FT101", cut("to_external"), restore("to_external")),
    "Kafka is down": Fault(
        "FT103", lambda d: d.stack.kill("kafka"), lambda d: d.stack.start("kafka")
    ),
    "Connect is down": Fault(
        "FT104", lambda d: d.stack.kill("connect"), lambda d: d.stack.start("connect")
    ),
    "a batch fails": Fault("FT151", fail_batch, refill),
    "a change is poison": Fault("FT131", poison, take_antidote),
    "a trigger is switched off": Fault(
        "FT140",
        lambda d: d.sql("supabase", "alter table cue_sheets disable trigger ftstream_capture"),
        lambda d: d.command("init"),
        ("FT141",),
    ),
    "a publication is changed": Fault(
        "FT140",
        lambda d: d.scene.execute(
            "external",
            "do $$ begin execute format('alter publication %I drop table gfx_players',"
            " (select pubname from pg_publication_tables where tablename = 'gfx_players')); end $$",
        ),
        lambda d: d.command("init"),
        ("FT141",),
    ),
    "a row is changed unseen": Fault(
        "FT170", change_unseen, lambda d: d.command("verify", "gfx", "--repair", "--yes")
    ),
}


@pytest.fixture(scope="module")
def duty(rig: Rig) -> Iterator[Duty]:
    with contextlib.ExitStack() as stack:
        duty = Duty(rig, stack)
        duty.command("init")
        duty.command("connectors", "apply")
        duty.sql("external", FILL[0], 5)
        duty.sql("external", FILL[1], 40)
        for worker in duty.workers:
            worker.ready()
        duty.scene.caught_up(*FLOWS)
        duty.until_well()
        yield duty


@pytest.mark.parametrize("name", FAULTS)
def test_what_breaks_is_told_once_and_its_end_once(
    duty: Duty, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = FAULTS[name]
    with duty.scene.load(rate=20, patient=True):
        duty.scene.until_applied(20)
        before, since = len(duty.receiver.taken), len(duty.receiver.told(fault.code))
        mails, ended = (
            len(duty.mailbox.told(fault.code)),
            len(duty.receiver.told(fault.code, over=True)),
        )
        began = time.monotonic()
        fault.strike(duty)
        told = duty.receiver.wait_for(fault.code, since=since)
        mail = duty.mailbox.wait_for(fault.code, since=mails)
        fault.mend(duty)
        mended = time.monotonic()
        over = duty.receiver.wait_for(fault.code, over=True, since=ended, seconds=240)
        duty.until_well()
        time.sleep(CALM_SECONDS)
    texts = [each.text for each in duty.receiver.taken[before:]]
    with capsys.disabled():
        print(
            f"\n| {name} | {fault.code} {CODES[fault.code].title} | {told.at - began:.0f} s"
            f" | {mail.at - began:.0f} s | {over.at - mended:.0f} s |",
            end=" ",
        )
    others = [
        text for text in texts if not any(f"[{c}]" in text for c in (fault.code, *fault.besides))
    ]
    assert others == []
    assert sum(f"[{fault.code}]" in t and "(over)" not in t for t in texts) == 1, texts
    assert sum(f"[{fault.code}]" in t and "(over)" in t for t in texts) == 1, texts


def test_a_watcher_that_is_killed_is_missed_and_another_takes_over(
    duty: Duty, capsys: pytest.CaptureFixture[str]
) -> None:
    second = duty.new_watcher()
    time.sleep(5)
    before, ended = (len(duty.receiver.told("FT106", over=over)) for over in (False, True))
    began = time.monotonic()
    duty.watchers.pop().kill()
    second.until_said("INFO active", seconds=60)
    seconds = time.monotonic() - began
    duty.watchers.append(second)
    until(lambda: duty.receiver.beats[-1] > began + seconds)
    silent = min(beat for beat in duty.receiver.beats if beat > began) - began
    with capsys.disabled():
        print(
            f"\n| the watcher is killed | no heartbeat for {silent:.0f} s | {seconds:.0f} s | | |"
        )
    kill_workers(duty)
    duty.receiver.wait_for("FT106", since=before)
    start_workers(duty)
    duty.receiver.wait_for("FT106", over=True, since=ended)
    assert [
        site for site in SITES if not duty.scene.execute(site, "select 1 from ftstream.alert")
    ] == []
