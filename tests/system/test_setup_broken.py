"""What somebody breaks while all runs is told in seconds, and one command leads back to equal sites."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest

from ftstream.compare.verification import verify
from ftstream.connect.client import ConnectClient
from ftstream.flows import CUE_SHEETS, GFX, OVERRIDES
from ftstream.kafka.topics import capture_topics, delete_topics
from ftstream.local.demo.rig import SITES, Rig, SiteName
from tests.conftest import until
from tests.system.scene import Scene, Worker, set_up

TOLD_SECONDS = 30.0
CLOSED_SECONDS = 90.0
"""For a comparison of all tables of a flow, on a slow machine."""

PLAYER: LiteralString = "insert into gfx_players (player_hash, name) values (md5(%s), %s)"


@pytest.fixture(scope="module")
def scene(rig: Rig) -> Iterator[Scene]:
    with set_up(rig, (GFX, OVERRIDES)) as scene:
        yield scene


@pytest.fixture(scope="module")
def worker(scene: Scene) -> Iterator[Worker]:
    started = scene.worker(FTSTREAM_WATCH__SECONDS="1").ready()
    until(lambda: bool(scene.execute("external", "select 1 from ftstream.setup_seen")))
    yield started
    assert started.stop() == 0


def unread(scene: Scene, kind: str, words: str) -> list[dict[str, Any]]:
    told = json.loads(scene.command("notifications", "--json").stdout)
    return [each for each in told if each["type"] == kind and words in each["title"]]


def told(scene: Scene, words: str) -> None:
    """Somebody is told; `status` and `wait` do not say that all is well."""
    until(lambda: bool(unread(scene, "setup_broken", words)), TOLD_SECONDS)
    for command in (("status",), ("wait", "--timeout", "3")):
        done = scene.command(*command)
        assert done.returncode == 1, done
        assert words in (done.stdout + done.stderr).decode()


def over(scene: Scene, words: str) -> None:
    until(lambda: bool(unread(scene, "setup_mended", words)), TOLD_SECONDS)


def gaps(scene: Scene) -> list[Any]:
    return [
        row for site in SITES for row in scene.execute(site, "select table_name from ftstream.gap")
    ]


def closed(scene: Scene) -> None:
    """The worker has compared what may be missing, by itself, and the sites are equal."""
    until(lambda: not gaps(scene), CLOSED_SECONDS)
    for flow in (GFX, OVERRIDES, CUE_SHEETS):
        scene.caught_up(flow)
        verdicts = asyncio.run(verify(flow, scene.rig.settings))
        assert [v for v in verdicts if not v.equal] == []
    until(lambda: scene.command("status").returncode == 0, TOLD_SECONDS)


def players(scene: Scene, site: SiteName) -> set[str]:
    return {name for (name,) in scene.execute(site, "select name from gfx_players")}


def hand(scene: Scene, site: SiteName, query: LiteralString, *values: object) -> None:
    scene.execute(site, query, *values)


def publication(scene: Scene) -> psycopg.sql.Identifier:
    return psycopg.sql.Identifier(scene.capture.publication)


def test_external_that_was_restored_from_a_backup(scene: Scene) -> None:
    """Its flows halt until somebody accepts it; then nothing that either site has is lost.

    First of all, since no other worker may run beside the one that is restarted.
    """
    started = scene.worker(FTSTREAM_WATCH__SECONDS="1").ready()
    stack = scene.rig.stack
    hand(scene, "external", PLAYER, "before", "before")
    scene.caught_up()
    data = stack.data("external")
    copy = data.with_name("copy")
    stack.stop("external")
    subprocess.run(["cp", "-a", str(data), str(copy)], check=True)
    stack.start("external")
    hand(scene, "external", "delete from gfx_players where name = 'before'")
    for n in range(100):
        hand(scene, "external", PLAYER, f"lost {n}", f"lost {n}")
    edit: LiteralString = (
        "insert into player_overrides (wsop_player_id, field_name, override_value, reason, created_by)"
        " values (gen_random_uuid(), 'name', %s, 'r', 'test')"
    )
    hand(scene, "external", edit, "after the backup")
    scene.caught_up(GFX, OVERRIDES)
    stack.stop("external")
    shutil.rmtree(data)
    copy.rename(data)
    stack.start("external")
    hand(scene, "external", PLAYER, "since", "since")
    hand(scene, "external", edit, "since the restore")
    until(lambda: bool(unread(scene, "setup_broken", "gone back in time")), 60)
    assert b"ftstream restored external" in scene.command("status").stdout
    started.until_said("flow gfx halted: external: it has gone back in time")
    started.stop()
    for command in (("restored", "external", "--yes"), ("init",), ("connectors", "apply")):
        scene.rig.run(*command)
    again = scene.worker(FTSTREAM_WATCH__SECONDS="1").ready()
    # A hundred rows that External lost are many: a person is asked.
    until(lambda: bool(unread(scene, "gap_left", "public.gfx_players")), CLOSED_SECONDS)
    assert len(players(scene, "supabase")) > 100
    done = scene.command("verify", "gfx", "--table", "gfx_players", "--repair", "--yes")
    assert done.returncode in (0, 1), again.log  # what it has repaired may be in flight still
    closed(scene)
    assert players(scene, "supabase") == players(scene, "external") >= {"before", "since"}
    values = {
        v for (v,) in scene.execute("external", "select override_value from player_overrides")
    }
    assert values >= {"after the backup", "since the restore"}
    assert again.stop() == 0


def test_a_table_taken_from_the_publication(scene: Scene, worker: Worker) -> None:
    hand(scene, "external", "delete from gfx_players")
    for name in ("goes", "stays"):
        hand(scene, "external", PLAYER, name, name)
    scene.caught_up()
    with psycopg.connect(scene.rig.dsn("external"), autocommit=True) as connection:
        lacks = psycopg.sql.SQL("alter publication {} drop table gfx_players")
        connection.execute(lacks.format(publication(scene)))
    hand(scene, "external", PLAYER, "missing", "missing")
    hand(scene, "external", "delete from gfx_players where name = 'goes'")
    told(scene, f"publication {scene.capture.publication} lacks public.gfx_players")
    assert players(scene, "supabase") == {"goes", "stays"}
    scene.rig.run("init")
    over(scene, "lacks public.gfx_players")
    closed(scene)
    assert players(scene, "supabase") == players(scene, "external") == {"missing", "stays"}
    assert unread(scene, "gap_closed", "public.gfx_players")


def test_triggers_switched_off_and_on_as_pg_restore_does(scene: Scene, worker: Worker) -> None:
    hand(scene, "supabase", "alter table player_overrides disable trigger all")
    hand(
        scene,
        "supabase",
        "insert into player_overrides (wsop_player_id, field_name, override_value, reason, created_by)"
        " values (gen_random_uuid(), 'name', 'unnoted', 'r', 'test')",
    )
    hand(scene, "supabase", "alter table player_overrides enable trigger all")
    told(scene, "trigger ftstream_capture of public.player_overrides is switched off")
    scene.rig.run("init")
    over(scene, "trigger ftstream_capture of public.player_overrides")
    closed(scene)
    query: LiteralString = "select override_value from player_overrides"
    there = set(scene.execute("external", query))
    assert there == set(scene.execute("supabase", query)) and ("unnoted",) in there


@pytest.mark.parametrize("how", ["pause", "stop"])
def test_a_connector_that_somebody_has_paused(scene: Scene, worker: Worker, how: str) -> None:
    async def hold() -> None:
        async with ConnectClient(scene.rig.settings.connect) as client:
            await client._request("PUT", f"/connectors/{scene.capture.connector}/{how}")

    asyncio.run(hold())
    hand(scene, "external", PLAYER, how, how)
    held = "paused" if how == "pause" else "stopped"
    told(scene, f"connector {scene.capture.connector} is {held}")
    said = scene.rig.run("connectors", "apply", "gfx")
    assert f"somebody has it {held}: resuming it" in said
    over(scene, f"is {held}")
    closed(scene)
    assert how in players(scene, "supabase")


def test_a_slot_that_somebody_has_dropped(scene: Scene, worker: Worker) -> None:
    hand(scene, "external", PLAYER, "goes", "goes")
    scene.caught_up()

    async def stop() -> None:
        async with ConnectClient(scene.rig.settings.connect) as client:
            await client.stop(scene.capture.connector)
            await client._wait_stopped(scene.capture.connector)

    asyncio.run(stop())
    slot = scene.capture.slot
    until(
        lambda: (
            scene.execute(
                "external", "select active from pg_replication_slots where slot_name = %s", slot
            )
            == [(False,)]
        )
    )
    hand(scene, "external", "select pg_drop_replication_slot(%s)", slot)
    hand(scene, "external", PLAYER, "slotless", "slotless")
    hand(scene, "external", "delete from gfx_players where name = 'goes'")
    told(scene, f"replication slot {slot} does not exist")
    refused = scene.command("connectors", "apply", "gfx")
    assert refused.returncode == 1 and b"run `ftstream init`" in refused.stderr
    scene.rig.run("init")
    assert "its position in the log is lost" in scene.rig.run("connectors", "apply", "gfx")
    closed(scene)
    assert "slotless" in players(scene, "supabase") and "goes" not in players(scene, "supabase")


def test_small_topics_that_somebody_has_deleted(scene: Scene, worker: Worker) -> None:
    settings = scene.rig.settings
    specs = capture_topics(scene.capture, settings)
    assert asyncio.run(delete_topics(settings, specs))
    told(scene, f"topic {scene.capture.heartbeat_topic} is missing")
    for command in (["connectors", "status"], ["backfill", "gfx_players"]):
        done = scene.command(*command)
        assert done.returncode == 1 and b"Traceback" not in done.stderr
        assert b"`ftstream connectors apply` makes it again" in done.stdout + done.stderr
    scene.rig.run("connectors", "apply", "gfx")
    over(scene, f"topic {scene.capture.heartbeat_topic} is missing")
    hand(scene, "external", PLAYER, "after topics", "after topics")
    closed(scene)
    assert "after topics" in players(scene, "supabase")
