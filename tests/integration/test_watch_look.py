"""What the watcher asks of a site: its own role may, and it holds no lock that a writer could meet."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import AsyncConnection

from ftstream.flows import FLOWS, Capture, Site
from ftstream.postgres.connection import open_site
from ftstream.setup import run_init
from ftstream.setup.expectations import wanted
from ftstream.setup.site_look import look as look_at_setup
from ftstream.watch.alerts import Mute
from ftstream.watch.look import glance
from ftstream.watch.signals import SiteSignals
from ftstream.watch.store import QUERIES as KEPT
from ftstream.watch.store import Links, Store
from tests.integration.conftest import MemoryTopics, Pair
from tests.unit.sights import OPEN

HOUR = timedelta(hours=1)

WRITERS_MEET = ("ShareLock", "ShareUpdateExclusiveLock", "ShareRowExclusiveLock", "ExclusiveLock")


@pytest.mark.parametrize("site", Site)
async def test_a_look_takes_no_lock_that_a_writer_could_meet(least: Pair, site: Site) -> None:
    await initialised(least)
    settings = least.settings.for_watcher()
    async with await open_site(settings, site) as connection, connection.transaction():
        seen = await glance(settings, FLOWS, site, connection)
        await look_at_setup(connection, wanted(site, FLOWS, settings))
        outgoing = [f for f in FLOWS if f.capture is Capture.OUTBOX and site in f.sources]
        tables = [flow.tables[0].qualified for flow in outgoing]
        await connection.execute("select ftstream.beat(%s::text[]::regclass[])", [tables])
        locked = await modes(connection)
    assert isinstance(seen, SiteSignals) and seen.applied == {}
    of_people = {(table, mode) for table, mode in locked if not table.startswith("ftstream.")}
    assert {mode for _, mode in of_people} <= {"AccessShareLock"}
    assert not [each for each in locked if each[1] in (*WRITERS_MEET, "AccessExclusiveLock")]


@pytest.mark.parametrize("site", Site)
async def test_the_watcher_sees_what_the_worker_does_of_the_set_up(least: Pair, site: Site) -> None:
    """Gaps and faults included; and it notes nothing."""
    await initialised(least)
    found = []
    for settings in (least.settings, least.settings.for_watcher()):
        async with await open_site(settings, site) as connection:
            gap = (
                "insert into ftstream.gap (flow, table_name, reason, since)"
                " values ('gfx', 'public.gfx_hands', 'r', now()) on conflict do nothing"
            )
            if settings is least.settings:
                await connection.execute(gap)
            found.append(await look_at_setup(connection, wanted(site, FLOWS, settings), certain=()))
    assert found[0] is not None and found[0].gaps
    assert found[0] == found[1]


async def test_everything_that_the_watcher_keeps_its_own_role_may(least: Pair) -> None:
    await initialised(least)
    links = Links(least.settings.for_watcher())
    values = {
        "lease": {"holder": "w", "seconds": 20.0},
        "give_up": {"holder": "w"},
        "open": {"seconds": 1.0},
        "forget": {"days": 1},
        "waiting": {"flow": "gfx"},
        "note_receiver": {"name": "duty", "error": ""},
        "health": {"language": "ko"},
        "daily": {"batches": ["wsop"]},
        "note_activity": {"action": "a", "entity": "e", "details": "{}"},
    }
    on_supabase = {"health", "daily", "note_activity", "restarts"}
    by_people = {"acknowledge", "mute", "unmute"}  # with the worker's role, by commands
    own = {"save", "note_compared"}  # with values of other types: by methods, below
    try:
        for site in Site:
            for name in KEPT.keys() - own - by_people:
                if name in on_supabase and site is Site.EXTERNAL:
                    continue

                async def work(connection: AsyncConnection, name: str = name) -> None:
                    await connection.execute(KEPT[name], values.get(name))  # type: ignore[call-overload]

                await links.run(site, work)
        store, people = Store(links, "w"), Links(least.settings)
        await store.note_compared({"gfx_hands": 1})
        assert await store.compared() is not None
        await store.save([OPEN])
        try:
            by_hand = Store(people)
            assert await by_hand.acknowledge("FT104", "", "lee") == 1
            assert await by_hand.mute(Mute("FT104", "", datetime.now(UTC) + HOUR), "lee") == 1
            assert [each.code for each in await store.mutes()] == ["FT104", "FT104"]
            assert await by_hand.unmute("", "") == 1
        finally:
            await people.close()
        assert [alert.acknowledged_by for alert in await store.open_alerts()] == ["lee"]
    finally:
        await links.close()


async def initialised(pair: Pair) -> None:
    async for _ in run_init(pair.settings, MemoryTopics()):
        pass


async def modes(connection: AsyncConnection) -> Iterable[tuple[str, str]]:
    """The tables that this session has locked, and how."""
    cursor = await connection.execute(
        "select c.oid::regclass::text, l.mode from pg_locks l join pg_class c on c.oid = l.relation"
        " where l.pid = pg_backend_pid() and c.relkind in ('r', 'p')"
        " and c.relnamespace <> 'pg_catalog'::regnamespace"
    )
    return [(row[0], row[1]) for row in await cursor.fetchall()]
