"""Workers that are killed, stopped, started early, misled and doubled: each change takes effect once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product
from typing import LiteralString

import pytest

from ftstream.flows import FLOWS, Site
from ftstream.local.demo.rig import SITES, Rig
from ftstream.setup.expectations import wanted
from tests.conftest import until
from tests.system.scene import Scene, set_up

SEED = 20_260_301
CONNECTIONS: LiteralString = (
    "select count(*) from pg_stat_activity"
    " where (datname, usename) = (current_database(), 'ftstream_apply')"
)


@pytest.fixture(scope="module")
def scene(rig: Rig) -> Iterator[Scene]:
    with set_up(rig) as scene:
        yield scene


def test_worker_killed_at_random_moments_applies_each_change_once(scene: Scene) -> None:
    chance = random.Random(SEED)
    worker = scene.worker().ready()
    with scene.load():
        for _ in range(3):
            scene.until_applied(chance.randrange(50, 900))
            worker.kill()
            worker = scene.worker()
        scene.until_applied(chance.randrange(50, 900))
    scene.must_be_in_step()
    assert worker.stop() == 0


def test_sigterm_writes_what_was_read_commits_it_and_leaves_the_group(scene: Scene) -> None:
    worker = scene.worker().ready()
    with scene.load():
        scene.until_applied(500)
        for site in Site:
            held = scene.execute(site.value, CONNECTIONS)[0][0]
            assert 0 < held <= wanted(site, FLOWS, scene.rig.settings).worker_connections
        assert worker.stop() == 0
    assert scene.committed() == scene.offsets()
    assert scene.members() == 0
    lines = [line for line in worker.log.splitlines() if " INFO " in line]
    said = [line.split(" ", 3)[3].split(":")[0] for line in lines]
    own = [words for words in said if "Realtime" not in words]  # which says so when it likes
    assert own == ["started", "57 partitions assigned", "ready", "stopping", "stopped"]
    next_one = scene.worker().ready()
    scene.must_be_in_step()
    next_one.stop()


def test_group_offsets_are_not_believed(scene: Scene) -> None:
    before = scene.worker().ready()
    scene.write(500)
    scene.caught_up()
    before.stop()

    logged, versions = scene.applied, scene.versions()
    scene.set_group("start")
    set_back = scene.worker().ready()
    scene.caught_up()
    assert (scene.applied, scene.versions()) == (logged, versions)
    set_back.stop()

    scene.write(500)  # these would be skipped
    scene.until_captured()
    scene.set_group("end")
    set_ahead = scene.worker().ready()
    scene.must_be_in_step()
    set_ahead.stop()


def test_two_workers_share_the_partitions_and_outlive_each_other(scene: Scene) -> None:
    first, second = scene.worker().ready(), scene.worker().ready()
    until(lambda: scene.members() == 2)
    with scene.load():
        scene.until_applied(500)
        first.kill()
        third = scene.worker()
        third.ready()
        scene.until_applied(500)
        assert second.stop() == 0
        scene.until_applied(500)
    scene.must_be_in_step()
    assert third.stop() == 0


def test_flow_that_halts_says_in_one_line_what_to_do(scene: Scene) -> None:
    worker = scene.worker().ready()
    scene.execute("supabase", "alter table gfx_hand_players rename to mislaid")
    with scene.load():
        worker.halted()
    scene.execute("supabase", "alter table mislaid rename to gfx_hand_players")
    assert "flow gfx halted" in worker.errors[0]
    assert "gfx_hand_players" in worker.errors[0]
    assert "create it on the target" in worker.errors[0]

    repaired = scene.worker().ready()
    scene.must_be_in_step()
    repaired.stop()


def test_applied_offset_beyond_the_log_halts_the_flow(scene: Scene) -> None:
    move = "update ftstream.applied_offset set next_offset = next_offset + %s where topic like %s"
    scene.execute("supabase", move, 1_000_000, "%gfx_hands")
    worker = scene.worker()
    worker.halted()
    scene.execute("supabase", move, -1_000_000, "%gfx_hands")
    assert "the topic was recreated: it ends at offset" in worker.errors[0]
    assert "`ftstream accept-loss`" in worker.errors[0]


def test_worker_of_which_every_flow_halts_ends(scene: Scene) -> None:
    tables = [flow.tables[-1].name for flow in FLOWS]
    for site, table in product(SITES, tables):
        scene.rename(site, table, f"mislaid_{table}")
    try:
        worker = scene.worker()
        assert worker.ended() == 1
    finally:
        for site, table in product(SITES, tables):
            scene.rename(site, f"mislaid_{table}", table)
    assert len(worker.errors) == 1
    assert "halted: table public." in worker.errors[0]


def test_fausts_own_command_runs_the_same_worker(scene: Scene) -> None:
    worker = scene.worker(command=("faust", "-A", "ftstream.app", "worker", "-l", "info")).ready()
    scene.write(300)
    scene.must_be_in_step()
    assert worker.stop() == 0


def test_worker_started_before_everything_else_waits_and_then_works(scene: Scene) -> None:
    stack = scene.rig.stack
    for name in ("connect", "kafka", "external", "supabase"):
        stack.stop(name)
    try:
        worker = scene.worker()
        worker.until_said("retrying: Kafka does not answer")
        stack.start("kafka")
        worker.until_said("flow gfx: retrying")
    finally:
        for name in ("kafka", "external", "supabase", "connect"):
            stack.start(name)
    worker.ready()
    assert worker.said("flow gfx: recovered") == 1
    scene.write(300)
    scene.must_be_in_step()
    assert worker.stop() == 0


def test_worker_that_still_waits_for_its_databases_can_be_stopped(scene: Scene) -> None:
    worker = scene.worker(FTSTREAM_EXTERNAL__DSN="postgresql://nobody@127.0.0.1:1/none")
    worker.until_said("retrying")
    assert worker.stop() == 0


def test_no_log_of_a_worker_holds_a_password(scene: Scene) -> None:
    logs = list((scene.rig.stack.folder / "logs").glob(f"{scene.rig.namespace}-*.log"))
    settings = scene.rig.settings
    secrets = {
        database.parameter("password") for database in (settings.external, settings.supabase)
    }
    assert logs
    assert all(secrets)
    for log in logs:
        text = log.read_text()
        assert not any(secret in text for secret in secrets)
