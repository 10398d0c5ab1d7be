"""What cannot be applied waits alone, whole as it came, and a person decides about what stays dead."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from ftstream.flows import GFX, Site
from ftstream.kafka.unpacking import MOST_BYTES
from ftstream.local.demo.rig import Rig
from tests.conftest import until
from tests.system.scene import Scene, Worker, admin, pass_for_the_worker, set_up

DEAD_AFTER = "4"
LARGE = 20 * 2**20


@pytest.fixture(scope="module")
def scene(rig: Rig) -> Iterator[Scene]:
    with set_up(rig) as scene:
        yield scene


@pytest.fixture(scope="module")
def worker(scene: Scene) -> Worker:
    return scene.worker(FTSTREAM_APPLY__DEAD_AFTER_SECONDS=DEAD_AFTER).ready()


def add_player(scene: Scene, name: str) -> str:
    """On External; returns the id."""
    query: LiteralString = (
        "insert into gfx_players (player_hash, name) values (md5(%s), %s) returning id::text"
    )
    return str(scene.execute("external", query, name, name)[0][0])


def names(scene: Scene, *ids: str) -> list[str]:
    query: LiteralString = "select name from gfx_players where id::text = any(%s) order by name"
    return [row[0] for row in scene.execute("supabase", query, list(ids))]


def listed(scene: Scene) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(scene.command("dead", "list", "--json").stdout)
    return found


def event(**changes: object) -> bytes:
    whole = {"op": "c", "source": {"table": "gfx_players", "lsn": 1}, "after": {"id": "x"}}
    return json.dumps(whole | changes).encode()


MALFORMED: dict[str, tuple[bytes | None, bytes]] = {
    "not JSON": (b"key 1", b"\x00\xff surprise"),
    "wrong shape": (b"key 2", b'["a", "list"]'),
    "wrong type": (b"key 3", event(op=5)),
    "unknown operation": (b"key 4", event(op="x")),
    "unknown table": (b"key 5", event(source={"table": "nowhere"})),
    "row of a wrong type": (b"key 6", event(after=[1, 2])),
    "number beyond any": (b"key 7", event(source={"lsn": 10**30})),
    "truncated": (b"key 8", event()[:-5]),
    "another row's key": (b"key 10", event()),
    "no row at all": (b"key 11", event(after={})),
    "nested too deep": (b"key 12", b'{"op":"c","x":' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
    "name that is no text": (b"key 13", b'{"op":"c","source":{},"after":{"id":"key 13","\xff":1}}'),
    "no key": (None, event()),
    "key that is no text": (b"\xff\x00", event()),
    "key longer than an index holds": ("패".encode() * 400, event()),
    "20 MB": (b"key 9", b"x" * LARGE),
}


@pytest.fixture
def large_messages(scene: Scene) -> None:
    """The broker takes them, whoever sends them."""

    async def allow() -> None:
        async with admin(scene.rig) as client:
            topic = scene.names.topic(GFX.table("gfx_players"), Site.EXTERNAL)
            limit = {"max.message.bytes": str(2 * LARGE)}
            await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, limit)])

    asyncio.run(allow())


def test_malformed_records_are_dead_byte_for_byte_and_the_flow_goes_on(
    scene: Scene, worker: Worker, large_messages: None
) -> None:
    for key, value in MALFORMED.values():
        scene.publish("gfx_players", key, value)
        if len(value) < LARGE:
            scene.publish_to(scene.capture.heartbeat_topic, key, value)  # where it is passed over
    player = add_player(scene, "after them")
    until(lambda: names(scene, player) == ["after them"])
    until(lambda: len(listed(scene)) == len(MALFORMED))
    found = {each["entity_id"]: each for each in listed(scene)}
    for key, value in MALFORMED.values():
        shown = found[
            ""
            if key is None
            else key.decode(errors="backslashreplace").replace("\0", r"\x00")[:200]
        ]
        assert (shown["state"], shown["bytes"]) == ("dead", len(value))
        assert shown["error"]
        assert scene.command("dead", "show", "--raw", shown["ref"]).stdout == value
    assert "unknown operation 'x'" in found["key 4"]["error"]
    assert "'nowhere'" in found["key 5"]["error"]


def test_dead_record_that_is_retried_in_vain_stays_and_says_why(
    scene: Scene, worker: Worker
) -> None:
    reference = next(each["ref"] for each in listed(scene) if each["entity_id"] == "key 2")
    done = scene.command("dead", "retry", reference)
    assert done.returncode == 1
    assert b"not a change event" in done.stderr
    assert scene.notifications("dead_change")


def test_dropped_records_are_gone_and_logged(scene: Scene, worker: Worker) -> None:
    before = listed(scene)
    assert scene.command("dead", "drop", "--all").returncode == 1  # nobody says yes
    assert listed(scene) == before
    assert scene.command("dead", "drop", "--all", "--yes").returncode == 0
    assert listed(scene) == []
    dropped: LiteralString = "select count(*) from ftstream.sync_log where outcome = 'dropped'"
    assert scene.execute("supabase", dropped) == [(len(MALFORMED),)]
    assert scene.command("dead", "show", "supabase:1").returncode == 1


def test_a_batch_that_unpacks_to_more_than_any_producer_sends_is_dead_and_the_flow_goes_on(
    scene: Scene, worker: Worker
) -> None:
    for compression in ("gzip", "zstd", "lz4"):
        scene.publish("gfx_players", b"key", bytes(MOST_BYTES + 1), compression)
    scene.publish("gfx_players", b"key", bytes(MOST_BYTES // 2), "gzip", times=3)  # one batch
    player = add_player(scene, "after them 2")
    until(lambda: names(scene, player) == ["after them 2"])
    until(lambda: len(listed(scene)) == 4)
    for each in listed(scene):
        kept = scene.command("dead", "show", "--raw", each["ref"]).stdout.decode()
        assert "unpack to more than 64 MiB" in kept
    assert scene.command("dead", "drop", "--all", "--yes").returncode == 0


def test_value_that_does_not_fit_waits_alone_with_its_column_named(
    scene: Scene, worker: Worker
) -> None:
    scene.execute("supabase", "alter table gfx_players alter name type varchar(12)")
    long, short = add_player(scene, "a name that is too long"), add_player(scene, "short")
    until(lambda: names(scene, short) == ["short"])
    until(lambda: len(scene.parked()) == 1)
    assert scene.parked()[0][:3] == ("parked", "gfx_players", long)
    # PostgreSQL says it first, in its own words, if the catalogs were read a moment before.
    wanted = "gfx_players.name: character varying(12) cannot hold"
    until(lambda: wanted in scene.parked()[0][3])
    waited = scene.command("wait", "--timeout", "1")
    assert waited.returncode == 1
    assert b"1 changes are parked: see `ftstream dead list`" in waited.stderr

    scene.execute("supabase", "alter table gfx_players alter name type text")
    until(lambda: not scene.parked())
    assert names(scene, long) == ["a name that is too long"]
    outcomes: LiteralString = (
        "select outcome::text from ftstream.sync_log where entity_id = %s order by logged_at"
    )
    assert scene.execute("supabase", outcomes, long) == [("parked",), ("applied",)]


def test_new_enum_value_may_come_on_external_first(scene: Scene, worker: Worker) -> None:
    scene.execute("external", "alter type game_variant add value 'BADUGI'")
    insert: LiteralString = (
        "insert into gfx_hands (session_id, hand_num, start_time, game_variant)"
        " values (3, 3, now(), 'BADUGI')"
    )
    scene.execute("external", insert)
    until(lambda: len(scene.parked()) == 1)
    assert "gfx_hands.game_variant: invalid input value for enum" in scene.parked()[0][3]
    scene.execute("supabase", "alter type game_variant add value 'BADUGI'")
    until(lambda: not scene.parked())
    scene.must_be_in_step()


def test_change_that_never_fits_is_dead_in_time_and_blocks_nothing(
    scene: Scene, worker: Worker
) -> None:
    scene.execute(
        "supabase", "alter table gfx_players add constraint odd check (name not like 'odd%')"
    )
    odd = add_player(scene, "odd one")
    until(lambda: [row[0] for row in scene.parked()] == ["dead"], 40)
    assert any("odd" in message for message in scene.notifications("dead_change"))
    scene.write(300)
    scene.caught_up()

    # A later change of the row tells all of it.
    scene.execute("external", "update gfx_players set name = 'even one' where id::text = %s", odd)
    until(lambda: not scene.parked())
    assert names(scene, odd) == ["even one"]
    scene.execute("supabase", "alter table gfx_players drop constraint odd")
    scene.must_be_in_step()


def test_change_that_lacks_values_waits_behind_the_one_that_has_them(
    scene: Scene, worker: Worker
) -> None:
    scene.execute(
        "supabase", "alter table gfx_sessions add constraint odd check (event_title <> 'odd')"
    )
    insert: LiteralString = (
        "insert into gfx_sessions (session_id, file_name, file_hash, event_title, raw_json)"
        " values (77, 'f', 'h', 'odd', jsonb_build_object('x', (select string_agg(md5(i::text), '')"
        " from generate_series(1, 2000) i)))"
    )
    scene.execute("external", insert)
    until(lambda: len(scene.parked()) == 1)
    scene.execute("external", "update gfx_sessions set hand_count = 7 where session_id = 77")
    until(lambda: len(scene.parked()) == 2)
    scene.execute("external", "update gfx_sessions set event_title = 'even' where session_id = 77")
    until(lambda: not scene.parked())
    scene.execute("supabase", "alter table gfx_sessions drop constraint odd")
    scene.must_be_in_step()


def test_retried_by_hand_a_dead_change_is_applied(scene: Scene, worker: Worker) -> None:
    scene.execute(
        "supabase", "alter table gfx_players add constraint odd check (name not like 'odd%')"
    )
    player = add_player(scene, "odd again")
    until(lambda: [row[0] for row in scene.parked()] == ["dead"], 40)
    scene.execute("supabase", "alter table gfx_players drop constraint odd")
    done = scene.command("dead", "retry", "--all")
    assert done.returncode == 0, done.stderr
    assert names(scene, player) == ["odd again"]
    scene.must_be_in_step()


# -- repair


def test_repair_carries_what_is_missing_and_removes_what_the_owner_does_not_have(
    scene: Scene, worker: Worker
) -> None:
    scene.write(500)
    scene.caught_up()
    with psycopg.connect(scene.rig.dsn("supabase", "supabase_admin")) as intruder:
        pass_for_the_worker(intruder)
        intruder.execute("delete from gfx_hands where id in (select id from gfx_hands limit 5)")
        intruder.execute("update gfx_sessions set raw_json = '{}'")
        intruder.execute("insert into gfx_players (player_hash, name) values ('stray', 'Stray')")
    assert scene.command("verify", "gfx").returncode == 1
    assert scene.command("verify", "gfx", "--repair").returncode == 1  # nobody says yes
    assert scene.command("verify", "gfx").returncode == 1
    done = scene.command("verify", "gfx", "--repair", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    scene.must_be_in_step()


def test_truncate_is_recorded_told_and_carried_by_comparison(scene: Scene, worker: Worker) -> None:
    there: LiteralString = "select count(*) > 0 from gfx_hand_players"
    scene.execute("external", "truncate gfx_hand_players")
    until(lambda: bool(scene.notifications("truncate")))
    assert scene.execute("supabase", there) == [(True,)]
    assert "--repair" in scene.notifications("truncate")[0]
    done = scene.command("verify", "gfx", "--table", "gfx_hand_players", "--repair", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert scene.execute("supabase", there) == [(False,)]
    recorded: LiteralString = "select count(*) from ftstream.sync_log where outcome = 'recorded'"
    assert scene.execute("supabase", recorded) == [(1,)]


def test_notifications_that_were_read_are_not_shown_again(scene: Scene, worker: Worker) -> None:
    assert scene.notifications("truncate")
    assert scene.command("notifications", "--read-all").returncode == 0
    assert json.loads(scene.command("notifications", "--json").stdout) == []
    assert json.loads(scene.command("notifications", "--json", "--all").stdout)
