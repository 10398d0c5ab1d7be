"""People who edit overrides and cue sheets on both sites at once, and a render job, while the demo runs."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from psycopg import AsyncConnection

from ftstream.local.demo.rig import SITES, Rig, SiteName
from ftstream.postgres.queries import Queries, statement

QUERIES = Queries.load(__package__, "editors.sql")

PAUSE_SECONDS = 0.25
"""Between two edits of one person."""

PATIENCE_SECONDS = 60.0
HISTORY = 8

STATES = {"queued": 0, "rendering": 40, "encoding": 80, "completed": 100}

PLAYER, SESSION, RENDER, *ROWS = (str(uuid.UUID(int=n, version=4)) for n in range(1, 8))
"""Few rows for all, so that they meet."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Edits:
    """What was done, and since when."""

    since: datetime
    number: int


async def play(rig: Rig, seconds: float, seed: int, say: Say) -> Edits:
    """Two people edit the same rows for these seconds, each on a site; a job is rendered."""
    await _prepare(rig)
    began = datetime.now(UTC)
    say("overrides and cue sheets are edited on both sites at once")
    external, supabase, _ = await asyncio.gather(
        _edit(rig, "external", "kim", seconds, seed),
        _edit(rig, "supabase", "lee", seconds, seed),  # the same seed: the same rows, all along
        _render(rig, seconds, say),
    )
    return Edits(began, external + supabase)


def refused(rig: Rig, say: Say) -> None:
    """Show what each site says to an edit of what the other one owns."""
    edits: tuple[tuple[SiteName, str], ...] = (
        ("external", "edit_render"),
        ("supabase", "edit_hand"),
    )
    for site, query in edits:
        try:
            with psycopg.connect(rig.dsn(site)) as connection:
                connection.execute(statement(QUERIES[query]))
        except psycopg.errors.ObjectNotInPrerequisiteState as error:
            say(f"{site} refuses: {error.diag.message_primary}\n    {error.diag.message_hint}")
        else:
            raise AssertionError(f"{site} let {query} through")


def bring_back(rig: Rig, say: Say) -> None:
    """Show a row over which both were in conflict, and bring the loser's words back as a new edit."""
    entity_id = _conflicted(rig)
    if entity_id is None:
        say("nobody was in conflict over an override this time")
        return
    say(f"$ ftstream history player_overrides {entity_id} --json   (its last {HISTORY} changes)")
    logged = json.loads(rig.run("history", "player_overrides", entity_id, "--json"))
    for entry in logged[-HISTORY:]:
        what = repr(entry["row"]["override_value"]) if entry["row"] else "deleted"
        who = f"{entry['author']} on {entry['written_on']}"
        say(f"    {entry['written_at'][11:23]}  {who:<16}  {entry['outcome']:<24}  {what}")
    loser = next(
        entry for entry in logged if entry["outcome"].startswith("conflict") and entry["row"]
    )
    version = f"{loser['written_on']}:{loser['version']}"
    say(f"$ ftstream revert player_overrides --id {entity_id} --version {version} --yes")
    told = rig.run("revert", "player_overrides", "--id", entity_id, "--version", version, "--yes")
    for line in told.splitlines()[-2:]:  # before them, the row column by column
        say(f"    {line}")


def _conflicted(rig: Rig) -> str | None:
    """A row whose loser's words are in the log of a site."""
    for site in SITES:
        with psycopg.connect(rig.dsn(site)) as connection:
            row = connection.execute(statement(QUERIES["conflicted"])).fetchone()
            if row is not None:
                return str(row[0])
    return None


async def _prepare(rig: Rig) -> None:
    names = {"player": PLAYER, "session": SESSION}
    async with await _connect(rig, "external") as external:
        for query in ("add_player", "add_session"):
            await external.execute(statement(QUERIES[query]), names)
    async with await _connect(rig, "supabase") as supabase, asyncio.timeout(PATIENCE_SECONDS):
        await supabase.execute(statement(QUERIES["add_session"]), names)
        while not await _one(supabase, "has_player", names):
            await asyncio.sleep(0.1)


async def _edit(rig: Rig, site: SiteName, author: str, seconds: float, seed: int) -> int:
    chance = random.Random(seed)
    clock = asyncio.get_running_loop().time
    end, number = clock() + seconds, 0
    async with await _connect(rig, site) as connection:
        while clock() < end:
            values: dict[str, object] = {
                "id": chance.choice(ROWS[:2]),
                "player": PLAYER,
                "session": SESSION,
                "author": author,
                "text": f"{author} {number}",
            }
            query = chance.choices(("edit_override", "delete_override", "edit_sheet"), (6, 1, 4))[0]
            if query == "edit_sheet":
                values |= {"id": (sheet := chance.choice(ROWS[2:])), "place": ROWS.index(sheet)}
            async with connection.transaction():
                await connection.execute(statement(QUERIES["author"]), values)
                await connection.execute(statement(QUERIES[query]), values)
            number += 1
            await asyncio.sleep(PAUSE_SECONDS)
    return number


async def _render(rig: Rig, seconds: float, say: Say) -> None:
    job = {"id": RENDER}
    async with (
        await _connect(rig, "supabase") as supabase,
        await _connect(rig, "external") as there,
    ):
        await supabase.execute(statement(QUERIES["queue_render"]), job)
        for status, progress in STATES.items():
            await asyncio.sleep(seconds / (len(STATES) + 1))
            values = job | {"status": status, "progress": progress}
            await supabase.execute(statement(QUERIES["render"]), values)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await _one(there, "rendered", job) != "completed":
                await asyncio.sleep(0.05)
    say(f"a render job went through {', '.join(STATES)}, and External knows")


async def _connect(rig: Rig, site: SiteName) -> AsyncConnection:
    return await AsyncConnection.connect(rig.dsn(site), autocommit=True)


async def _one(connection: AsyncConnection, query: str, values: Mapping[str, str]) -> object:
    row = await (await connection.execute(statement(QUERIES[query]), values)).fetchone()
    return row[0] if row else None
