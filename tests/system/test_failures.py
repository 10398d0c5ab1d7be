"""Databases that fail in every way: nothing is discarded, the flow recovers, the log tells it once."""

from __future__ import annotations

import os
import pwd
import random
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from ftstream.local.demo.rig import Rig
from tests.conftest import until
from tests.system.proxy import Proxy
from tests.system.scene import Scene, Worker, pass_for_the_worker, set_up

SEED = 7
TRIES = "flow gfx: recovered after"


@pytest.fixture(scope="module")
def scene(rig: Rig) -> Iterator[Scene]:
    with set_up(rig) as scene:
        yield scene


@pytest.fixture(scope="module")
def worker(scene: Scene) -> Worker:
    """One worker lives through all that follows; each test leaves it well."""
    return scene.worker(FTSTREAM_APPLY__STATEMENT_TIMEOUT_MS="2000").ready()


@pytest.fixture(autouse=True)
def in_step_at_the_end(scene: Scene, worker: Worker) -> Iterator[None]:
    yield
    assert worker.process.poll() is None, worker.log
    assert "Traceback" not in worker.log
    scene.must_be_in_step()


def test_sessions_terminated_under_load(scene: Scene, worker: Worker) -> None:
    chance = random.Random(SEED)
    end = (
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'ftstream' and pid <> pg_backend_pid()"
    )
    with scene.load():
        for _ in range(8):
            scene.until_applied(chance.randrange(1, 300))
            scene.execute("supabase", end)
            scene.execute("external", end)


BOOM: LiteralString = """
    create sequence boom;
    create function boom() returns trigger language plpgsql as $$ begin
        if nextval('boom') <= 3 then
            {effect}
        end if;
        return null;
    end $$;
    grant all on sequence boom to public;
"""
"""The first three times something goes wrong; a sequence counts on, whatever is rolled back."""

PLACES: dict[str, LiteralString] = {
    "after the offsets": "create trigger boom after update on ftstream.applied_offset"
    " for each statement execute function boom();"
    " alter table ftstream.applied_offset enable always trigger boom",
    "between two tables": "create trigger boom after insert on gfx_hands"
    " for each statement execute function boom();"
    " alter table gfx_hands enable always trigger boom",
    "after the log": "create trigger boom after insert on ftstream.sync_log"
    " for each statement execute function boom();"
    " alter table ftstream.sync_log enable always trigger boom",
    "in the commit": "create constraint trigger boom after update on ftstream.applied_offset"
    " deferrable initially deferred for each row execute function boom();"
    " alter table ftstream.applied_offset enable always trigger boom",
}

EFFECTS: dict[str, LiteralString] = {
    "connection lost": "perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(1);",
    "serialization failure": "raise exception 'no' using errcode = '40001';",
    "deadlock": "raise exception 'no' using errcode = '40P01';",
    "statement timeout": "perform pg_sleep(5);",
    "out of memory": "raise exception 'no' using errcode = '53200';",
}


def boom(scene: Scene, place: str, effect: str) -> None:
    """Apply a change while something goes wrong three times at this place."""
    scene.execute("supabase", BOOM.replace("{effect}", EFFECTS[effect]) + PLACES[place])
    try:
        with scene.load():
            until(lambda: scene.execute("supabase", "select last_value > 3 from boom")[0][0], 60)
    finally:
        scene.execute("supabase", "drop function boom cascade; drop sequence boom")


def test_connection_lost_between_any_two_statements(scene: Scene, worker: Worker) -> None:
    for place in PLACES:
        recovered = worker.said(TRIES)
        boom(scene, place, "connection lost")
        worker.until_said(TRIES, recovered + 1)


def test_transaction_that_the_database_gives_up_is_tried_again(
    scene: Scene, worker: Worker
) -> None:
    for effect in EFFECTS.keys() - {"statement timeout"}:
        recovered = worker.said(TRIES)
        boom(scene, "after the log", effect)
        worker.until_said(TRIES, recovered + 1)


def test_batch_that_takes_too_long_is_divided(scene: Scene, worker: Worker) -> None:
    boom(scene, "after the log", "statement timeout")


def test_commit_whose_answer_is_lost_is_not_repeated(scene: Scene, worker: Worker) -> None:
    site = scene.rig.settings.supabase
    port = int(site.parameter("port"))
    with Proxy(port) as proxy:
        dsn = site.dsn.get_secret_value().replace(f":{port}/", f":{proxy.port}/")
        through = scene.worker(FTSTREAM_SUPABASE__DSN=dsn).ready()
        with scene.load():
            until(lambda: _loses_another_commit(proxy, times=5), 60)
        through.until_said(TRIES)
        scene.must_be_in_step()
        assert through.stop() == 0


def _loses_another_commit(proxy: Proxy, times: int) -> bool:
    if not proxy.lose_commits and proxy.lost < times:
        proxy.lose_commits = 1
    return proxy.lost >= times


def test_supabase_down_under_load_is_told_once(scene: Scene, worker: Worker) -> None:
    retrying, recovered = worker.said("retrying"), worker.said(TRIES)
    with scene.load():
        scene.until_applied(100)
        scene.rig.stack.stop("supabase")
        worker.until_said("retrying", retrying + 1)
        written = _written(scene)
        until(lambda: _written(scene) > written + 1_500, 60)  # about eight seconds of it
        scene.rig.stack.start("supabase")
        worker.until_said(TRIES, recovered + 1)
    assert worker.said("retrying") - retrying <= 3  # ending, gone, starting
    assert worker.said(TRIES) - recovered == 1


def _written(scene: Scene) -> int:
    counters = "select sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_stat_user_tables"
    return int(scene.execute("external", counters)[0][0])


def test_locked_row_waits_alone_and_its_holder_is_never_a_victim(
    scene: Scene, worker: Worker
) -> None:
    scene.write(300)
    scene.caught_up()
    one, other = _two_hands(scene)
    parked = worker.said("changes parked")
    with psycopg.connect(scene.rig.dsn("supabase")) as user:
        lock: LiteralString = "select from gfx_hands where id = %s for update"
        user.execute(lock, [one])
        rename = "update gfx_hands set description = 'seen' where id = any(%s::uuid[])"
        scene.execute("external", rename, [one, other])
        worker.until_said("changes parked", parked + 1)
        scene.caught_up()  # nobody else waits
        seen: LiteralString = "select id::text from gfx_hands where description = 'seen'"
        assert scene.execute("supabase", seen) == [(other,)]
        tries = _lock_waits(scene)
        until(lambda: _lock_waits(scene) >= tries + 3)
        user.execute(lock, [other])
    until(lambda: len(scene.execute("supabase", seen)) == 2)
    assert worker.said("changes parked") - parked == 1


def test_locked_table_is_waited_for(scene: Scene, worker: Worker) -> None:
    retrying, recovered = worker.said("retrying"), worker.said(TRIES)
    with psycopg.connect(scene.rig.dsn("supabase")) as user:
        user.execute("lock table gfx_hands in share mode")
        with scene.load():
            worker.until_said("retrying", retrying + 1)
            logged, tries = scene.applied, _lock_waits(scene)
            until(lambda: _lock_waits(scene) >= tries + 3)
            assert scene.applied == logged
            user.rollback()
            worker.until_said(TRIES, recovered + 1)
    assert worker.said("retrying") - retrying == worker.said(TRIES) - recovered


def _two_hands(scene: Scene) -> tuple[str, str]:
    rows = scene.execute("external", "select id::text from gfx_hands order by id limit 2")
    return rows[0][0], rows[1][0]


def _lock_waits(scene: Scene) -> int:
    return _server_said(scene, "canceling statement due to lock timeout")


def _server_said(scene: Scene, words: str) -> int:
    """How many times: each is one try of the worker, of which its own log tells the first only."""
    return scene.rig.stack.log("supabase").read_text(errors="replace").count(words)


def test_read_only_database_is_waited_for(scene: Scene, worker: Worker) -> None:
    told = r"flow gfx: retrying: .*read-only"
    retrying, recovered = worker.matched(told), worker.said(TRIES)
    refused = _server_said(scene, "in a read-only transaction")
    _set_read_only(scene, "on")
    try:
        with scene.load():
            until(lambda: worker.matched(told) > retrying)
            until(lambda: _server_said(scene, "in a read-only transaction") >= refused + 3)
    finally:
        _set_read_only(scene, "off")
    worker.until_said(TRIES, recovered + 1)
    assert worker.matched(told) - retrying == 1


def _set_read_only(scene: Scene, value: LiteralString) -> None:
    """As Supabase does when its disk is full; sessions that are there are ended."""
    with psycopg.connect(
        scene.rig.stack.dsn("supabase", "supabase_admin"), autocommit=True
    ) as any_:
        change = sql.SQL("alter database {} set default_transaction_read_only = " + value)
        any_.execute(change.format(sql.Identifier(scene.rig.namespace)))
        end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s"
        any_.execute(end, [scene.rig.namespace])


@pytest.fixture
def small_disk(scene: Scene) -> Iterator[Path]:
    """A file system of a few megabytes, mounted where the server can write to it."""
    folder = Path("/var/tmp") / f"ftstream-disk-{os.getpid()}"
    folder.mkdir()
    as_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    server = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.getuid())
    options = f"size=16m,mode=700,uid={server.pw_uid},gid={server.pw_gid}"
    mount = [*as_root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    try:
        assert done.returncode == 0, f"needs root, or sudo without a password: {done.stderr}"
        yield folder
    finally:
        # Lazily: a session of the server may have a file open still.
        subprocess.run([*as_root, "umount", "--lazy", str(folder)], check=False)
        folder.rmdir()


def test_full_disk_is_waited_for(scene: Scene, worker: Worker, small_disk: Path) -> None:
    retrying, recovered = worker.said("disk is full"), worker.said(TRIES)
    refused = _server_said(scene, "could not extend file") + 1
    with psycopg.connect(scene.rig.dsn("supabase", "supabase_admin"), autocommit=True) as admin:
        place = sql.SQL("create tablespace small_disk location {}")
        admin.execute(place.format(sql.Literal(str(small_disk))))
        try:
            # autovacuum would give the space of the insert that fails back.
            admin.execute(
                "create table ballast (x text) with (autovacuum_enabled = off) tablespace small_disk"
            )
            admin.execute("alter table gfx_hand_players set tablespace small_disk")
            with pytest.raises(psycopg.errors.DiskFull):
                admin.execute(
                    "insert into ballast select repeat('x', 999) from generate_series(1, 99999)"
                )
            with scene.load():
                worker.until_said("disk is full", retrying + 1)
                until(lambda: _server_said(scene, "could not extend file") >= refused + 3)
                admin.execute("drop table ballast")  # an operator frees space
                worker.until_said(TRIES, recovered + 1)
            scene.caught_up()
        finally:
            admin.execute("drop table if exists ballast")
            admin.execute("alter table gfx_hand_players set tablespace pg_default")
            until(lambda: _dropped(admin))
    # A vacuum finds room for a batch or two before the disk is full again: each time is told once.
    told = worker.said("disk is full") - retrying
    assert told == worker.said(TRIES) - recovered
    assert _server_said(scene, "could not extend file") - refused > told


def _dropped(admin: psycopg.Connection) -> bool:
    admin.execute("checkpoint")  # files of dropped tables go only then
    try:
        admin.execute("drop tablespace small_disk")
    except psycopg.errors.ObjectNotInPrerequisiteState:
        return False
    return True


def test_rebalance_while_the_database_is_down(scene: Scene, worker: Worker) -> None:
    ready = worker.said("ready")
    other = scene.worker().ready()
    worker.until_said("ready", ready + 1)
    assigned = worker.said("partitions assigned")
    with scene.load():
        scene.until_applied(100)
        scene.rig.stack.stop("supabase")
        other.kill()
        worker.until_said("partitions assigned", assigned + 1)
        scene.rig.stack.start("supabase")
        worker.until_said("ready", ready + 2)
        scene.until_applied(100)


# -- unique values that move between rows


@pytest.fixture(scope="module")
def piecemeal(scene: Scene, worker: Worker) -> Iterator[Worker]:
    """A second worker, so that partitions, and with them batches, lie in different hands."""
    ready = worker.said("ready")
    other = scene.worker(FTSTREAM_APPLY__BATCH_ROWS="1").ready()
    worker.until_said("ready", ready + 1)
    yield other
    assert other.errors == []
    assert other.stop() == 0


@pytest.mark.parametrize("seats", [2, 3, 5])
def test_cycle_of_seats_across_batches_and_workers(
    scene: Scene, piecemeal: Worker, seats: int
) -> None:
    hand = _new_hand(scene, seats)
    scene.caught_up()
    for _ in range(10):
        with psycopg.connect(scene.rig.dsn("external")) as importer:
            move: LiteralString = (
                "update gfx_hand_players set seat_num = %s where hand_id = %s and seat_num = %s"
            )
            importer.execute(move, [10, hand, seats])
            for seat in range(seats - 1, 0, -1):
                importer.execute(move, [seat + 1, hand, seat])
            importer.execute(move, [1, hand, 10])


def _new_hand(scene: Scene, seats: int) -> str:
    (row,) = scene.execute(
        "external",
        "insert into gfx_hands (session_id, hand_num, start_time)"
        " select -1, coalesce(max(hand_num), 0) + 1, now() from gfx_hands where session_id = -1"
        " returning id::text",
    )
    scene.execute(
        "external",
        "insert into gfx_hand_players (hand_id, seat_num, player_name)"
        " select %s, n, 'Player ' || n from generate_series(1, %s) n",
        row[0],
        seats,
    )
    return str(row[0])


def test_hands_that_pass_their_numbers_round(scene: Scene, piecemeal: Worker) -> None:
    hands = [_new_hand(scene, 1) for _ in range(4)]
    scene.caught_up()
    with psycopg.connect(scene.rig.dsn("external"), autocommit=True) as importer:
        for _ in range(10):
            with importer.transaction():
                numbers = [
                    importer.execute(
                        "select hand_num from gfx_hands where id = %s", [hand]
                    ).fetchall()[0][0]
                    for hand in hands
                ]
                importer.execute("update gfx_hands set hand_num = -hand_num where session_id = -1")
                for hand, number in zip(hands, numbers[1:] + numbers[:1], strict=True):
                    importer.execute(
                        "update gfx_hands set hand_num = %s where id = %s", [number, hand]
                    )
                importer.execute(
                    "update gfx_hands set hand_num = -hand_num where session_id = -1 and hand_num < 0"
                )


def test_session_imported_again_under_another_primary_key(scene: Scene, piecemeal: Worker) -> None:
    scene.execute(
        "external",
        "insert into gfx_sessions (session_id, file_name, file_hash, raw_json)"
        " values (-7, 'a.json', 'hash of a', jsonb_build_object('x', repeat('long', 9000)))",
    )
    for _ in range(10):
        scene.execute(
            "external", "update gfx_sessions set id = gen_random_uuid() where session_id = -7"
        )


def test_row_in_the_way_that_external_does_not_have_gives_way(scene: Scene, worker: Worker) -> None:
    stray = str(uuid.uuid4())
    with psycopg.connect(scene.rig.dsn("supabase", "supabase_admin")) as intruder:
        pass_for_the_worker(intruder)
        intruder.execute(
            "insert into gfx_players (id, player_hash, name) values (%s, 'taken', 'Stray')", [stray]
        )
    scene.execute(
        "external", "insert into gfx_players (player_hash, name) values ('taken', 'Owner')"
    )
    scene.caught_up()
    query: LiteralString = "select name from gfx_players where player_hash = 'taken'"
    assert scene.execute("supabase", query) == [("Owner",)]
    kept: LiteralString = "select image->>'name' from ftstream.displaced where entity_id = %s"
    assert scene.execute("supabase", kept, stray) == [("Stray",)]
