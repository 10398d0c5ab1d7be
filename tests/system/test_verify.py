"""`ftstream verify` finds every difference, names its column, and takes no row in flight for one."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from ftstream.compare.progress import NotCaughtUp
from ftstream.compare.verification import verify
from ftstream.flows import GFX
from ftstream.local.demo.rig import SITES, Rig
from tests.system.scene import Scene, Worker, pass_for_the_worker, set_up

EXTRA_COLUMNS: LiteralString = """
    create extension citext;
    create extension hstore;
    alter table gfx_players
        add n numeric, add r real, add d double precision, add b bytea, add j json, add jb jsonb,
        add day date, add t time, add ts timestamp, add net inet, add h hstore, add c citext,
        add ta text[], add large text, add s smallint;
"""
ROW: LiteralString = """
    insert into gfx_players
        (player_hash, name, long_name, n, r, d, b, j, jb, day, t, ts, net, h, c, ta, large, s)
    select 'row ' || i, 'name', '', 20.00, 0.1, 0.1, '\\x00ff', '{"a": 1,  "b": 2}',
           '{"n": 638000000000000001, "scale": 20.00, "gone": null}', '2024-02-29', '12:00', '1900-01-01',
           '10.0.0.1', 'a=>1', 'MiXeD', '{a,b}', repeat(md5('x' || i), 40000), 1
    from generate_series(0, 39) i;
    insert into gfx_sessions (session_id, file_name, file_hash, raw_json, avg_hand_duration, payouts)
    select 638000000000000000 + i, 'file', 'hash ' || i,
           jsonb_build_object('tail', repeat(md5('y' || i), 30000)), '1 day', '{1,2}'
    from generate_series(0, 3) i;
    insert into gfx_hands (session_id, hand_num, start_time, grade, is_premium, board_cards)
    select 1, i, '2024-01-01 00:00:00.000001+09', 'A', false, '{As,null}' from generate_series(0, 4) i;
    insert into gfx_hand_players (hand_id, seat_num, player_name, vpip_percent, won_amount)
    select id, 1, 'seat', 600, 0.10 from gfx_hands where session_id = 1;
"""


@dataclass(frozen=True)
class Planted:
    """A change on Supabase alone: this column of one row becomes that value."""

    table: str
    column: str
    value: LiteralString


PLANTED = (
    Planted("gfx_players", "name", "'name '"),
    Planted("gfx_players", "long_name", "null"),  # was ''
    Planted("gfx_players", "total_hands_played", "1"),
    Planted("gfx_players", "last_seen_at", "last_seen_at + interval '1 microsecond'"),
    Planted("gfx_players", "n", "20.0"),  # the scale
    Planted("gfx_players", "n", "'NaN'"),
    Planted("gfx_players", "r", "'0.10000001'"),
    Planted("gfx_players", "d", "0.1::float8 + 1e-17"),
    Planted("gfx_players", "d", "'-0'"),
    Planted("gfx_players", "b", "'\\x00'"),
    Planted("gfx_players", "b", "''"),
    Planted("gfx_players", "j", """'{"a": 1, "b": 2}'"""),  # a blank
    Planted("gfx_players", "jb", """jb || '{"n": 638000000000000000}'"""),  # beyond a double
    Planted("gfx_players", "jb", """jb || '{"scale": 20.0}'"""),
    Planted("gfx_players", "jb", "jb - 'gone'"),
    Planted("gfx_players", "day", "'infinity'"),
    Planted("gfx_players", "t", "'12:00:00.000001'"),
    Planted("gfx_players", "ts", "'1900-01-01 00:00:00.000001'"),
    Planted("gfx_players", "net", "'10.0.0.1/8'"),
    Planted("gfx_players", "h", "'a=>NULL'"),
    Planted("gfx_players", "c", "'mixed'"),  # equal, to citext
    Planted("gfx_players", "ta", "'{b,a}'"),  # the order
    Planted("gfx_players", "ta", "'{}'"),
    Planted("gfx_players", "large", "overlay(large placing '!' from 1279990)"),  # the tail
    Planted("gfx_players", "s", "null"),
    Planted("gfx_sessions", "raw_json", "jsonb_build_object('tail', raw_json->>'tail' || '!')"),
    Planted("gfx_sessions", "session_id", "session_id + 100"),
    Planted("gfx_sessions", "avg_hand_duration", "'24 hours'"),  # equal, to PostgreSQL
    Planted("gfx_sessions", "payouts", "'{2,1}'"),
    Planted("gfx_hands", "grade", "null"),
    Planted("gfx_hands", "is_premium", "true"),
    Planted("gfx_hands", "board_cards", "'{As,NULL,null}'"),
    Planted("gfx_hands", "game_variant", "'OMAHA'"),
    Planted("gfx_hand_players", "vpip_percent", "600.01"),
    Planted("gfx_hand_players", "won_amount", "0.11"),
)
LOST, STRAY = 3, 2


@pytest.fixture(scope="module")
def scene(rig: Rig) -> Iterator[Scene]:
    for site in SITES:
        with psycopg.connect(rig.dsn(site)) as connection:
            connection.execute(EXTRA_COLUMNS)
    with set_up(rig, spoilt=True) as scene:
        yield scene


@pytest.fixture(scope="module")
def worker(scene: Scene) -> Worker:
    return scene.worker().ready()


def report(rig: Rig, *arguments: str) -> tuple[int, Any]:
    """Exit code and JSON of `ftstream verify`."""
    done = subprocess.run(
        [sys.executable, "-m", "ftstream", "verify", "gfx", "--format", "json", *arguments],
        env=rig.environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def as_nobody_may(scene: Scene, query: sql.Composed, *values: object) -> list[str]:
    """Change rows on Supabase alone, and return their ids."""
    with psycopg.connect(scene.rig.dsn("supabase", "supabase_admin")) as connection:
        pass_for_the_worker(connection)
        return [row[0] for row in connection.execute(query, values).fetchall()]


MINE: dict[str, LiteralString] = {
    "gfx_players": "player_hash like 'row %%'",
    "gfx_sessions": "file_name = 'file'",
    "gfx_hands": "session_id = 1",
    "gfx_hand_players": "player_name = 'seat'",
}
"""The rows of `ROW`, not those of the traffic before."""

UPDATE = sql.SQL(
    "update {table} set {column} = {value} where id ="
    " (select id from {table} where {mine} and id <> all(%s::uuid[]) order by id limit 1)"
    " returning id::text"
)
DELETE = sql.SQL(
    "delete from gfx_players where id in (select id from gfx_players where id <> all(%s::uuid[])"
    " order by id limit {}) returning id::text"
).format(LOST)
INSERT = sql.SQL(
    "insert into gfx_hands (session_id, hand_num, start_time)"
    " select 2, i, now() from generate_series(1, {}) i returning id::text"
).format(STRAY)


def plant(scene: Scene) -> dict[str, tuple[str, str, list[str]]]:
    """Make every difference on a row of its own; id to table, kind and columns."""
    expected: dict[str, tuple[str, str, list[str]]] = {}
    for each in PLANTED:
        change = UPDATE.format(
            table=sql.Identifier(each.table),
            column=sql.Identifier(each.column),
            value=sql.SQL(each.value),
            mine=sql.SQL(MINE[each.table]),
        )
        (changed,) = as_nobody_may(scene, change, list(expected))
        expected[changed] = (each.table, "different", [each.column])
    for lost in as_nobody_may(scene, DELETE, list(expected)):
        expected[lost] = ("gfx_players", "missing", [])
    for stray in as_nobody_may(scene, INSERT):
        expected[stray] = ("gfx_hands", "extra", [])
    return expected


def test_no_difference_is_told_on_a_live_healthy_pair(scene: Scene, worker: Worker) -> None:
    with scene.load():
        for _ in range(4):
            verdicts = asyncio.run(verify(GFX, scene.rig.settings))
            assert [verdict for verdict in verdicts if not verdict.equal] == []
    assert all(verdict.rows for verdict in verdicts)


def test_each_planted_difference_is_found_with_its_column(scene: Scene, worker: Worker) -> None:
    scene.execute("external", ROW)
    scene.caught_up()
    assert report(scene.rig)[0] == 0
    expected = plant(scene)
    assert len(expected) == len(PLANTED) + LOST + STRAY == 40
    code, found = report(scene.rig, "--limit", "100")
    assert code == 1
    assert not found["equal"]
    assert {
        each["id"]: (table["table"], each["kind"], each["columns"])
        for table in found["tables"]
        for each in table["differences"]
    } == expected


def test_the_list_is_cut_and_the_counts_are_whole(scene: Scene, worker: Worker) -> None:
    _, found = report(scene.rig, "--limit", "1", "--table", "gfx_players")
    (table,) = found["tables"]
    assert len(table["differences"]) == 1
    assert table["different"] + table["missing"] == 25 + LOST


def test_differences_that_may_be_in_flight_are_not_judged(scene: Scene, worker: Worker) -> None:
    scene.write(100)
    scene.caught_up()
    worker.stop()
    scene.write(100)
    with pytest.raises(
        NotCaughtUp, match=r"rows differ, and may be in flight: .* records to apply"
    ):
        asyncio.run(verify(GFX, scene.rig.settings, timeout=2))
