"""The commands on a running flow, in the order an operator uses them."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import LiteralString

import psycopg
import pytest
from psycopg.rows import TupleRow

from ftstream.connect.client import ConnectClient
from ftstream.flows import GFX, CaptureNames, log_captures
from ftstream.local.demo.rig import SITES, CommandFailed, Rig, SiteName
from tests.conftest import until
from tests.system.scene import pass_for_the_worker


def count(dsn: str, table: str) -> int:
    with psycopg.connect(dsn) as connection:
        query = psycopg.sql.SQL("select count(*) from {}").format(psycopg.sql.Identifier(table))
        row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])


def write_players(rig: Rig, *names: str) -> None:
    with psycopg.connect(rig.dsn("external")) as connection:
        for name in names:
            connection.execute(
                "insert into gfx_players (player_hash, name) values (md5(%s), %s)", [name, name]
            )


def test_a_row_written_on_external_is_on_supabase_after_wait(running: Rig) -> None:
    write_players(running, "Kim", "Lee")
    running.run("wait")
    assert count(running.dsn("supabase"), "gfx_players") == 2
    assert "flow gfx to supabase: everything captured is applied" in running.run("status")


def test_init_and_apply_can_run_again(running: Rig) -> None:
    assert "unchanged" in running.run("init")
    running.run("connectors", "apply")
    assert json.loads(running.run("init", "--json"))


def test_nothing_differs_from_what_is_deployed(running: Rig) -> None:
    running.run("connectors", "diff")


def test_status_tells_programs_that_all_runs(running: Rig) -> None:
    assert json.loads(running.run("connectors", "status", "--json"))


def test_supabase_refuses_edits_and_says_where_to_edit(running: Rig) -> None:
    with (
        psycopg.connect(running.dsn("supabase")) as connection,
        pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refused,
    ):
        connection.execute("update gfx_players set name = 'x'")
    assert "flow gfx" in str(refused.value)
    assert "external" in (refused.value.diag.message_hint or "")


def test_backfill_carries_a_row_that_the_target_lost(running: Rig) -> None:
    with psycopg.connect(running.dsn("supabase", "supabase_admin")) as connection:
        pass_for_the_worker(connection)
        connection.execute("delete from gfx_players where name = 'Kim'")
    running.run("backfill", "gfx_players")
    running.run("wait")
    assert count(running.dsn("supabase"), "gfx_players") == 2


def test_heartbeats_reach_sync_status(running: Rig) -> None:
    running.run("wait")
    with psycopg.connect(running.dsn("supabase")) as connection:
        rows = connection.execute(
            "select entity_type, last_heartbeat_at is not null from ftstream.sync_status"
            " where source = 'gfx'"
        ).fetchall()
    assert sorted(rows) == [
        (table, True) for table in ("hand_players", "hands", "players", "sessions")
    ]


def test_row_too_large_for_kafka_is_named_and_passed(running: Rig) -> None:
    write: LiteralString = (
        "insert into gfx_sessions (id, session_id, file_name, file_hash, raw_json)"
        " values (%s, 1, 'f', 'h', jsonb_build_object('x', repeat('long', 4500000)))"
    )
    shorten: LiteralString = "update gfx_sessions set raw_json = '{}'"
    large, digest = str(uuid.uuid4()), "select md5(raw_json::text) from gfx_sessions"
    execute(running, "external", write, large)
    write_players(running, "after it")
    until_failed(running)
    assert f"gfx_sessions {large} (18,000," in problem(running)
    with pytest.raises(CommandFailed, match=f"gfx_sessions {large} .*--pass-too-large"):
        running.run("connectors", "apply", "gfx")
    assert f"left out: gfx_sessions {large}" in pass_too_large(running)
    assert execute(running, "supabase", digest) == execute(running, "external", digest)

    # Shortened meanwhile: the log has it as it was.
    execute(running, "external", "update gfx_sessions set raw_json = raw_json || '{\"y\": 1}'")
    execute(running, "external", shorten)
    until_failed(running)
    assert "shortened or deleted since" in problem(running)
    pass_too_large(running)
    assert execute(running, "supabase", digest) == execute(running, "external", digest)
    assert count(running.dsn("supabase"), "gfx_players") == 3
    running.run("connectors", "diff")


def test_row_just_below_the_limit_of_the_outbox_travels_both_ways(running: Rig) -> None:
    write: LiteralString = (
        "insert into player_overrides"
        " (id, wsop_player_id, field_name, override_value, reason, created_by)"
        " values (%s, gen_random_uuid(), 'name', repeat(%s, 15 * 1024 * 1024 - 2000), 'r', 'test')"
    )
    digest: LiteralString = "select id, md5(t::text) from player_overrides t order by id"
    for site in SITES:
        execute(running, site, write, str(uuid.uuid4()), site[0])
        running.run("wait", "overrides")
    assert len(execute(running, "supabase", digest)) == 2
    assert execute(running, "supabase", digest) == execute(running, "external", digest)


def until_failed(rig: Rig) -> None:
    """Wait until the task of gfx has failed."""
    (capture,) = log_captures([GFX])

    async def failed() -> bool:
        async with ConnectClient(rig.settings.connect) as client:
            status = await client.status(CaptureNames(capture, rig.namespace).connector)
            return status is not None and status.failed is not None

    until(lambda: asyncio.run(failed()), 60)


def problem(rig: Rig) -> str:
    """What `connectors status` says of gfx."""
    try:
        return rig.run("connectors", "status", "gfx")
    except CommandFailed as failed:
        return str(failed)


def pass_too_large(rig: Rig) -> str:
    said = rig.run("connectors", "apply", "gfx", "--pass-too-large")
    rig.run("wait", "gfx")
    return said


def execute(rig: Rig, site: SiteName, query: LiteralString, *values: object) -> list[TupleRow]:
    with psycopg.connect(rig.dsn(site), autocommit=True) as connection:
        cursor = connection.execute(query, values or None)
        return cursor.fetchall() if cursor.description else []


def test_wait_names_what_it_waits_for_when_the_time_is_up(running: Rig) -> None:
    running.stop_workers()
    write_players(running, "Park")
    with pytest.raises(CommandFailed, match="records to apply"):
        running.run("wait", "--timeout", "5")
    with pytest.raises(CommandFailed, match="flow gfx to supabase: 1 records to apply"):
        running.run("status")


def test_remove_takes_everything_away(running: Rig) -> None:
    assert "gfx_slot" in running.run("remove", "--dry-run")
    running.run("remove", "--yes")
    with psycopg.connect(running.dsn("external")) as connection:
        left = connection.execute(
            "select slot_name from pg_replication_slots where database = current_database()"
            " union all select pubname from pg_publication"
            " union all select nspname from pg_namespace where nspname = 'ftstream'"
        ).fetchall()
    assert left == []
    assert count(running.dsn("external"), "gfx_players") == 4
