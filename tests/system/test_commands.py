"""The commands on a running flow, in the order an operator uses them."""

from __future__ import annotations

import json

import psycopg
import pytest

from ftstream.demo.rig import CommandFailed, Rig


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
    assert "already" in running.run("init")
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
    with psycopg.connect(running.dsn("supabase")) as connection:
        connection.execute("set local ftstream.applying = 'on'")
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
    assert count(running.dsn("external"), "gfx_players") == 3
