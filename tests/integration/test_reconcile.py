"""Two filled databases meet: the last write of each row stays, whoever writes meanwhile."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import LiteralString

import pytest
from click.testing import CliRunner, Result
from psycopg import AsyncConnection

from ftstream.apply.applier import applier_of
from ftstream.apply.schema import Schema
from ftstream.apply.sites import ApplyFailed, Sites
from ftstream.cli import main
from ftstream.cli import reconcile as cli
from ftstream.compare import gaps
from ftstream.compare.reconciliation import TablePlan, Undecided, reconciliation, repair
from ftstream.failures import NEVER_MET
from ftstream.flows import RENDER_QUEUE, Capture, Conflict, Flow, Site, Table
from ftstream.last_write.reconciled import unreconciled
from ftstream.postgres.connection import open_site
from ftstream.setup import run_init
from ftstream.setup.expectations import wanted
from ftstream.setup.site_look import look
from tests.integration.conftest import MemoryTopics, Pair
from tests.integration.two_way import Place, Two, two_places

SHEETS = Flow(
    name="sheets",
    tables=(Table("sheets"),),
    capture=Capture.OUTBOX,
    sources=(Site.EXTERNAL, Site.SUPABASE),
    conflict=Conflict.LAST_WRITE_WINS,
)
SETUP: tuple[LiteralString, ...] = (
    "create table sheets (id uuid primary key, body text, code text unique, updated_at timestamptz)",
    "create table items (sheet uuid references sheets on delete cascade)",
)
SAME, NEWER_E, NEWER_S, ONLY_E, ONLY_S, TIE, UNDATED = (str(uuid.UUID(int=n)) for n in range(1, 8))

Rows = Mapping[str, tuple[str, str | None, str | None]]
"""Id to body, code and updated_at."""

FILLED: Mapping[Site, Rows] = {
    Site.EXTERNAL: {
        SAME: ("same", "a", "2026-01-01"),
        NEWER_E: ("of external", None, "2026-05-01 00:00:00.000001"),
        NEWER_S: ("of external", "b", "2026-05-01"),
        ONLY_E: ("of external", "c", "2026-01-01"),
        TIE: ("of external", None, "2026-01-01"),
        UNDATED: ("of external", None, "infinity"),
    },
    Site.SUPABASE: {
        SAME: ("same", "a", "2026-01-01"),
        NEWER_E: ("of supabase", None, "2026-05-01"),
        NEWER_S: ("of supabase", "b", "2026-05-02"),
        ONLY_S: ("of supabase", "d", "2026-01-01"),
        TIE: ("of supabase", None, "2026-01-01"),
        UNDATED: ("of supabase", None, "-infinity"),
    },
}


async def fill(pair: Pair, rows: Mapping[Site, Rows]) -> None:
    for site in Site:
        async with await pair.connect(site, pair.cluster(site).site.admin) as owner:
            for query in SETUP:
                await owner.execute(query)
            for key, values in rows[site].items():
                await owner.execute("insert into sheets values (%s, %s, %s, %s)", (key, *values))


async def planned(
    pair: Pair,
    prefer: Site | None = None,
    doubles: Mapping[str, str] | None = None,
    flow: Flow = SHEETS,
) -> TablePlan:
    async with reconciliation(flow, pair.settings, prefer) as opened:
        return await opened.plan(flow.tables[0], doubles or {})


async def carried_out(pair: Pair, plan: TablePlan, flow: Flow = SHEETS) -> int:
    async with reconciliation(flow, pair.settings) as opened:
        done = await opened.carry_out(plan)
        await opened.met(plan)
        return done


async def kept(two: Two) -> set[tuple[str, str, str]]:
    """Site, id and body of what was parked."""
    query: LiteralString = "select entity_id, image->>'body' from ftstream.displaced"
    return {(p.site.value, *row) for p in two.both for row in await p.run(query)}


async def bodies(two: Two) -> dict[str, str]:
    await two.must_agree("sheets")
    return dict(await two.external.run("select id::text, body from sheets"))


async def test_last_write_of_each_row_stays_and_the_loser_is_kept(least: Pair) -> None:
    await fill(least, FILLED)
    told: list[int] = []

    async def meet() -> None:
        sites = Sites(Site.SUPABASE, least.settings)
        schema = Schema(SHEETS, Site.SUPABASE, lambda _: None)
        applier = applier_of(SHEETS, sites, schema, least.settings.apply, lambda _: None)
        with pytest.raises(ApplyFailed, match="was never told of") as refused:
            await applier.prepare()
        assert refused.value.failure.sqlstate == NEVER_MET
        await sites.close()
        plan = await planned(least)
        assert set(plan.decisions) == {NEWER_E, NEWER_S, ONLY_E, ONLY_S, TIE, UNDATED}
        async with await least.connect(Site.EXTERNAL) as user:  # meanwhile
            await user.execute("update sheets set body = 'now' where id = %s", [ONLY_E])
            await user.execute("delete from sheets where id = %s", [TIE])
        told.append(await carried_out(least, plan))

    async with two_places(least, SHEETS, meet=meet) as two:
        await two.exchange()
        assert await bodies(two) == {
            SAME: "same",
            NEWER_E: "of external",
            NEWER_S: "of supabase",
            ONLY_E: "now",
            ONLY_S: "of supabase",
            UNDATED: "of supabase",
        }
        assert told == [5]  # not the one that was written meanwhile
        assert await kept(two) == {
            ("supabase", NEWER_E, "of supabase"),
            ("external", NEWER_S, "of external"),
            ("external", UNDATED, "of external"),
        }
        assert (await planned(least)).decisions == {}
        await two.exchange()
        assert not [change for place in two.both for change in await place.captured()]


async def test_preferred_site_stays_where_both_are_old(least: Pair) -> None:
    await fill(least, FILLED)

    async def meet() -> None:
        await carried_out(least, await planned(least, Site.EXTERNAL))

    async with two_places(least, SHEETS, meet=meet) as two:
        await two.exchange()
        found = await bodies(two)
        assert {found[key] for key in (NEWER_E, NEWER_S, TIE, UNDATED)} == {"of external"}
        assert found[ONLY_S] == "of supabase"


async def test_run_again_before_anything_has_arrived_it_decides_the_same(least: Pair) -> None:
    await fill(least, FILLED)

    async def meet() -> None:
        first = await planned(least, Site.EXTERNAL)
        await carried_out(least, first)
        again = await planned(least, Site.EXTERNAL)
        assert {i: d.winner for i, d in again.decisions.items()} == {
            i: d.winner for i, d in first.decisions.items()
        }
        await carried_out(least, again)

    async with two_places(least, SHEETS, meet=meet) as two:
        await two.exchange()
        found = await bodies(two)
        assert {found[key] for key in (NEWER_E, NEWER_S, TIE, UNDATED)} == {"of external"}


async def test_repair_leaves_what_is_for_a_person_to_decide(least: Pair) -> None:
    rows: Mapping[Site, Rows] = {
        Site.EXTERNAL: {ONLY_E: ("e", "a", "2026-01-01")},
        Site.SUPABASE: {ONLY_S: ("s", "a", "2026-01-02")},
    }
    await fill(least, rows)
    await again(least)
    with pytest.raises(Undecided, match="ftstream reconcile sheets"):
        await repair(SHEETS, least.settings, SHEETS.tables)
    async with reconciliation(SHEETS, least.settings) as opened:
        await opened.met(TablePlan(SHEETS.tables[0]))
    with pytest.raises(Undecided, match="share a value"):
        await repair(SHEETS, least.settings, SHEETS.tables)
    for doubles in ({ONLY_S: SAME}, {ONLY_S: ONLY_E, ONLY_E: ONLY_S}):
        with pytest.raises(Undecided, match="is on no site, or goes too"):
            await planned(least, doubles=doubles)


async def test_rows_that_swap_a_value_are_no_clash(least: Pair) -> None:
    await fill(
        least,
        {
            Site.EXTERNAL: {ONLY_E: ("e", "a", "2026-01-01"), SAME: ("e", "b", "2026-01-01")},
            Site.SUPABASE: {ONLY_E: ("s", "b", "2026-01-02"), SAME: ("s", "a", "2026-01-02")},
        },
    )

    async def meet() -> None:
        plan = await planned(least)
        assert plan.clashes == []
        await carried_out(least, plan)

    async with two_places(least, SHEETS, meet=meet) as two:
        await two.exchange()
        assert await bodies(two) == {ONLY_E: "s", SAME: "s"}


async def test_one_entity_under_two_ids_is_for_a_person_to_decide(least: Pair) -> None:
    await fill(
        least,
        {
            Site.EXTERNAL: {ONLY_E: ("e", "a", "2026-01-01")},
            Site.SUPABASE: {ONLY_S: ("s", "a", "2026-01-02")},
        },
    )

    async def meet() -> None:
        (clash,) = (await planned(least)).clashes
        assert (clash.columns, clash.ids) == (
            ("code",),
            (("external", ONLY_E), ("supabase", ONLY_S)),
        )
        plan = await planned(least, doubles={ONLY_S: ONLY_E})
        assert plan.clashes == []
        async with await least.connect(Site.SUPABASE) as user:
            await user.execute("insert into items values (%s)", [ONLY_S])
            with pytest.raises(Undecided, match=r"1 of public\.items: have them refer to"):
                await carried_out(least, plan)
            await user.execute("delete from items")
        await carried_out(least, plan)

    async with two_places(least, SHEETS, meet=meet) as two:
        await two.exchange()
        assert await bodies(two) == {ONLY_E: "e"}
        kept = await two.supabase.run("select entity_id, image->>'body' from ftstream.displaced")
        assert kept == [(ONLY_S, "s")]


async def test_what_a_lost_slot_has_swallowed_is_found_by_the_last_writes(least: Pair) -> None:
    async with two_places(least, SHEETS, SETUP) as two:
        for key in (SAME, TIE, ONLY_E):
            await two.external.run("insert into sheets (id, body) values (%s, 'first')", key)
        await two.exchange()
        await two.external.run("update sheets set body = 'changed' where id = %s", SAME)
        await two.external.run("update sheets set body = 'changed' where id = %s", ONLY_E)
        await two.external.run("update sheets set body = 'first' where id = %s", ONLY_E)
        await two.external.run("delete from sheets where id = %s", TIE)
        await two.external.run("insert into sheets (id, body) values (%s, 'new')", ONLY_S)
        assert len(await two.external.captured()) == 5  # and nobody hears of it
        assert await repair(SHEETS, least.settings, SHEETS.tables) == 4
        await two.exchange()
        assert await bodies(two) == {SAME: "changed", ONLY_E: "first", ONLY_S: "new"}


async def test_rows_that_have_come_to_differ_are_told_again(least: Pair) -> None:
    async with two_places(least, SHEETS, SETUP) as two:
        for key in (SAME, TIE):
            await two.external.run("insert into sheets (id, body) values (%s, 'right')", key)
        await two.exchange()
        async with await least.connect(Site.SUPABASE, "supabase_admin") as hand:
            await hand.execute("alter table sheets disable trigger user")
            await hand.execute("update sheets set body = 'wrong' where id = %s", [SAME])
            await hand.execute("delete from sheets where id = %s", [TIE])
            await hand.execute("alter table sheets enable always trigger ftstream_capture")
        assert await repair(SHEETS, least.settings, SHEETS.tables) == 2
        await two.exchange()
        assert await bodies(two) == {SAME: "right", TIE: "right"}


async def test_rows_of_an_owner_replace_whatever_the_other_site_has(least: Pair) -> None:
    one, two_, three = SAME, TIE, ONLY_E
    for site, rows in ((Site.SUPABASE, (one, two_)), (Site.EXTERNAL, (two_, three))):
        async with await least.connect(site, least.cluster(site).site.admin) as owner:
            for key in rows:
                await owner.execute(
                    "insert into render_queue (id, render_type, aep_project, aep_comp_name, gfx_data)"
                    " values (%s, (enum_range(null::orch_render_type))[1], %s, 'c', '{}')",
                    [key, site.value],
                )

    async def meet() -> None:
        plan = await planned(least, flow=RENDER_QUEUE)
        assert await carried_out(least, plan, RENDER_QUEUE) == 3

    async with two_places(least, RENDER_QUEUE, meet=meet) as two:
        await two.external.apply(*await two.supabase.captured())
        await two.must_agree("render_queue")
        assert len(await two.external.rows("render_queue")) == 2
        query = "select entity_id from ftstream.displaced order by 1"
        assert await two.external.run(query) == [(three,), (two_,)]


async def missing(connection: AsyncConnection) -> list[str]:
    return await unreconciled(connection, SHEETS.tables)


async def test_table_that_was_never_captured_well_is_to_be_reconciled(least: Pair) -> None:
    async with two_places(least, SHEETS, SETUP) as two:
        external = two.external
        assert await missing(external.user) == []
        await external.run("insert into sheets (id) values (%s)", SAME)
        await again(least)
        assert await missing(external.user) == []
        async with await least.connect(Site.EXTERNAL, "admin") as owner:
            await owner.execute("alter table sheets disable trigger ftstream_capture")
            await owner.execute("delete from ftstream.setup_seen")  # as an older version left it
        await again(least)
        assert await missing(external.user) == ["sheets"]
        assert await missing(two.supabase.user) == []


def side(two: Two, site: Site) -> Place:
    return two.external if site is Site.EXTERNAL else two.supabase


async def looked(least: Pair, site: Site) -> None:
    """A worker has seen that capture is well again."""
    async with await open_site(least.settings, site) as connection:
        await look(connection, wanted(site, [SHEETS], least.settings), certain=())


async def uncaptured(least: Pair, site: Site, *statements: tuple[LiteralString, list[str]]) -> None:
    """Write while the trigger is off, then have `init` bring it back."""
    async with await least.connect(site) as owner:
        await owner.execute("alter table sheets disable trigger ftstream_capture")
        for query, values in statements:
            await owner.execute(query, values)
    await again(least)
    await looked(least, site)


@pytest.mark.parametrize("site", Site)
async def test_what_was_written_in_a_gap_stays_deletes_included(least: Pair, site: Site) -> None:
    """Though the other site wrote the rows last, as far as both know."""
    async with two_places(least, SHEETS, SETUP) as two:
        here, there = side(two, site), side(two, site.other)
        for key in (SAME, NEWER_E, NEWER_S):
            await there.run("insert into sheets (id, body) values (%s, 'before')", key)
        await two.exchange()
        await uncaptured(
            least,
            site,
            ("update sheets set body = 'unnoted' where id = %s", [SAME]),
            ("delete from sheets where id = %s", [NEWER_E]),
            ("insert into sheets (id, body) values (%s, 'new')", [ONLY_E]),
        )
        await there.run("update sheets set body = 'later' where id = %s", NEWER_S)
        (gap,) = await gaps.gaps(here.user)
        assert gap.table == "public.sheets" and gap.settled
        assert await missing(here.user) == []
        await two.exchange()
        assert await repair(SHEETS, least.settings, SHEETS.tables) == 3
        await two.exchange()
        rows = await here.run("select id::text, body from sheets order by id")
        assert dict(rows) == {SAME: "unnoted", NEWER_S: "later", ONLY_E: "new"}
        assert await there.run("select id::text, body from sheets order by id") == rows
        assert await gaps.gaps(here.user) == []


@pytest.mark.parametrize("site", Site)
async def test_unnoted_words_that_the_other_site_overwrites_are_kept(
    least: Pair, site: Site
) -> None:
    async with two_places(least, SHEETS, SETUP) as two:
        here, there = side(two, site), side(two, site.other)
        keys = (SAME, NEWER_E, NEWER_S)
        for key in keys:
            await there.run("insert into sheets (id, body) values (%s, 'before')", key)
        await there.run("update sheets set body = 'well'")
        await two.exchange()
        async with await least.connect(site) as owner:
            await owner.execute("alter table sheets disable trigger ftstream_capture")
            await owner.execute("update sheets set body = 'unnoted'")
        await there.run("update sheets set body = 'amid' where id = %s", SAME)
        await two.exchange()  # nobody has seen yet that the trigger is off
        await again(least)
        await looked(least, site)
        await there.run("delete from sheets where id = %s", NEWER_E)
        await two.exchange()
        (gap,) = await gaps.gaps(here.user)
        assert await gaps.kept(here.user, gap) == 2
        kept = await here.run("select entity_id, image ->> 'body' from ftstream.displaced")
        assert dict(kept) == {SAME: "unnoted", NEWER_E: "unnoted"}
        assert await repair(SHEETS, least.settings, SHEETS.tables) == 1
        await two.exchange()
        await there.run("update sheets set body = 'after'")
        await two.exchange()
        for place in two.both:
            rows = await place.run("select id::text, body from sheets order by id")
            assert dict(rows) == {SAME: "after", NEWER_S: "after"}
        assert await here.run("select count(*) from ftstream.displaced") == [(2,)]


async def test_what_both_sites_wrote_unnoted_is_for_a_person(least: Pair) -> None:
    async with two_places(least, SHEETS, SETUP) as two:
        await two.external.run("insert into sheets (id, body) values (%s, 'before')", SAME)
        await two.exchange()
        for site in Site:
            await uncaptured(least, site, ("update sheets set body = %s", [site]))
        with pytest.raises(Undecided, match="reconcile sheets --prefer SITE"):
            await repair(SHEETS, least.settings, SHEETS.tables)
        await carried_out(least, await planned(least, Site.SUPABASE))
        await two.exchange()
        for site in Site:
            assert await side(two, site).run("select body from sheets") == [("supabase",)]
            assert await gaps.gaps(side(two, site).user) == []


async def test_a_gap_in_which_much_was_deleted_is_for_a_person(least: Pair) -> None:
    async with two_places(least, SHEETS, SETUP) as two:
        await two.external.run(
            "insert into sheets (id) select gen_random_uuid() from generate_series(1, 40)"
        )
        await two.exchange()
        await uncaptured(least, Site.EXTERNAL, ("delete from sheets", []))
        with pytest.raises(Undecided, match="40 of 40 rows would be deleted"):
            await repair(SHEETS, least.settings, SHEETS.tables, bounds=least.settings.batch)
        (gap,) = await gaps.gaps(two.external.user)
        assert gap.table == "public.sheets"


async def test_what_was_captured_without_a_slot_is_a_gap(least: Pair) -> None:
    async with two_places(least, SHEETS, SETUP) as two:
        await two.external.run(
            "select pg_drop_replication_slot(%s)", f"{least.database}_outbox_slot"
        )
        await two.external.run("insert into sheets (id) values (%s)", SAME)
        await again(least)
        (gap,) = await gaps.gaps(two.external.user)
        assert gap.table == "public.sheets" and await missing(two.external.user) == []


@pytest.fixture
async def run(least: Pair, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[Result]]:
    """The command over the flow of this module, after `init`."""
    monkeypatch.setattr(cli, "FLOWS", (SHEETS,))
    monkeypatch.setattr(cli, "load_settings", lambda: least.settings)

    async def run(*arguments: str, said: str | None = None) -> Result:
        whole = ["reconcile", *arguments]
        return await asyncio.to_thread(CliRunner().invoke, main, whole, said)

    return run


async def test_command_shows_asks_and_is_done_once(
    least: Pair, run: Callable[..., Awaitable[Result]]
) -> None:
    await fill(least, FILLED)
    await again(least)
    dry = await run("--dry-run", "--limit", "2")
    assert dry.exit_code == 0
    assert f"sheets {NEWER_E}  external stays" in dry.output
    assert "sheets: and 4 more" in dry.output and "nothing was changed" in dry.output
    assert (await run(said="n\n")).exit_code == 1  # nobody says yes
    for site in Site:
        async with await least.connect(site) as connection:
            assert await missing(connection) == ["sheets"]
    done = json.loads((await run("--yes", "--json")).stdout)
    assert done["handed_over"] == 6
    assert {row["id"]: row["stays"] for row in done["tables"][0]["rows"]} == {
        NEWER_E: "external",
        NEWER_S: "supabase",
        ONLY_E: "external",
        ONLY_S: "supabase",
        TIE: "supabase",
        UNDATED: "supabase",
    }
    for site in Site:
        async with await least.connect(site) as connection:
            assert await missing(connection) == []


async def test_command_does_nothing_while_a_clash_is_undecided(
    least: Pair, run: Callable[..., Awaitable[Result]]
) -> None:
    await fill(
        least,
        {
            Site.EXTERNAL: {ONLY_E: ("e", "a", "2026-01-01"), SAME: ("e", "b", "2026-01-01")},
            Site.SUPABASE: {ONLY_S: ("s", "a", "2026-01-02")},
        },
    )
    await again(least)
    refused = await run("sheets", "--yes")
    assert refused.exit_code == 1
    assert f"code = (a) of {ONLY_E} (external), {ONLY_S} (supabase)" in refused.output
    assert "--map TABLE:GOES=STAYS" in refused.output
    async with await least.connect(Site.EXTERNAL) as connection:
        assert await missing(connection) == ["sheets"]
    for wrong in ("sheets", "sheets:x=x", "players:a=b"):
        assert (await run("--map", wrong)).exit_code == 2
    assert (await run("gfx")).exit_code == 2
    mapped = await run("--map", f"sheets:{ONLY_S}={ONLY_E}", "--yes")
    assert mapped.exit_code == 0, mapped.output
    assert f"{ONLY_S}  goes, for {ONLY_E}" in mapped.output
    async with await least.connect(Site.SUPABASE) as connection:
        assert await missing(connection) == []
        query = "select entity_id from ftstream.displaced"
        assert await (await connection.execute(query)).fetchall() == [(ONLY_S,)]


async def again(pair: Pair) -> None:
    async for _ in run_init(pair.settings, MemoryTopics(), [SHEETS]):
        pass
