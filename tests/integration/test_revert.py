"""Edits are taken back exactly, as edits that the other site gets, and never over somebody's head."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql

from ftstream.cli import main
from ftstream.flows import CUE_SHEETS, Capture, Conflict, Flow, Site, Table
from ftstream.recover.reversal import Action, Intent, Left, ReversalPlan, Written
from ftstream.recover.reversal import Result as Outcome
from ftstream.recover.revert import OneWrite, Since, Target, carry_out, plan
from ftstream.recover.rewrite import Reversals
from tests.integration.conftest import Pair
from tests.integration.test_outbox import NOTES
from tests.integration.test_outbox import SETUP as ODD_SETUP
from tests.integration.test_outbox import VALUES as ODD_VALUES
from tests.integration.two_way import Place, Two, two_places

SETUP = (
    """create table notes (id uuid primary key, body text, spot int unique,
        parent uuid references notes, updated_at timestamptz default now(), check (body <> 'no'))""",
    """create function touch() returns trigger language plpgsql as
        $$ begin new.updated_at := clock_timestamp(); return new; end $$""",
    "create trigger touch before update on notes for each row execute function touch()",
)
ONE, TWO, THREE, FOUR = KEYS = tuple(str(uuid.UUID(int=n)) for n in range(1, 5))
TARGET = Target(NOTES, NOTES.tables[0], Site.SUPABASE)
ME = "ted (revert)"


@pytest.fixture
async def two(least: Pair) -> AsyncIterator[Two]:
    async with two_places(least, NOTES, SETUP) as two:
        yield two


async def write(two: Two, place: Place, key: str, author: str = "kim", **values: object) -> None:
    """An edit that both sites have; without values the row is deleted."""
    await edit(place, key, author, **values)
    await two.exchange()


async def edit(place: Place, key: str, author: str = "kim", **values: object) -> None:
    names = [sql.Identifier(name) for name in values]
    listed, given = sql.SQL(", ").join(names), sql.SQL(", ").join([sql.Placeholder()] * len(names))
    async with place.user.transaction():
        await place.run("select set_config('ftstream.author', %s, true)", author)
        if not values:
            await place.run("delete from notes where id = %s", key)
            return
        query = sql.SQL("update notes set ({}) = row({}) where id = %s").format(listed, given)
        if not (await place.user.execute(query, [*values.values(), key])).rowcount:
            query = sql.SQL("insert into notes (id, {}) values (%s, {})").format(listed, given)
            await place.user.execute(query, [key, *values.values()])


async def now(two: Two) -> datetime:
    ((at,),) = await two.supabase.run("select clock_timestamp()")
    assert isinstance(at, datetime)
    return at


async def values(place: Place) -> list[tuple[object, ...]]:
    return await place.run("select id::text, body, spot from notes order by id")


async def reverted(
    pair: Pair, two: Two, wish: Since | OneWrite, target: Target = TARGET
) -> tuple[ReversalPlan, list[Outcome]]:
    """And the other site has it."""
    found = await plan(pair.settings, target, wish)
    results = await carry_out(pair.settings, target, found.writes, ME)
    await two.exchange()
    await two.must_agree("notes")
    return found, results


def actions(found: ReversalPlan) -> dict[str, Action]:
    return {intent.entity_id: intent.action for intent in found.intents}


def left(results: Sequence[Outcome]) -> dict[str, str]:
    return {r.intent.entity_id: r.reason for r in results if isinstance(r, Left)}


async def test_since_takes_back_what_either_site_wrote(
    least: Pair, two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftstream.recover.revert.TOGETHER", 2)
    monkeypatch.setattr("ftstream.recover.rewrite.TOGETHER", 2)
    await write(two, two.external, ONE, body="a")
    await write(two, two.supabase, ONE, body="b")
    await write(two, two.external, TWO, body="deleted later", spot=2)
    await write(two, two.supabase, FOUR, body="left alone")
    before, then = await values(two.external), await now(two)
    await write(two, two.external, ONE, body="c")
    await write(two, two.supabase, ONE, body="d")
    await write(two, two.supabase, TWO)
    await write(two, two.external, THREE, body="inserted")

    found, results = await reverted(least, two, Since(then))
    assert actions(found) == {ONE: Action.UPDATE, TWO: Action.INSERT, THREE: Action.DELETE}
    changed = next(intent for intent in found.intents if intent.entity_id == ONE)
    assert changed.columns["body"] == ("d", "b")
    assert all(isinstance(result, Written) for result in results) and len(results) == 3
    assert await values(two.external) == before
    authors = "select change->>'author' from ftstream.sync_log order by logged_at desc limit 3"
    assert await two.external.run(authors) == [(f"{ME} (apply_{least.database})",)] * 3


async def test_what_is_so_already_is_not_written_again(least: Pair, two: Two) -> None:
    """The trigger has set updated_at: that alone is no difference."""
    await write(two, two.external, ONE, body="a")
    then = await now(two)
    await write(two, two.external, ONE, body="b")
    await reverted(least, two, Since(then))
    written = await two.supabase.ledger()
    found, results = await reverted(least, two, Since(then))
    assert actions(found) == {ONE: Action.NOTHING} and not results
    assert await two.supabase.ledger() == written


@pytest.mark.parametrize("site", list(Site))
async def test_loser_of_a_conflict_becomes_the_row_again(least: Pair, two: Two, site: Site) -> None:
    await write(two, two.external, ONE, body="a")
    await edit(two.external, ONE, body="kim's")
    await edit(two.supabase, ONE, "lee", body="lee's, later")
    await two.exchange()
    assert (await values(two.external))[0][1] == "lee's, later"
    lost = "select (change->>'version')::bigint from ftstream.sync_log where outcome::text like 'conflict%'"
    ((version,),) = await two.supabase.run(lost)
    _, results = await reverted(least, two, OneWrite(ONE, version), replace(TARGET, site=site))
    assert [type(result) for result in results] == [Written]
    assert (await values(two.supabase))[0][1] == "kim's"
    found, _ = await reverted(least, two, OneWrite(ONE, 7))
    assert "none of its" in found.impossible[0].reason


async def test_by_takes_back_one_author_and_leaves_what_others_did_later(
    least: Pair, two: Two
) -> None:
    for key in (ONE, TWO, THREE):
        await write(two, two.external, key, body="a")
    then = await now(two)
    await write(two, two.external, ONE, "lee", body="lee's")
    await write(two, two.external, ONE, body="kim's")
    await write(two, two.external, TWO, body="kim's")
    await write(two, two.external, TWO, "lee", body="lee's")
    await write(two, two.external, THREE, "lee", body="lee's")
    await write(two, two.supabase, THREE, "kim (admin)", body="lee's")  # who is somebody else
    found, _ = await reverted(least, two, Since(then, author="kim (admin)"))
    assert [(e.entity_id, e.reason) for e in found.impossible] == [
        (TWO, "lee (admin) has changed it since")
    ]
    assert [row[1] for row in await values(two.supabase)] == ["lee's"] * 3


async def test_only_rows_that_are_named_are_taken_back(least: Pair, two: Two) -> None:
    for key in (ONE, TWO, THREE):
        await write(two, two.external, key, body="a")
    then = await now(two)
    for key in (ONE, TWO):
        await write(two, two.external, key, body="b")
    found, _ = await reverted(least, two, Since(then, (ONE, THREE, FOUR)))
    assert [row[1] for row in await values(two.external)] == ["a", "b", "a"]
    assert found.untouched == (THREE,)
    assert [e.entity_id for e in found.impossible] == [FOUR]


async def test_row_that_somebody_edits_meanwhile_is_left(least: Pair, two: Two) -> None:
    for key in (ONE, TWO, THREE, FOUR):
        await write(two, two.external, key, body="a")
    await write(two, two.external, FOUR)
    await write(two, two.external, FOUR, body="b")
    then = await now(two)
    for key in (ONE, TWO):
        await write(two, two.external, key, body="b")
    for key in (THREE, FOUR):
        await write(two, two.external, key)
    found = await plan(least.settings, TARGET, Since(then))
    await edit(two.supabase, ONE, "lee", body="in time")
    await edit(two.supabase, THREE, "lee", body="in time")
    results = await carry_out(least.settings, TARGET, found.writes, ME)
    assert left(results) == dict.fromkeys((ONE, THREE), "changed meanwhile: run it again")
    await two.exchange()
    await two.must_agree("notes")
    assert [row[1] for row in await values(two.external)] == ["in time", "a", "in time", "b"]


async def test_what_the_database_refuses_is_told_of_each_row_and_the_others_go_on(
    least: Pair, two: Two
) -> None:
    await write(two, two.external, ONE, body="a", spot=1)
    await write(two, two.external, TWO, body="a")
    await write(two, two.external, THREE, body="a", spot=3)
    then = await now(two)
    await write(two, two.external, ONE, body="b", spot=None)
    await write(two, two.external, TWO, body="b")
    await write(two, two.external, THREE)
    await write(two, two.external, FOUR, body="has taken it", spot=1)
    _, results = await reverted(least, two, Since(then, (ONE, TWO, THREE)))
    reasons = left(results)
    assert list(reasons) == [ONE]
    assert reasons[ONE].startswith("duplicate key value violates unique constraint")
    assert "Key (spot)=(1) already exists." in reasons[ONE]
    assert [row[1] for row in await values(two.external)] == ["b", "a", "a", "has taken it"]


async def test_missing_parent_and_broken_check_are_told(least: Pair, two: Two) -> None:
    await write(two, two.external, ONE, body="parent")
    await write(two, two.external, TWO, body="child", parent=ONE)
    await write(two, two.external, THREE, body="a")
    then = await now(two)
    await write(two, two.external, TWO, body="child", parent=None)
    await write(two, two.external, ONE)
    await write(two, two.external, THREE, body="b")
    for place in two.both:
        await place.run("alter table notes add constraint never check (body <> 'a')")
    _, results = await reverted(least, two, Since(then, (TWO, THREE)))
    reasons = left(results)
    assert "violates foreign key constraint" in reasons[TWO]
    assert 'violates check constraint "never"' in reasons[THREE]


async def test_order_is_found_parents_before_children_and_values_that_move(
    least: Pair, two: Two
) -> None:
    """Each needs one that comes later in the order of the keys."""
    await write(two, two.external, FOUR, body="parent")
    await write(two, two.external, ONE, body="child", parent=FOUR)
    await write(two, two.external, TWO, body="a", spot=2)
    before, then = await values(two.external), await now(two)
    await write(two, two.external, ONE)
    await write(two, two.external, FOUR)
    await write(two, two.external, TWO, body="a", spot=None)
    await write(two, two.external, THREE, body="new", spot=2)
    _, results = await reverted(least, two, Since(then))
    assert left(results) == {} and await values(two.supabase) == before


async def test_user_who_holds_a_row_goes_first(
    least: Pair, two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftstream.recover.revert.PATIENCE", 1)
    for key in (ONE, TWO):
        await write(two, two.external, key, body="a")
    then = await now(two)
    for key in (ONE, TWO):
        await write(two, two.external, key, body="b")
    found = await plan(least.settings, TARGET, Since(then))
    async with two.supabase.user.transaction():
        await two.supabase.run("select from notes where id = %s for update", ONE)
        results = await carry_out(least.settings, TARGET, found.writes, ME)
    assert left(results)[ONE].startswith("somebody else is writing it, and goes first")
    assert [row[1] for row in await values(two.supabase)] == ["b", "a"]


async def test_row_that_is_held_for_a_moment_is_waited_for(
    least: Pair, two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(two, two.external, ONE, body="a")
    then = await now(two)
    await write(two, two.external, ONE, body="b")
    gave_way, attempt = asyncio.Event(), Reversals.write

    async def watched(self: Reversals, intent: Intent, author: str) -> None:
        try:
            await attempt(self, intent, author)
        except psycopg.errors.LockNotAvailable:
            gave_way.set()
            raise

    monkeypatch.setattr(Reversals, "write", watched)
    found = await plan(least.settings, TARGET, Since(then))
    async with two.supabase.user.transaction():
        await two.supabase.run("select from notes where id = %s for update", ONE)
        writing = asyncio.create_task(carry_out(least.settings, TARGET, found.writes, ME))
        await asyncio.wait_for(gave_way.wait(), 30)
    assert left(await writing) == {}


async def test_write_that_is_under_way_makes_the_row_wait(least: Pair, two: Two) -> None:
    """What came before it may be under way, too."""
    await write(two, two.external, ONE, body="a")
    then = await now(two)
    await edit(two.external, ONE, body="not received yet")
    found = await plan(least.settings, TARGET, Since(then))
    assert "is in no log" in found.impossible[0].reason and not found.intents


async def test_log_that_does_not_reach_back_is_named(least: Pair, two: Two) -> None:
    """Of three days ago, when the log of External had nothing to tell, or was not kept."""
    await write(two, two.external, ONE, body="a")
    then = await now(two)
    await write(two, two.external, ONE, body="b")
    await two.supabase.run(
        "update ftstream.sync_log set change = jsonb_set(change, '{version}', to_jsonb("
        " (change->>'version')::bigint - 259200000000)) where change->'row'->>'body' = 'a'"
    )
    found = await plan(least.settings, TARGET, Since(then))
    assert "the log of external reaches back to" in found.impossible[0].reason
    for place in two.both:
        await place.run(
            "create table ftstream.sync_log_20200101 partition of ftstream.sync_log"
            " for values from ('2020-01-01') to ('2020-01-02')"
        )
    _, results = await reverted(least, two, Since(then))
    assert left(results) == {} and (await values(two.external))[0][1] == "a"


async def test_every_value_comes_back_as_it_was(least: Pair) -> None:
    async with two_places(least, NOTES, ODD_SETUP) as two:
        for column, literals in ODD_VALUES.items():
            for value in literals:
                query = sql.SQL("insert into notes ({}) values ({})")
                await two.external.user.execute(
                    query.format(sql.Identifier(column), sql.SQL(value))
                )
        await two.exchange()
        before, then = await two.external.rows("notes"), await now(two)
        nothing = sql.SQL(", ").join(
            sql.SQL("{} = null").format(sql.Identifier(column))
            for column in ODD_VALUES
            if column != "body"
        )
        for place, half in ((two.external, "<"), (two.supabase, ">=")):
            spoil = sql.SQL("update notes set body = 'spoilt', {} where md5(id::text) {} '8'")
            await place.user.execute(spoil.format(nothing, sql.SQL(half)))
            await two.exchange()
        await two.external.run("delete from notes where md5(id::text) < '4'")
        await two.exchange()
        assert not set(before) & set(await two.external.rows("notes"))
        # Whatever the role prefers.
        role = sql.Identifier(f"apply_{least.database}")
        for setting in (
            "intervalstyle = sql_standard",
            "datestyle = German",
            "timezone = 'Asia/Seoul'",
        ):
            prefer = sql.SQL("alter role {} set {}").format(role, sql.SQL(setting))
            await two.supabase.user.execute(prefer)
        found, results = await reverted(least, two, Since(then))
        assert left(results) == {} and not found.impossible
        assert set(actions(found).values()) == {Action.UPDATE, Action.INSERT}
        assert await two.external.rows("notes") == before


async def test_what_differs_only_in_how_it_is_written_is_a_difference(least: Pair) -> None:
    """A JSON null is not no value, and a numeric has its scale."""
    async with two_places(least, NOTES, ODD_SETUP) as two:
        await two.external.run("insert into notes (id, doc) values (%s, 'null')", ONE)
        await two.external.run("insert into notes (id, doc) values (%s, null)", TWO)
        await two.external.run("insert into notes (id, amount) values (%s, 0.1000)", THREE)
        await two.exchange()
        before, then = await two.external.rows("notes"), await now(two)
        await two.external.run("update notes set doc = null where id = %s", ONE)
        await two.external.run("update notes set doc = 'null' where id = %s", TWO)
        await two.external.run("update notes set amount = 0.1 where id = %s", THREE)
        await two.exchange()
        found, _ = await reverted(least, two, Since(then))
        assert [dict(intent.columns) for intent in found.intents] == [
            {"doc": (None, "null")},
            {"doc": ("null", None)},
            {"amount": ("0.1", "0.1000")},
        ]
        assert await two.external.rows("notes") == before


QUEUE = Flow(
    name="queue",
    tables=(Table("notes"),),
    capture=Capture.OUTBOX,
    sources=(Site.SUPABASE,),
    conflict=Conflict.SUPABASE_OWNS,
)


async def test_rows_of_an_owner_are_taken_back_at_the_owner(pair: Pair) -> None:
    async with two_places(pair, QUEUE, SETUP) as two:
        await write(two, two.supabase, ONE, body="a")
        then = await now(two)
        await write(two, two.supabase, ONE, body="b")
        target = replace(TARGET, flow=QUEUE)
        _, results = await reverted(pair, two, Since(then), target)
        assert left(results) == {} and (await values(two.external))[0][1] == "a"


async def test_right_that_a_trigger_needs_is_named_and_the_owner_has_it(
    least: Pair, two: Two
) -> None:
    owner = await least.connect(Site.SUPABASE, "supabase_admin")
    async with owner:
        await owner.execute("create table audit (id uuid)")
        await owner.execute(
            "create function audit() returns trigger language plpgsql as"
            " $$ begin insert into audit values (new.id); return new; end $$"
        )
        await write(two, two.external, ONE, body="a")
        then = await now(two)
        await write(two, two.external, ONE, body="b")
        await owner.execute(
            "create trigger audit after update on notes for each row execute function audit()"
        )
    _, results = await reverted(least, two, Since(then))
    assert left(results) == {
        ONE: "permission denied for table audit: --admin writes as the tables' owner"
    }
    _, results = await reverted(least, two, Since(then), replace(TARGET, admin=True))
    assert left(results) == {} and (await values(two.external))[0][1] == "a"


BROADCAST = (
    "insert into broadcast_sessions"
    " (id, session_code, event_name, broadcast_date, scheduled_start, created_by) values"
    " ('00000000-0000-0000-0000-000000000001', 's', 'e', '2026-11-24', '2026-11-24 10:00+00', 'kim')"
)


async def test_sheet_comes_back_with_production_s_triggers_and_a_deferred_reference_is_told(
    pair: Pair,
) -> None:
    """The item that the sheet points to is gone: PostgreSQL says so when the transaction commits."""
    async with two_places(pair, CUE_SHEETS, (BROADCAST,)) as two:
        target = Target(CUE_SHEETS, CUE_SHEETS.tables[0], Site.SUPABASE)
        insert = (
            "insert into cue_sheets (id, sheet_code, session_id, sheet_name, sheet_order, created_by,"
            " settings_override) values (%s, %s, %s, 'n', %s, 'kim', '{\"a\": [20.00, null]}')"
        )
        await two.supabase.run(insert, TWO, "a", ONE, 1)
        await two.supabase.run(insert, THREE, "b", ONE, 2)
        item = "insert into cue_items (id, sheet_id, content_type) values (%s, %s, %s)"
        ((content,),) = await two.supabase.run("select enum_first(null::cue_content_type)::text")
        await two.supabase.run(item, FOUR, THREE, content)
        await two.supabase.run(
            "update cue_sheets set current_item_id = %s where id = %s", FOUR, THREE
        )
        await two.exchange()
        sheets = "select id::text, sheet_name, settings_override::text from cue_sheets order by 1"
        before, then = await two.supabase.run(sheets), await now(two)
        await two.supabase.run("delete from cue_sheets where id = %s", TWO)
        await two.supabase.run("delete from cue_sheets where id = %s", THREE)
        await two.exchange()
        found = await plan(pair.settings, target, Since(then))
        results = await carry_out(pair.settings, target, found.writes, ME)
        await two.exchange()
        await two.must_agree("cue_sheets")
        assert left(results).keys() == {THREE} and "cue_items" in left(results)[THREE]
        assert await two.external.run(sheets) == before[:1]


async def test_lost_connection_is_told_of_every_row_that_was_left(least: Pair, two: Two) -> None:
    for key in (ONE, TWO, THREE):
        await write(two, two.external, key, body="a")
    then = await now(two)
    for key in (ONE, TWO, THREE):
        await write(two, two.external, key, body="b")
    await two.supabase.run(
        "create function quit() returns trigger language plpgsql as"
        " $$ begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$"
    )
    await two.supabase.run(
        "create trigger quit before update on notes for each row"
        f" when (new.id = '{TWO}') execute function quit()"
    )
    _, results = await reverted(least, two, Since(then))
    reasons = left(results)
    assert reasons.keys() == {TWO, THREE}
    assert all(reason.startswith("the connection was lost") for reason in reasons.values())
    await two.supabase.run("drop trigger quit on notes")
    _, results = await reverted(least, two, Since(then))
    assert left(results) == {} and len(results) == 2


@pytest.fixture
def command(least: Pair, two: Two, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setattr("ftstream.cli.flows.FLOWS", (NOTES,))
    for site in Site:
        dsn = least.settings.database(site).dsn.get_secret_value()
        monkeypatch.setenv(f"FTSTREAM_{site.upper()}__DSN", dsn)
    return CliRunner()


async def run(command: CliRunner, *arguments: str, said: str | None = None) -> Result:
    """In a thread: it has an event loop of its own."""
    return await asyncio.to_thread(command.invoke, main, ["revert", "notes", *arguments], said)


async def test_command_shows_asks_and_writes(two: Two, command: CliRunner) -> None:
    await write(two, two.external, ONE, body="a")
    then = (await now(two)).isoformat()
    await write(two, two.external, ONE, body="b")
    await write(two, two.external, TWO, body="new")

    dry = await run(command, "--since", then, "--dry-run")
    assert dry.exit_code == 0 and "body: b -> a" in dry.output and "dry run" in dry.output
    declined = await run(command, "--since", then, said="n\n")
    assert declined.exit_code == 1 and "1 changed, 1 deleted?" in declined.output
    assert [row[1] for row in await values(two.supabase)] == ["b", "new"]

    done = await run(command, "--since", then, "--author", ME, said="y\n")
    assert done.exit_code == 0 and "2 of 2 rows written on supabase" in done.output
    assert done.output.count("reaches back to") == 2  # one log a site
    assert [row[1] for row in await values(two.supabase)] == ["a"]
    await two.exchange()
    again = await run(command, "--since", then)
    assert again.exit_code == 0 and "nothing to write" in again.output


async def test_command_tells_programs_what_became_of_each_row(two: Two, command: CliRunner) -> None:
    await write(two, two.external, ONE, body="a", spot=1)
    then = (await now(two)).isoformat()
    await write(two, two.external, ONE, body="b", spot=None)
    await write(two, two.external, TWO, body="c", spot=1)
    arguments = ("--since", then, "--id", ONE, "--id", THREE, "--json")
    dry = await run(command, *arguments, "--dry-run")
    first, unknown = json.loads(dry.stdout)["rows"]
    assert (first["id"], first["action"], first["written"]) == (ONE, "changed", False)
    assert first["columns"]["spot"] == {"now": None, "then": "1"}
    assert unknown == {"id": THREE, "reason": "neither site knows of a write of it"}
    tried = await run(command, *arguments, "--yes")
    assert tried.exit_code == 1
    assert "duplicate key" in json.loads(tried.stdout)["rows"][0]["reason"]
