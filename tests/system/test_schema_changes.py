"""Tables that change while the flow runs: no value is lost, none is invented, nothing is restarted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

import pytest

from ftstream.local.demo.rig import Rig
from tests.conftest import until
from tests.system.scene import Scene, Worker, set_up


@pytest.fixture(scope="module")
def scene(rig: Rig) -> Iterator[Scene]:
    with set_up(rig) as scene:
        yield scene


@pytest.fixture(scope="module")
def worker(scene: Scene) -> Worker:
    return scene.worker().ready()


@pytest.fixture(autouse=True)
def in_step_at_the_end(scene: Scene, worker: Worker) -> Iterator[None]:
    yield
    assert worker.process.poll() is None, worker.log
    assert "Traceback" not in worker.log
    scene.must_be_in_step()


def alter(scene: Scene, *sites: str, change: LiteralString) -> None:
    for site in sites:
        scene.execute("external" if site == "external" else "supabase", change)


def add_player(scene: Scene, name: str, **columns: object) -> str:
    """On External, with these columns too; returns the id."""
    query = (
        "insert into gfx_players (player_hash, name{}) values (md5(%s), %s{}) returning id::text"
    )
    made = query.format("".join(f", {c}" for c in columns), ", %s" * len(columns))
    return str(scene.execute("external", made, name, name, *columns.values())[0][0])


def at_supabase(scene: Scene, column: LiteralString, player: str) -> Any:
    query = "select {} from gfx_players where id::text = %s".replace("{}", column)
    return scene.execute("supabase", query, player)[0][0]


def test_new_column_on_both_sites_is_carried_from_its_first_value(
    scene: Scene, worker: Worker
) -> None:
    with scene.load():
        scene.until_applied(200)
        alter(scene, "supabase", "external", change="alter table gfx_players add both_have int")
        player = add_player(scene, "first", both_have=1)
        scene.until_applied(200)
    scene.caught_up()
    assert at_supabase(scene, "both_have", player) == 1
    assert any("both_have" in each for each in titles(scene, "columns_carried"))


def titles(scene: Scene, kind: str) -> list[str]:
    rows = scene.execute(
        "supabase", "select title from ftstream.notifications where type = %s", kind
    )
    return [row[0] for row in rows]


def test_column_of_external_alone_is_told_once_and_carried_when_supabase_has_it(
    scene: Scene, worker: Worker
) -> None:
    told = worker.said("columns of gfx_players differ")
    alter(scene, "external", change="alter table gfx_players add early text")
    before = add_player(scene, "before", early="x")
    scene.write(200)
    scene.caught_up()
    assert worker.said("columns of gfx_players differ") == told + 1
    assert any("early (external only)" in each for each in scene.notifications("columns_differ"))

    alter(scene, "supabase", change="alter table gfx_players add early text")
    until(lambda: any("early" in each for each in titles(scene, "columns_carried")), 60)
    after = add_player(scene, "after", early="y")
    scene.caught_up()
    assert at_supabase(scene, "early", after) == "y"
    assert at_supabase(scene, "early", before) is None  # as it was told: verify --repair
    assert scene.command("verify", "gfx", "--repair", "--yes").returncode == 0
    assert at_supabase(scene, "early", before) == "x"


def test_column_of_supabase_alone_keeps_its_values_and_takes_its_default(
    scene: Scene, worker: Worker
) -> None:
    old = add_player(scene, "old")
    scene.caught_up()
    alter(scene, "supabase", change="alter table gfx_players add own text not null default 'mine'")
    new = add_player(scene, "new")
    scene.execute("external", "update gfx_players set name = 'older' where id::text = %s", old)
    scene.caught_up()
    assert [at_supabase(scene, "own", each) for each in (old, new)] == ["mine", "mine"]


def test_column_dropped_on_external_keeps_its_values_on_supabase(
    scene: Scene, worker: Worker
) -> None:
    alter(scene, "supabase", "external", change="alter table gfx_players add going text")
    player = add_player(scene, "keeps", going="kept")
    scene.caught_up()
    with scene.load():
        scene.until_applied(100)
        alter(scene, "external", change="alter table gfx_players drop going")
        scene.until_applied(100)
    scene.execute("external", "update gfx_players set name = 'new' where id::text = %s", player)
    scene.caught_up()
    assert (at_supabase(scene, "name", player), at_supabase(scene, "going", player)) == (
        "new",
        "kept",
    )


def test_column_dropped_on_supabase_is_left_out(scene: Scene, worker: Worker) -> None:
    alter(scene, "supabase", "external", change="alter table gfx_players add spare text")
    scene.caught_up()
    alter(scene, "supabase", change="alter table gfx_players drop spare")
    player = add_player(scene, "without", spare="not carried")
    scene.caught_up()
    assert at_supabase(scene, "name", player) == "without"


def test_renamed_column_is_carried_under_its_new_name(scene: Scene, worker: Worker) -> None:
    rename: LiteralString = "alter table gfx_players rename both_have to renamed"
    with scene.load():
        scene.until_applied(100)
        alter(scene, "supabase", "external", change=rename)
        player = add_player(scene, "renamed", renamed=5)
        scene.until_applied(100)
    scene.caught_up()
    assert at_supabase(scene, "renamed", player) == 5


def test_widened_column_takes_the_wider_values(scene: Scene, worker: Worker) -> None:
    widen: LiteralString = "alter table gfx_players alter renamed type bigint"
    alter(scene, "external", change=widen)
    player = add_player(scene, "wide", renamed=2**40)
    until(lambda: len(scene.parked()) == 1)
    assert "gfx_players.renamed" in scene.parked()[0][3]
    alter(scene, "supabase", change=widen)
    until(lambda: not scene.parked())
    assert at_supabase(scene, "renamed", player) == 2**40


def test_type_that_does_not_fit_parks_the_rows_with_the_column_named(
    scene: Scene, worker: Worker
) -> None:
    alter(
        scene,
        "external",
        change="alter table gfx_players alter renamed type text using 'text ' || renamed",
    )
    player = add_player(scene, "odd type", renamed="no number")
    fine = add_player(scene, "fine", renamed="12")
    until(lambda: len(scene.parked()) == 1)
    assert scene.parked()[0][2] == player
    assert "gfx_players.renamed: invalid input syntax" in scene.parked()[0][3]
    until(
        lambda: (
            scene.execute("supabase", "select 1 from gfx_players where id::text = %s", fine) != []
        )
    )
    alter(
        scene,
        "supabase",
        change="alter table gfx_players alter renamed type text using 'text ' || renamed",
    )
    until(lambda: not scene.parked())
    scene.command("verify", "gfx", "--repair", "--yes")


def test_delete_whose_key_the_log_does_not_hold_takes_no_other_row(
    scene: Scene, worker: Worker
) -> None:
    """As the id is not in the log, Debezium sends that of zeros, which is another row's here."""
    other = "00000000-0000-0000-0000-000000000000"
    scene.execute(
        "external",
        "insert into gfx_players (id, player_hash, name) values (%s, 'zeros', 'zeros')",
        other,
    )
    gone = add_player(scene, "deleted without its key")
    alter(
        scene,
        "external",
        change="alter table gfx_players replica identity using index gfx_players_player_hash_key",
    )
    scene.execute("external", "delete from gfx_players where id::text = %s", gone)
    alter(scene, "external", change="alter table gfx_players replica identity default")
    scene.caught_up()
    assert at_supabase(scene, "name", other) == "zeros"
    (told,) = scene.notifications("delete_without_key")
    assert "player_hash" in told
    repaired = scene.command("verify", "gfx", "--table", "gfx_players", "--repair", "--yes")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert scene.execute("supabase", "select 1 from gfx_players where id::text = %s", gone) == []
