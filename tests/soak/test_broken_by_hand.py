"""Each way to break capture by hand, on the whole stack: told when, what led back, and what it cost."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from ftstream.flows import CUE_SHEETS, GFX, OVERRIDES
from ftstream.local.demo.rig import SITES, Rig, SiteName
from tests.conftest import until
from tests.integration.test_setup_watch import BREAKS, Break
from tests.system.edits import OWN_SESSION, SESSION
from tests.system.scene import Scene, set_up

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

PERSONS = ("swapped by rename", "partitioned anew")
"""Afterwards External's table is empty, and a person decides: tests/system/test_setup_broken.py."""

SYSTEM = ("slot dropped", "worker's rights")
"""Nobody can drop a slot that is read; and here the worker is the administrator."""

CHOSEN = [name for name, each in BREAKS.items() if each.mended and name not in (*PERSONS, *SYSTEM)]

WRITES: dict[str, tuple[LiteralString, LiteralString, LiteralString]] = {
    "public.gfx_players": (
        "insert into gfx_players (player_hash, name) values (%s, 'n')",
        "update gfx_players set name = 'unnoted' where player_hash = %s",
        "delete from gfx_players where player_hash = %s",
    ),
    "public.player_overrides": (
        "insert into player_overrides (field_name, wsop_player_id, override_value, reason, created_by)"
        " values (%s, gen_random_uuid(), 'v', 'r', 'test')",
        "update player_overrides set override_value = 'unnoted' where field_name = %s",
        "delete from player_overrides where field_name = %s",
    ),
    "public.cue_sheets": (
        "insert into cue_sheets (sheet_code, session_id, sheet_name, sheet_order, created_by)"
        " select %s, (select id from broadcast_sessions limit 1), 'n',"
        " (extract(epoch from clock_timestamp()) * 1000)::bigint %% 1000000000, 'test'",
        "update cue_sheets set sheet_name = 'unnoted' where sheet_code = %s",
        "delete from cue_sheets where sheet_code = %s",
    ),
}
"""An insert, an update and a delete of the tables that stand for the others of their flows."""

ROWS: dict[str, LiteralString] = {
    "public.gfx_players": "select player_hash, name from gfx_players",
    "public.player_overrides": "select field_name, override_value from player_overrides",
    "public.cue_sheets": "select sheet_code, sheet_name from cue_sheets",
}


@pytest.fixture(scope="module")
def scene(rig: Rig) -> Iterator[Scene]:
    with set_up(rig, (GFX, OVERRIDES), spoilt=True) as scene:
        worker = scene.worker(FTSTREAM_WATCH__SECONDS="1").ready()
        until(lambda: bool(scene.execute("external", "select 1 from ftstream.setup_seen")))
        for site in SITES:
            scene.execute(site, OWN_SESSION, SESSION, "S")
        yield scene
        assert worker.stop() == 0


@pytest.mark.parametrize("name", CHOSEN)
def test_what_is_broken_is_told_and_made_up_for(
    scene: Scene, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = BREAKS[name]
    site: SiteName = "external" if broken.site.value == "external" else "supabase"
    tables = [table for table in WRITES if table in broken.lost] or ["public.gfx_players"]
    # Where External owns the rows people write there, unless the guard of the other is off.
    at: SiteName = site if broken.lost else "external"
    owner: dict[str, SiteName] = {table: "external" if "gfx" in table else at for table in tables}
    for table in tables:
        for mark in ("old", "gone"):
            scene.execute(owner[table], WRITES[table][0], f"{name} {mark}")
    scene.caught_up(GFX, OVERRIDES, CUE_SHEETS)
    by_hand(scene, broken)
    began = time.monotonic()
    for table in tables:
        insert, update, delete = WRITES[table]
        for query, mark in ((insert, "new"), (update, "old"), (delete, "gone")):
            # A publication of some rows has PostgreSQL refuse updates and deletes.
            with contextlib.suppress(psycopg.errors.InvalidColumnReference):
                scene.execute(at, query, f"{name} {mark}")
    words = spelt(broken.said, scene)
    until(lambda: told(scene, words), 60)
    seconds = time.monotonic() - began
    missing = sum(differing(scene, table) for table in tables)
    commands = lead_back(scene)
    until(lambda: not gaps(scene), 120)
    scene.caught_up(GFX, OVERRIDES, CUE_SHEETS)
    until(lambda: scene.command("status").returncode == 0, 60)
    after = sum(differing(scene, table) for table in tables)
    with capsys.disabled():
        print(
            f"\n| {name} | {seconds:.0f} s | {', '.join(commands)} | {missing} | {after} |", end=" "
        )
    assert after == 0


def lead_back(scene: Scene) -> list[str]:
    """Run the command that is told for each fault, until there is none."""
    ran: list[str] = []
    end = time.monotonic() + 120
    while faults := json.loads(scene.command("status", "--json").stdout)["setup"]:
        assert time.monotonic() < end, faults
        command = faults[0]["command"]
        for part in command.split(", then "):
            done = scene.command(*shlex.split(part.removeprefix("ftstream ")))
            assert done.returncode == 0, (faults, done)
        ran.append(command)
    return ran


def spelt(text: str, scene: Scene) -> str:
    settings = scene.rig.settings
    names = {
        "{ns}": settings.namespace,
        "{capture}": settings.connect.capture_user,
        "{db}": settings.external.parameter("dbname"),
    }
    for name, value in names.items():
        text = text.replace(name, value)
    return text


def by_hand(scene: Scene, broken: Break) -> None:
    user = None if broken.site.value == "external" else "supabase_admin"
    site: SiteName = "external" if broken.site.value == "external" else "supabase"
    with psycopg.connect(scene.rig.dsn(site, user), autocommit=True) as connection:
        for each in spelt(broken.does, scene).split(";"):
            connection.execute(sql.SQL(each))


def told(scene: Scene, words: str) -> bool:
    found = json.loads(scene.command("notifications", "--all", "--json").stdout)
    return any(each["type"] == "setup_broken" and words in each["title"] for each in found)


def gaps(scene: Scene) -> list[object]:
    return [row for site in SITES for row in scene.execute(site, "select 1 from ftstream.gap")]


def differing(scene: Scene, table: str) -> int:
    external, supabase = (set(scene.execute(site, ROWS[table])) for site in SITES)
    return len({row[0] for row in external ^ supabase})
