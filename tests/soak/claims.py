"""Whether what people are told is so: what `status` says of a flow, and what notifications say of set-up."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import LiteralString

import psycopg

from ftstream.local.demo.rig import SITES, SiteName
from tests.system.scene import Scene

FALSE = ("setup_broken", "gap_left", "gap_closed")
"""Kinds of notification that say that rows may be missing, or are: nobody breaks capture in these tests."""

TRUE = (
    "does not answer",
    "nobody reads replication slot",
    "connector",
)
"""What may be said of set-up while a service is down, and is so."""

ROWS: Mapping[tuple[str, str], tuple[LiteralString, LiteralString]] = {
    ("gfx", "supabase"): (
        "select id::text, md5(concat_ws('|', player_hash, name)), xmin::text from gfx_players",
        "select id::text, md5(concat_ws('|', player_hash, name)) from gfx_players where id::text = any(%s)",
    ),
    ("overrides", "supabase"): (
        "select entity_id, version::text, '' from ftstream.last_write"
        " where table_name = 'player_overrides' and site = 'external'",
        "select entity_id, version::text from ftstream.last_write"
        " where table_name = 'player_overrides' and entity_id = any(%s)",
    ),
    ("overrides", "external"): (
        "select entity_id, version::text, '' from ftstream.last_write"
        " where table_name = 'player_overrides' and site = 'supabase'",
        "select entity_id, version::text from ftstream.last_write"
        " where table_name = 'player_overrides' and entity_id = any(%s)",
    ),
}
"""What a direction is to have carried: entity and mark of its state, at the source and at the target. At the
source its row version, too: players swap their names, and swap them back."""


class Claims:
    """Asks `status` again and again; what it calls applied must be on the other site."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.asked = 0
        self.applied = 0
        """Directions of which it was said that everything is applied."""
        self.false: list[str] = []

    def __enter__(self) -> Claims:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1):
            try:
                self._ask()
            except psycopg.Error:
                time.sleep(1)  # a site is away: nobody can compare

    def _ask(self) -> None:
        before = {way: self._at_source(way) for way in ROWS}
        said = self._scene.command("status", "--json")
        if not said.stdout:
            return
        self.asked += 1
        for each in json.loads(said.stdout)["flows"]:
            way = each["flow"], each["target"]
            if way in ROWS and each["applied"]:
                self.applied += 1
                self._must_be_there(way, before[way])

    def _must_be_there(self, way: tuple[str, str], rows: Mapping[str, tuple[str, str]]) -> None:
        there = self._at_target(way, list(rows))
        missing = {key for key, (state, _) in rows.items() if there.get(key) != state}
        # What was written since is on its way.
        now = self._at_source(way)
        if wrong := [key for key in missing if now.get(key) == rows[key]]:
            later = self._at_target(way, wrong)
            self.false += [
                f"{way}: {key} is {later.get(key)}, not {rows[key][0]}"
                for key in wrong
                if not _newer(later.get(key), rows[key][0])
            ]

    def _at_source(self, way: tuple[str, str]) -> dict[str, tuple[str, str]]:
        found = self._scene.execute(_source(way), ROWS[way][0])
        return {key: (state, version) for key, state, version in found}

    def _at_target(self, way: tuple[str, str], keys: list[str]) -> dict[str, str]:
        return dict(self._scene.execute(_site(way[1]), ROWS[way][1], keys))


def _newer(there: str | None, here: str) -> bool:
    """Say whether the target has a write that is greater: of a ledger alone that can be."""
    return there is not None and there.isdigit() and here.isdigit() and int(there) >= int(here)


def _site(name: str) -> SiteName:
    return "external" if name == "external" else "supabase"


def _source(way: tuple[str, str]) -> SiteName:
    return "supabase" if way[1] == "external" else "external"


def false_words(scene: Scene) -> list[str]:
    """Return what was told that says of capture what is not so."""
    told = json.loads(scene.command("notifications", "--all", "--json").stdout)
    words = [
        f"{each['type']}: {each['title']}"
        for each in told
        if each["type"] in FALSE
        and not (each["type"] == "setup_broken" and any(w in each["title"] for w in TRUE))
    ]
    gaps = [
        f"gap of {table} at {site}: {reason}"
        for site in SITES
        for table, reason in scene.execute(site, "select table_name, reason from ftstream.gap")
    ]
    return words + gaps
