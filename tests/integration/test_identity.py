"""Columns that PostgreSQL makes up by itself: identity and generated ones, on both sites or one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, LiteralString

import msgspec
import pytest

from ftstream.apply.applier import applier_of
from ftstream.apply.merge import Batch, FromLog
from ftstream.apply.schema import Schema
from ftstream.apply.sites import ApplyFailed, Sites
from ftstream.failures import REFERRED_TO, Policy
from ftstream.flows import CUE_SHEETS, WSOP, Site
from ftstream.messages.change import Change, Operation
from ftstream.messages.toast import PLACEHOLDER
from ftstream.postgres.queries import statement
from ftstream.recover.revert import Since, Target, carry_out, plan
from ftstream.setup import run_init
from tests.integration.conftest import MemoryTopics, Pair
from tests.integration.test_applier import INSERT, ONE, THREE, TWO, Worker, write
from tests.integration.test_outbox import NOTES
from tests.integration.test_references import SHEET, add_session, add_sheet
from tests.integration.two_way import Two, two_places

ALWAYS: LiteralString = "alter table gfx_players add n bigint generated always as identity unique"
PLAIN: LiteralString = "alter table gfx_players add n bigint unique"
NUMBERED: Sequence[LiteralString] = (
    """create table notes (id uuid primary key, body text, n int generated always as identity unique,
        twice text generated always as (body || body) stored)""",
)


@pytest.fixture
def pair(least: Pair) -> Pair:
    return least


async def gfx(pair: Pair, at_external: LiteralString, at_supabase: LiteralString) -> Worker:
    for site, query in ((Site.EXTERNAL, at_external), (Site.SUPABASE, at_supabase)):
        async with await pair.connect(site, pair.cluster(site).site.admin) as owner:
            await owner.execute(query)
    async for _ in run_init(pair.settings, MemoryTopics()):
        pass
    return await Worker(pair, 0).ready()


async def numbers(pair: Pair, site: Site = Site.SUPABASE) -> list[tuple[Any, ...]]:
    async with await pair.connect(site) as connection:
        query = "select id::text, name, n from gfx_players order by id"
        return await (await connection.execute(query)).fetchall()


def change(worker: Worker, key: str, n: int, name: str = "name") -> Change:
    return worker.change(key, player_hash=key, name=name, n=n)


@pytest.mark.parametrize("at_external", [ALWAYS, PLAIN], ids=["both", "target only"])
async def test_rows_are_written_with_the_numbers_of_their_source(
    pair: Pair, at_external: LiteralString
) -> None:
    worker = await gfx(pair, at_external, ALWAYS)
    await worker.applier.apply(worker.batch(change(worker, ONE, 7), change(worker, TWO, 8)))
    await worker.applier.apply(worker.batch(change(worker, ONE, 7, "new")))
    assert await numbers(pair) == [(ONE, "new", 7), (TWO, "name", 8)]
    await worker.sites.close()


async def test_numbers_that_differ_between_the_sites_become_the_sources(pair: Pair) -> None:
    """As after the column was added on each site: each has numbered its rows by itself."""
    worker = await gfx(
        pair,
        ALWAYS,
        ALWAYS + ", add own text default 'default', add old text generated always as (name) stored",
    )
    for key in (ONE, TWO, THREE):
        await write(pair, Site.SUPABASE, INSERT, key, key, "old")
    await write(pair, Site.SUPABASE, "update gfx_players set own = id::text")
    # Two change their numbers with each other; the third takes a new one.
    batch = worker.batch(*[change(worker, key, n) for key, n in ((ONE, 2), (TWO, 1), (THREE, 9))])
    await worker.applier.apply(batch)
    assert await numbers(pair) == [(ONE, "name", 2), (TWO, "name", 1), (THREE, "name", 9)]
    async with await pair.connect(Site.SUPABASE) as connection:
        query = "select id::text, own, old from gfx_players order by id"
        kept = await (await connection.execute(query)).fetchall()
    assert kept == [(key, key, "name") for key in (ONE, TWO, THREE)]
    await worker.sites.close()


async def test_number_that_another_row_holds_is_settled_as_the_owner_has_it(pair: Pair) -> None:
    worker = await gfx(pair, ALWAYS, ALWAYS)
    for key in (ONE, TWO):
        await write(pair, Site.EXTERNAL, INSERT, key, key, key)
    for key in (TWO, ONE):
        await write(pair, Site.SUPABASE, INSERT, key, key, key)
    await worker.applier.apply(worker.batch(change(worker, ONE, 1, ONE)))
    assert (
        await numbers(pair) == await numbers(pair, Site.EXTERNAL) == [(ONE, ONE, 1), (TWO, TWO, 2)]
    )
    await worker.sites.close()


async def test_row_that_is_completed_or_read_again_gets_its_number(pair: Pair) -> None:
    worker = await gfx(pair, ALWAYS, ALWAYS)
    for n, key in enumerate((ONE, TWO), 5):
        query = (
            "insert into gfx_players (id, player_hash, name, n) overriding system value"
            " values (%s, %s, %s, %s)"
        )
        await write(pair, Site.EXTERNAL, query, key, key, "name", n)
        await write(pair, Site.SUPABASE, INSERT, key, key, "large")
    partial = worker.change(ONE, player_hash="x", name=PLACEHOLDER.decode(), n=5)
    assert partial.partial
    await worker.applier.apply(worker.batch(partial, worker.repair(TWO)))
    assert await numbers(pair) == [(ONE, "large", 5), (TWO, "name", 6)]
    await worker.sites.close()


async def test_reference_that_no_update_can_end_forbids_the_delete(pair: Pair) -> None:
    worker = await gfx(pair, ALWAYS, ALWAYS)
    await worker.applier.apply(worker.batch(change(worker, ONE, 7)))
    async with await pair.connect(Site.SUPABASE, "postgres") as owner:
        for query in (
            "create table seats (n bigint generated always as identity primary key"
            " references gfx_players (n) on delete set null)",
            "insert into seats overriding system value values (7)",
        ):
            await owner.execute(statement(query))
    batch = worker.batch(worker.delete(ONE))
    with pytest.raises(ApplyFailed, match="may not look at it"):  # it came after `init`
        await worker.applier.apply(batch)
    async for _ in run_init(pair.settings, MemoryTopics()):
        pass
    with pytest.raises(ApplyFailed) as error:
        await worker.applier.apply(batch)
    assert (error.value.failure.policy, error.value.failure.sqlstate) == (Policy.PARK, REFERRED_TO)
    await worker.sites.close()


async def test_key_may_be_an_identity_column(pair: Pair) -> None:
    key: LiteralString = (
        "alter table gfx_sessions drop column id,"
        " add column id bigint generated always as identity primary key"
    )
    worker = await gfx(pair, key, key)
    row = {"session_id": 1, "file_name": "f", "file_hash": "h", "raw_json": "{}"}
    for name in ("first", "second"):
        changed = msgspec.structs.replace(
            worker.change("40", **row | {"file_name": name}), table="gfx_sessions"
        )
        changed = msgspec.structs.replace(changed, image=changed.image.replace(b'"40"', b"40"))  # type: ignore[union-attr]
        await worker.applier.apply(worker.batch(changed))
    async with await pair.connect(Site.SUPABASE) as connection:
        found = await connection.execute("select id, file_name from gfx_sessions")
        assert await found.fetchall() == [(40, "second")]
    await worker.sites.close()


async def test_generated_columns_of_one_site_are_left_alone_and_told(pair: Pair) -> None:
    worker = await gfx(
        pair,
        "alter table gfx_players add a text generated always as (name || '!') stored, add b text",
        "alter table gfx_players add a text default 'plain',"
        " add b text generated always as (name || '?') stored",
    )
    await worker.applier.apply(
        worker.batch(worker.change(ONE, player_hash="x", name="n", a="n!", b="from External"))
    )
    async with await pair.connect(Site.SUPABASE) as connection:
        found = await connection.execute("select a, b from gfx_players")
        assert await found.fetchall() == [("plain", "n?")]
    (told,) = [each.message for each in worker.told if each.kind == "columns_differ"]
    assert "a (external generates it)" in told
    assert "b (supabase generates it)" in told
    await worker.sites.close()


async def test_batches_carry_numbers_too(pair: Pair) -> None:
    for site in Site:
        async with await pair.connect(site, pair.cluster(site).site.admin) as owner:
            await owner.execute(
                "alter table wsop_events add n int generated always as identity unique"
            )
    async for _ in run_init(pair.settings, MemoryTopics(), [WSOP]):
        pass
    sites = Sites(Site.SUPABASE, pair.settings)
    schema = Schema(WSOP, Site.SUPABASE, lambda _: None)
    applier = applier_of(WSOP, sites, schema, pair.settings.apply, lambda _: None)
    await applier.prepare()
    for n in (4, 6):
        image = {
            "id": ONE,
            "event_id": "E",
            "event_name": "n",
            "start_date": "2026-01-01",
            "buy_in": "1",
            "event_type": "OTHER",
            "n": str(n),
        }
        await applier.apply(
            Batch(
                (
                    Change(
                        "wsop_events",
                        ONE,
                        Operation.UPDATE,
                        msgspec.json.encode(image),
                        False,
                        "t",
                        0,
                        n,
                        0,
                        0,
                    ),
                ),
                FromLog(),
            )
        )
        async with await pair.connect(Site.SUPABASE) as connection:
            assert await (await connection.execute("select n from wsop_events")).fetchall() == [
                (n,)
            ]
    await sites.close()


@pytest.fixture
async def notes(pair: Pair) -> AsyncIterator[Two]:
    async with two_places(pair, NOTES, NUMBERED) as two:
        yield two


async def test_edits_of_both_sites_carry_their_numbers(notes: Two) -> None:
    external, supabase = notes.both
    await supabase.run("alter table notes alter n restart with 100")
    await external.run("insert into notes values (%s, 'one')", ONE)
    await supabase.run("insert into notes values (%s, 'two')", TWO)
    await notes.exchange()
    await supabase.run("update notes set body = 'edited' where id = %s", ONE)
    await external.run("update notes set n = default where id = %s", TWO)
    await notes.exchange()
    await notes.must_agree("notes")
    found = await supabase.run("select id::text, body, n, twice from notes order by id")
    assert found == [(ONE, "edited", 1, "editededited"), (TWO, "two", 2, "twotwo")]


async def test_numbers_that_edits_swap_arrive_swapped(notes: Two) -> None:
    external, supabase = notes.both
    await supabase.run("alter table notes add own text default 'mine'")
    await supabase.applier.prepare()
    await external.run("insert into notes values (%s, 'one'), (%s, 'two')", ONE, TWO)
    await notes.exchange()
    await supabase.captured()
    await external.run("delete from notes")
    again = "insert into notes (id, body, n) overriding system value values (%s, 'one', 2), (%s, 'two', 1)"
    await external.user.execute(again, [ONE, TWO])
    await supabase.apply(*(await external.captured())[2:])
    found = await supabase.run("select id::text, n, own from notes order by id")
    assert found == [(ONE, 2, "mine"), (TWO, 1, "mine")]


async def test_row_that_is_taken_back_keeps_or_gets_its_number(pair: Pair, notes: Two) -> None:
    external, supabase = notes.both
    target = Target(NOTES, NOTES.tables[0], Site.SUPABASE)
    await supabase.run("insert into notes values (%s, 'one'), (%s, 'two')", ONE, TWO)
    await notes.exchange()
    ((at,),) = await supabase.run("select clock_timestamp()")
    await supabase.run("update notes set body = 'new', n = default where id = %s", ONE)
    await supabase.run("delete from notes where id = %s", TWO)
    await notes.exchange()
    found = await plan(pair.settings, target, Since(at))
    assert {i.entity_id: sorted(i.columns) for i in found.intents}[ONE] == ["body"]
    await carry_out(pair.settings, target, found.writes, "me")
    await notes.exchange()
    await notes.must_agree("notes")
    rows = await external.run("select id::text, body, n from notes order by id")
    assert rows == [(ONE, "one", 3), (TWO, "two", 2)]


async def test_parent_is_carried_with_its_number(pair: Pair) -> None:
    number: LiteralString = "alter table broadcast_sessions add n int generated always as identity"
    async with two_places(pair, CUE_SHEETS, (number,)) as two:
        external, supabase = two.both
        await supabase.run("alter table broadcast_sessions alter n restart with 30")
        await add_session(supabase)
        await add_sheet(supabase, SHEET, 1)
        await external.apply(*await supabase.captured())
        await two.must_agree("broadcast_sessions", "cue_sheets")
        assert await external.run("select n from broadcast_sessions") == [(30,)]
