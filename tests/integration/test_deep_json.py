"""JSON that nests deep: what PostgreSQL takes on one site arrives on the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import LiteralString

import psycopg
import pytest

from ftstream.flows import Site
from ftstream.recover.revert import OneWrite, Target, carry_out, plan
from ftstream.setup import run_init
from tests.integration.conftest import MemoryTopics, Pair
from tests.integration.test_applier import ONE, TWO, Worker
from tests.integration.test_outbox import NOTES
from tests.integration.two_way import Two, two_places

SETUP: LiteralString = "create table notes (id uuid primary key, body text, doc jsonb)"
DEEP = 12_000
"""Levels: PostgreSQL takes some 14,000, by default."""


@pytest.fixture
def pair(least: Pair) -> Pair:
    return least


@pytest.fixture
async def notes(pair: Pair) -> AsyncIterator[Two]:
    async with two_places(pair, NOTES, (SETUP,)) as two:
        yield two


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


async def test_deep_json_is_carried_both_ways_and_taken_back(pair: Pair, notes: Two) -> None:
    external, supabase = notes.both
    await supabase.run("insert into notes values (%s, 'one', %s::jsonb)", ONE, nested(DEEP))
    await external.run("insert into notes values (%s, 'two', %s::jsonb)", TWO, nested(1_000))
    await notes.exchange()
    await notes.must_agree("notes")
    await supabase.run("update notes set doc = '[]', body = 'new' where id = %s", ONE)
    await notes.exchange()
    ((version,),) = await external.run(
        "select (change ->> 'version')::bigint from ftstream.sync_log"
        " where entity_id = %s order by 1 limit 1",
        ONE,
    )
    target = Target(NOTES, NOTES.tables[0], Site.SUPABASE)
    found = await plan(pair.settings, target, OneWrite(ONE, version))
    await carry_out(pair.settings, target, found.writes, "me")
    await notes.exchange()
    await notes.must_agree("notes")
    held = await external.run(
        "select body, doc::text = %s from notes where id = %s", nested(DEEP), ONE
    )
    assert held == [("one", True)]


async def test_deep_json_in_the_log_is_carried(pair: Pair) -> None:
    async for _ in run_init(pair.settings, MemoryTopics()):
        pass
    worker = await Worker(pair, 0).ready()
    for site in (Site.EXTERNAL, Site.SUPABASE):
        async with await pair.connect(site) as connection:
            await connection.execute("alter table gfx_players add doc jsonb")
    change = worker.change(ONE, player_hash="x", name="n", doc=nested(DEEP))
    await worker.applier.apply(worker.batch(change))
    async with await pair.connect(Site.SUPABASE) as connection:
        found = await connection.execute("select doc::text = %s from gfx_players", [nested(DEEP)])
        assert await found.fetchall() == [(True,)]
    await worker.sites.close()


async def test_message_that_the_other_site_could_not_read_names_the_column(notes: Two) -> None:
    query: LiteralString = (
        "select ftstream.require_readable('notes', %s, jsonb_build_object('id', %s::text, 'row',"
        " jsonb_build_object('id', %s::text, 'doc', %s::jsonb))::text)"
    )
    place = notes.supabase
    await place.run(query, ONE, ONE, ONE, nested(DEEP))
    # Where it begins depends on how PostgreSQL was built.
    readable, deepest = DEEP, 10 * DEEP
    while deepest - readable > 1:
        middle = (readable + deepest) // 2
        try:
            await place.run(query, ONE, ONE, ONE, nested(middle))
            readable = middle
        except (psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex):
            deepest = middle
    with pytest.raises(psycopg.errors.ProgramLimitExceeded) as refused:
        await place.run(query, ONE, ONE, ONE, nested(deepest))
    assert f"notes.doc of row {ONE} nests too deep" in str(refused.value)
    assert "max_stack_depth (2MB)" in str(refused.value)
