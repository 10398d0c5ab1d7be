"""What breaks capture is seen, with the command that leads back, and for how long it was broken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest
from psycopg import AsyncConnection, sql

from ftstream.apply.sites import open_both
from ftstream.compare import gaps
from ftstream.compare.gaps import Gap
from ftstream.flows import FLOWS, Site
from ftstream.postgres.connection import open_site
from ftstream.setup import run_init
from ftstream.setup.expectations import wanted
from ftstream.setup.faults import Fault
from ftstream.setup.lineage import accept, lineage_faults
from ftstream.setup.site_look import CHANGED_BACK, look

from .conftest import MemoryTopics, Pair

GFX = frozenset(table.qualified for table in FLOWS[0].tables)
TWO_WAY = frozenset(table.qualified for flow in FLOWS if flow.two_way for table in flow.tables)
EXTERNAL, SUPABASE = Site.EXTERNAL, Site.SUPABASE


class Break(NamedTuple):
    """Something that somebody does by hand, and what is said of it."""

    site: Site
    does: str
    said: str
    lost: frozenset[str] = frozenset()
    command: str = "ftstream init"
    mended: bool = True
    """Whether `init` leads back by itself."""


BREAKS = {
    "publication lacks a table": Break(
        EXTERNAL,
        "alter publication {ns}_gfx_publication drop table gfx_players",
        "publication {ns}_gfx_publication lacks public.gfx_players",
        frozenset({"public.gfx_players"}),
    ),
    "publication dropped": Break(
        EXTERNAL,
        "drop publication {ns}_gfx_publication",
        "publication {ns}_gfx_publication does not exist",
        GFX,
        "ftstream init, then ftstream connectors apply gfx",
    ),
    "publication of inserts only": Break(
        EXTERNAL,
        "alter publication {ns}_gfx_publication set (publish = 'insert')",
        "publication {ns}_gfx_publication leaves out some kinds of change",
        GFX,
    ),
    "publication of a column list": Break(
        EXTERNAL,
        "alter publication {ns}_gfx_publication set table gfx_sessions, gfx_hands, gfx_hand_players,"
        " gfx_players (id, player_hash)",
        "publication {ns}_gfx_publication has other columns of public.gfx_players",
        frozenset({"public.gfx_players"}),
    ),
    "publication of some rows": Break(
        EXTERNAL,
        "alter publication {ns}_gfx_publication set table gfx_sessions, gfx_hands, gfx_hand_players,"
        " gfx_players where (name <> 'x')",
        "publication {ns}_gfx_publication leaves out rows of public.gfx_players",
        frozenset({"public.gfx_players"}),
    ),
    "outbox's publication": Break(
        EXTERNAL,
        "drop publication {ns}_outbox_publication",
        "publication {ns}_outbox_publication does not exist",
        TWO_WAY,
        "ftstream init, then ftstream connectors apply overrides cue_sheets",
    ),
    "swapped by rename": Break(
        EXTERNAL,
        "create table new_players (like gfx_players including all);"
        "alter table gfx_players rename to old_players; alter table new_players rename to gfx_players",
        "publication {ns}_gfx_publication lacks public.gfx_players",
        frozenset({"public.gfx_players"}),
    ),
    "partitioned anew": Break(
        EXTERNAL,
        "alter table gfx_players rename to old_players;"
        "create table gfx_players (like old_players including defaults, primary key (id))"
        " partition by hash (id);"
        "create table gfx_players_0 partition of gfx_players for values with (modulus 1, remainder 0)",
        "publication {ns}_gfx_publication lacks public.gfx_players",
        frozenset({"public.gfx_players"}),
    ),
    "table dropped": Break(
        EXTERNAL,
        "drop table gfx_hand_players cascade",
        "public.gfx_hand_players does not exist",
        frozenset({"public.gfx_hand_players"}),
        "create it as it was, then ftstream init",
        mended=False,
    ),
    "table not logged": Break(
        EXTERNAL,
        "alter publication {ns}_gfx_publication drop table gfx_hand_players;"
        "alter table gfx_hand_players set unlogged",
        "public.gfx_hand_players is not logged",
        frozenset({"public.gfx_hand_players"}),
        "ALTER TABLE public.gfx_hand_players SET LOGGED",
        mended=False,
    ),
    "replica identity": Break(
        EXTERNAL,
        "alter table gfx_players replica identity nothing",
        "the log does not tell which row of public.gfx_players changed (replica identity nothing)",
        frozenset(),
        "ALTER TABLE public.gfx_players REPLICA IDENTITY DEFAULT",
        mended=False,
    ),
    "slot dropped": Break(
        EXTERNAL,
        "select pg_drop_replication_slot('{ns}_gfx_slot')",
        "replication slot {ns}_gfx_slot does not exist",
        GFX,
        "ftstream init, then ftstream connectors apply gfx",
    ),
    "rows of a COPY": Break(
        EXTERNAL,
        "drop trigger ftstream_row_by_row on gfx_hands",
        "trigger ftstream_row_by_row of public.gfx_hands does not exist",
    ),
    "enum without labels": Break(
        EXTERNAL,
        "create type mood as enum ()",
        "type public.mood has no labels of its own, with which no connector starts again",
        frozenset(),
        "DROP TYPE public.mood, or see `ftstream init`",
        mended=False,
    ),
    "capture role's settings": Break(
        EXTERNAL,
        "alter role {capture} in database {db} reset timezone",
        "role {capture} lacks timezone in this database",
    ),
    "capture role's rights": Break(
        EXTERNAL,
        "revoke select on gfx_hands from {capture}",
        "role {capture} lacks SELECT on table public.gfx_hands",
    ),
    "rows hidden from the capture role": Break(
        EXTERNAL,
        "drop policy ftstream_capture on gfx_hands",
        "row level security hides rows of public.gfx_hands from role {capture}",
    ),
    "all triggers off": Break(
        SUPABASE,
        "alter table cue_sheets disable trigger all",
        "trigger ftstream_capture of public.cue_sheets is switched off, or not as it was made",
        frozenset({"public.cue_sheets"}),
    ),
    "pg_restore --disable-triggers": Break(
        SUPABASE,
        "alter table cue_sheets disable trigger all; alter table cue_sheets enable trigger all",
        "trigger ftstream_capture of public.cue_sheets is switched off, or not as it was made",
        frozenset({"public.cue_sheets"}),
    ),
    "trigger dropped": Break(
        EXTERNAL,
        "drop trigger ftstream_capture on player_overrides",
        "trigger ftstream_capture of public.player_overrides does not exist",
        frozenset({"public.player_overrides"}),
    ),
    "hand-over off": Break(
        SUPABASE,
        "alter table ftstream.last_write disable trigger ftstream_hand_over",
        "trigger ftstream_hand_over of ftstream.last_write is switched off, or not as it was made",
        TWO_WAY | frozenset({"public.render_queue"}),
    ),
    "guard off": Break(
        SUPABASE,
        "alter table gfx_players disable trigger ftstream_guard",
        "trigger ftstream_guard of public.gfx_players is switched off, or not as it was made",
        frozenset({"public.gfx_players"}),
    ),
    "worker's rights": Break(
        SUPABASE,
        "revoke insert on gfx_hands from {apply}",
        "role {apply} lacks INSERT on table public.gfx_hands",
    ),
}


def spelt(text: str, pair: Pair) -> str:
    names = {
        "{ns}": pair.settings.namespace,
        "{capture}": f"capture_{pair.database}",
        "{apply}": f"apply_{pair.database}",
        "{db}": pair.database,
    }
    for name, value in names.items():
        text = text.replace(name, value)
    return text


async def hand(pair: Pair, site: Site, statements: str) -> None:
    """Do it as the superuser."""
    async with await pair.connect(site) as connection:
        for each in spelt(statements, pair).split(";"):
            await connection.execute(sql.SQL(each))


class Watch:
    """Looks as the worker does; what it has found twice is certain."""

    def __init__(self, pair: Pair, site: Site) -> None:
        self._pair, self._site = pair, site
        self._found: tuple[Fault, ...] = ()
        self.at: AsyncConnection

    async def look(self) -> tuple[Fault, ...]:
        aim = wanted(self._site, FLOWS, self._pair.settings)
        async with await open_site(self._pair.settings, self._site) as connection:
            found = await look(connection, aim, certain=self._found)
        assert found is not None
        self._found = found.faults
        # No connector runs here, which is told, too.
        return tuple(fault for fault in found.faults if "nobody reads" not in fault.what)

    async def gaps(self) -> list[Gap]:
        async with await open_site(self._pair.settings, self._site) as connection:
            return await gaps.gaps(connection)


async def init(pair: Pair) -> None:
    async for _ in run_init(pair.settings, MemoryTopics()):
        pass


@pytest.fixture
async def watch(least: Pair) -> Callable[[Site], Awaitable[Watch]]:
    """What `init` has made, as it is seen to be well."""
    await init(least)

    async def begun(site: Site) -> Watch:
        watch = Watch(least, site)
        assert await watch.look() == ()
        return watch

    return begun


@pytest.mark.parametrize("name", BREAKS)
async def test_what_somebody_breaks_is_told_with_the_way_back(
    name: str, least: Pair, watch: Callable[[Site], Awaitable[Watch]]
) -> None:
    broken = BREAKS[name]
    watching = await watch(broken.site)
    await hand(least, broken.site, broken.does)
    first = await watching.look()
    said = {fault.what: fault for fault in first}
    fault = said[spelt(broken.said, least)]
    assert (fault.where, fault.command) == (broken.site.value, spelt(broken.command, least))
    assert set(fault.tables) == broken.lost
    assert await watching.gaps() == []  # a single look may come amid somebody's change
    assert await watching.look() == first
    lost = {table for each in first for table in each.tables}
    found = await watching.gaps()
    assert {gap.table for gap in found} == lost and broken.lost <= lost
    assert all(gap.until is None for gap in found)
    if broken.mended:
        await init(least)
        assert await watching.look() == ()
        over = await watching.gaps()
        assert [gap.table for gap in over] == [gap.table for gap in found]
        assert all(gap.until is not None and gap.settled for gap in over)


@pytest.mark.parametrize(
    ("site", "does", "table"),
    [
        (
            SUPABASE,
            "alter table cue_sheets disable trigger ftstream_capture;"
            "alter table cue_sheets enable always trigger ftstream_capture",
            "public.cue_sheets",
        ),
        (
            EXTERNAL,
            "alter publication {ns}_gfx_publication drop table gfx_hands;"
            "alter publication {ns}_gfx_publication add table gfx_hands",
            "public.gfx_hands",
        ),
    ],
)
async def test_what_is_changed_and_changed_back_between_two_looks_is_a_gap(
    site: Site, does: str, table: str, least: Pair, watch: Callable[[Site], Awaitable[Watch]]
) -> None:
    watching = await watch(site)
    await hand(least, site, does)
    assert await watching.look() == ()
    (gap,) = await watching.gaps()
    assert (gap.table, gap.reason) == (table, CHANGED_BACK) and gap.until is not None
    assert await watching.look() == () and await watching.gaps() == [gap]


async def test_what_init_changes_itself_is_no_gap(
    least: Pair, watch: Callable[[Site], Awaitable[Watch]]
) -> None:
    watching = await watch(EXTERNAL)
    await hand(least, EXTERNAL, "alter publication {ns}_gfx_publication owner to admin")
    await watching.look()
    before = await watching.gaps()
    await init(least)
    assert await watching.look() == () and await watching.gaps() == before


async def test_a_gap_waits_for_transactions_that_began_in_it(
    least: Pair, watch: Callable[[Site], Awaitable[Watch]]
) -> None:
    watching = await watch(EXTERNAL)
    await hand(least, EXTERNAL, "alter publication {ns}_gfx_publication drop table gfx_hands")
    async with await least.connect(EXTERNAL) as writer, writer.transaction():
        await writer.execute(
            "insert into gfx_players (id, player_hash, name) values (gen_random_uuid(), 'x', 'y')"
        )
        await watching.look()
        await watching.look()
        await hand(least, EXTERNAL, "alter publication {ns}_gfx_publication add table gfx_hands")
        assert await watching.look() == ()
        (gap,) = await watching.gaps()
        assert gap.until is not None and not gap.settled
    (gap,) = await watching.gaps()
    assert gap.settled


async def lineage(pair: Pair, *, count: bool = True) -> list[str]:
    async with open_both(pair.settings) as connections:
        found = await lineage_faults(pair.settings, FLOWS, connections, count=count)
    return [f"{fault.where} {fault.command}" for fault in found]


@pytest.mark.parametrize("site", Site)
async def test_a_site_that_is_set_back_is_told_until_somebody_accepts_it(
    least: Pair, site: Site
) -> None:
    await init(least)
    assert await lineage(least) == [] == await lineage(least)
    restore = backed_up(least, site)
    assert await lineage(least) == []
    restore()
    went_back = [f"{site} stop the workers, then ftstream restored {site}"]
    for count in (False, True, True):
        assert await lineage(least, count=count) == went_back
    async with open_both(least.settings) as connections:
        await accept(least.settings, FLOWS, site, connections)
        left = {gap.table for gap in await gaps.gaps(connections[site])}
    assert left == GFX | TWO_WAY | {"public.render_queue"}
    assert await lineage(least) == [] == await lineage(least)


async def test_what_is_applied_of_a_log_that_has_not_come_so_far_says_so_too(least: Pair) -> None:
    """Nobody may have counted while the connector went on reading."""
    await init(least)
    assert await lineage(least) == []
    async with await least.connect(SUPABASE) as supabase:
        await supabase.execute(
            "insert into ftstream.applied_offset (topic, kafka_partition, next_offset, source_position)"
            " values (%s || '.gfx.gfx_hands', 0, 1, 9e17::bigint)",
            [least.settings.namespace],
        )
    assert await lineage(least) == ["external stop the workers, then ftstream restored external"]
    async with open_both(least.settings) as connections:
        await accept(least.settings, FLOWS, EXTERNAL, connections)
    assert await lineage(least) == []


def backed_up(pair: Pair, site: Site) -> Callable[[], None]:
    """Copy a database; what is returned puts the copy back in its place."""
    cluster, name, copy = pair.cluster(site), pair.database, f"{pair.database}_copy"
    names = {"name": sql.Identifier(name), "copy": sql.Identifier(copy)}
    cluster.execute(sql.SQL("create database {copy} template {name}").format(**names))

    def restore() -> None:
        cluster.execute(
            sql.SQL(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s"
            ),
            [name],
        )
        cluster.execute(sql.SQL("drop database {name} with (force)").format(**names))
        cluster.execute(sql.SQL("alter database {copy} rename to {name}").format(**names))

    return restore
