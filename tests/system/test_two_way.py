"""Both sites edited at once, through Kafka: they agree, and each write is one message on one topic."""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest

from ftstream.capture import outbox, publisher
from ftstream.compare.verification import verify
from ftstream.flows import CUE_SHEETS, GFX, OVERRIDES, CaptureNames, Names, Site, log_captures
from ftstream.local.demo.rig import SITES, Rig, SiteName
from tests.conftest import until
from tests.system.edits import Edits, messages, must_agree
from tests.system.scene import Scene, Worker, set_up

PLAYER = str(uuid.UUID(int=1))
EARLY = str(uuid.UUID(int=2))
INSERT: LiteralString = (
    "insert into player_overrides (id, gfx_player_id, field_name, override_value, reason, created_by)"
    " values (%s, %s, 'name', %s, 'r', 'test')"
)

UPSERT: LiteralString = (
    INSERT + " on conflict (id) do update set override_value = excluded.override_value"
)


@pytest.fixture(scope="module")
def scene(rig: Rig) -> Iterator[Scene]:
    """With a write that was committed before there was a connector to capture it."""
    rig.run("init")
    scene = Scene(rig)
    scene.execute(
        "external", "insert into gfx_players (id, player_hash, name) values (%s, 'h', 'n')", PLAYER
    )
    scene.execute("external", INSERT, EARLY, PLAYER, "early")
    with set_up(rig, [GFX, OVERRIDES]) as scene:
        yield scene


@pytest.fixture(scope="module")
def workers(scene: Scene) -> Iterator[list[Worker]]:
    started = [scene.worker().ready()]
    yield started
    for worker in started:
        assert worker.stop() == 0, worker.log


def value(scene: Scene, site: SiteName, key: str) -> str | None:
    rows = scene.execute(site, "select override_value from player_overrides where id = %s", key)
    return str(rows[0][0]) if rows else None


async def test_publisher_that_stalled_after_its_select_sends_nothing_old(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "TURN_SECONDS", 1.0)
    monkeypatch.setattr(publisher, "LEASE_SECONDS", 0.5)
    key = str(uuid.uuid4())
    table = OVERRIDES.tables[0]
    topics = {table.name: Names(OVERRIDES, scene.rig.namespace).topic(table, Site.SUPABASE)}
    selected, goes_on = asyncio.Event(), asyncio.Event()

    class Stalling(outbox.PublisherTurn):
        async def next(self) -> list[outbox.OutboxEntry]:
            entries = await super().next()
            if entries:
                selected.set()
                await goes_on.wait()
            return entries

    async def write(text: str) -> None:
        # Of a player of WSOP, to whom no foreign key leads: no worker has brought others here yet.
        query = UPSERT.replace("gfx_player_id", "wsop_player_id")
        await asyncio.to_thread(scene.execute, "supabase", query, key, PLAYER, text)

    async def all_published() -> None:
        async with asyncio.timeout(30):
            while scene.execute("supabase", "select id from ftstream.outbox"):
                await asyncio.sleep(0.05)

    turn = outbox.PublisherTurn
    monkeypatch.setattr(outbox, "PublisherTurn", Stalling)
    first = publisher.Publisher(scene.rig.settings, topics)
    one = asyncio.create_task(first.run())
    await write("old")
    await selected.wait()
    monkeypatch.setattr(outbox, "PublisherTurn", turn)
    await write("new")
    second = publisher.Publisher(scene.rig.settings, topics)
    other = asyncio.create_task(second.run())
    await all_published()  # once PostgreSQL has ended the turn of the first
    goes_on.set()
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    await write("newer")
    await all_published()  # by the first, which has gone on
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    await first.close()
    await second.close()
    versions = [each.version for each in await messages(scene) if each.id == key]
    assert len(versions) == 3
    assert versions == sorted(versions)


def test_write_between_init_and_the_connector_arrives(scene: Scene, workers: list[Worker]) -> None:
    until(lambda: value(scene, "supabase", EARLY) == "early")


@pytest.mark.parametrize("site", SITES)
def test_edit_on_either_site_reaches_the_other_and_stays_there(
    scene: Scene, workers: list[Worker], site: SiteName
) -> None:
    other = SITES[1 - SITES.index(site)]
    for text in ("한국 🂡", "again", f"last of {site}"):
        scene.execute(
            site, "update player_overrides set override_value = %s where id = %s", text, EARLY
        )
    until(lambda: value(scene, other, EARLY) == f"last of {site}")
    scene.execute(other, "delete from player_overrides where id = %s", EARLY)
    until(lambda: value(scene, site, EARLY) is None)
    scene.execute(site, INSERT, EARLY, PLAYER, "back")
    until(lambda: value(scene, other, EARLY) == "back")
    must_agree(scene, "player_overrides")


def test_render_job_goes_through_its_states_and_external_only_reads(
    scene: Scene, workers: list[Worker]
) -> None:
    key = str(uuid.uuid4())
    data = json.dumps({"session_id": 638961224831992165})
    scene.execute(
        "supabase",
        "insert into render_queue (id, render_type, aep_project, aep_comp_name, gfx_data)"
        " values (%s, 'custom', 'p', 'c', %s)",
        key,
        data,
    )
    for state in ("queued", "rendering", "completed"):
        scene.execute("supabase", "update render_queue set status = %s where id = %s", state, key)
    done = "select status::text, gfx_data->>'session_id' from render_queue where id = %s"
    until(lambda: scene.execute("external", done, key) == [("completed", "638961224831992165")])
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="supabase owns"):
        scene.execute("external", "update render_queue set progress = 5")
    must_agree(scene, "render_queue")


def test_edits_of_both_sites_are_taken_back_by_the_command(
    scene: Scene, workers: list[Worker]
) -> None:
    changed, deleted, inserted = (str(uuid.UUID(int=n)) for n in (50, 51, 52))
    update = "update player_overrides set override_value = %s where id = %s"
    for key in (changed, deleted):
        scene.execute("external", INSERT, key, PLAYER, "before")
    must_agree(scene, "player_overrides")
    ((then,),) = scene.execute("supabase", "select clock_timestamp()::text")
    scene.execute("external", update, "wrong", changed)
    scene.execute("supabase", "delete from player_overrides where id = %s", deleted)
    scene.execute("external", INSERT, inserted, PLAYER, "wrong")
    must_agree(scene, "player_overrides")
    command = ("revert", "player_overrides", "--since", str(then))
    shown = json.loads(scene.rig.run(*command, "--dry-run", "--json"))["rows"]
    assert [row["action"] for row in shown] == ["changed", "inserted", "deleted"]
    assert shown[0]["columns"]["override_value"] == {"now": "wrong", "then": "before"}
    assert value(scene, "supabase", changed) == "wrong"
    assert "3 of 3 rows written on supabase" in scene.rig.run(*command, "--yes")
    must_agree(scene, "player_overrides")
    values = [value(scene, "external", key) for key in (changed, deleted, inserted)]
    assert values == ["before", "before", None]


def test_swaps_of_one_site_while_the_worker_is_frozen_end_as_they_were_left(
    scene: Scene, workers: list[Worker]
) -> None:
    """A temporary place is nobody's, and what is late overrules nobody."""
    with Edits(scene, pause=0.3) as edits:
        until(lambda: edits.written > 5)
        workers[0].process.send_signal(signal.SIGSTOP)
        written = edits.written
        until(lambda: edits.written > written + 20)
        workers[0].process.send_signal(signal.SIGCONT)
    must_agree(scene)
    edits.must_have_overruled_nobody()


def test_verify_takes_no_edit_in_flight_for_a_difference_and_repairs_what_differs(
    scene: Scene, workers: list[Worker]
) -> None:
    with Edits(scene, pause=0.3) as edits:
        for _ in range(3):
            for flow in (OVERRIDES, CUE_SHEETS):
                verdicts = asyncio.run(verify(flow, scene.rig.settings))
                assert [verdict for verdict in verdicts if not verdict.equal] == []
    must_agree(scene)
    edits.must_have_bounced_never()
    kept, lost = str(uuid.uuid4()), str(uuid.uuid4())
    for key in (kept, lost):
        scene.execute("external", INSERT, key, PLAYER, "right")
    must_agree(scene)
    for spoil in (
        "update player_overrides set override_value = 'wrong' where id = %s",
        "delete from player_overrides where id = %s",
    ):
        scene.uncaptured("supabase", spoil, kept if spoil.startswith("update") else lost)
    assert scene.command("verify", "overrides").returncode == 1
    done = scene.command("verify", "overrides", "--repair", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [value(scene, "supabase", key) for key in (kept, lost)] == ["right", "right"]
    must_agree(scene)


def test_slot_that_is_lost_takes_nothing_with_it(scene: Scene, workers: list[Worker]) -> None:
    key, gone = str(uuid.uuid4()), str(uuid.uuid4())
    for each in (key, gone):
        scene.execute("external", INSERT, each, PLAYER, "before")
    must_agree(scene)
    slot = CaptureNames(log_captures([OVERRIDES])[0], scene.rig.namespace).slot
    scene.rig.stack.kill("connect")
    active = "select active from pg_replication_slots where slot_name = %s"
    until(lambda: scene.execute("external", active, slot) == [(False,)])
    scene.execute("external", "select pg_drop_replication_slot(%s)", slot)
    scene.rig.stack.start("connect")
    update = "update player_overrides set override_value = %s where id = %s"
    scene.execute("external", update, "while there was no slot", key)
    scene.execute("external", "delete from player_overrides where id = %s", gone)
    until(lambda: b"FAILED" in scene.command("connectors", "status", "--json").stdout, 60)
    assert value(scene, "supabase", key) == "before"
    scene.rig.run("init")
    scene.rig.run("connectors", "apply")
    # The workers compare by themselves what no log holds.
    until(lambda: not scene.execute("external", "select 1 from ftstream.gap"), 90)
    must_agree(scene)
    assert value(scene, "supabase", key) == "while there was no slot"
    assert value(scene, "supabase", gone) is None
