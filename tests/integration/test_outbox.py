"""Capture by outbox: every write of every writer, the row as it is, exactly."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import LiteralString

import msgspec
import psycopg
import pytest
from psycopg import sql

from ftstream.capture import outbox
from ftstream.capture.outbox import Outbox, OutboxEntry
from ftstream.compare import gaps
from ftstream.flows import Capture, Conflict, Flow, Site, Table
from ftstream.last_write.reconciled import unreconciled
from ftstream.setup import run_init
from tests.integration.conftest import MemoryTopics, Pair, as_ftstream
from tests.integration.two_way import Place, Two, two_places

ONE, TWO = (str(uuid.UUID(int=n)) for n in (1, 2))

NOTES = Flow(
    name="notes",
    tables=(Table("notes"),),
    capture=Capture.OUTBOX,
    sources=(Site.EXTERNAL, Site.SUPABASE),
    conflict=Conflict.LAST_WRITE_WINS,
)
SETUP = (
    "create type mood as enum ('glad', 'a ''quoted'' one')",
    """create table notes (
        id uuid primary key default gen_random_uuid(), body text, amount numeric, exact numeric(5,2),
        large bigint, ratio float8, small float4, flag boolean, doc jsonb, tags text[],
        many int[], stamps timestamptz[], bits bit(3), code char(3), raw bytea, at timestamptz,
        local timestamp, day date, clock time, span interval, mood mood, moods mood[], net inet,
        range int4range, twice text generated always as (body || body) stored)""",
)


@pytest.fixture
async def two(least: Pair) -> AsyncIterator[Two]:
    async with two_places(least, NOTES, SETUP) as two:
        yield two


VALUES: dict[str, list[LiteralString]] = {
    "body": ["''", "null", "'한국 🂡 ''\"\\'", "repeat('x', 300000)", r"E'tab\t nl\n'"],
    "amount": ["20.00", "'NaN'", "'Infinity'", "-0.0000001000", "1e130"],
    "exact": ["600.50", "'NaN'"],
    "large": ["9223372036854775807", "638961224831992165"],
    "ratio": ["0.1", "'Infinity'", "'NaN'", "1e-300", "0.1::float8 + 0.2::float8"],
    "small": ["0.1", "16777217"],
    "flag": ["true", "null"],
    "doc": [
        "'null'",
        "null",
        "'{}'",
        """'{"n": 20.00, "a": [null], "big": 638961224831992165}'""",
        "'\"\"'",
    ],
    "tags": [
        "'{}'",
        "null",
        "array['a', null, '', 'null', '\"x,y\"']",
        "array[['a','b'],['c','d']]",
    ],
    "many": ["array[1,null,3]", "array[[1,2],[3,4]]"],
    "stamps": ["array['infinity'::timestamptz, '0044-03-15 12:00+00 BC', null]"],
    "bits": ["b'101'"],
    "code": ["'a'", "''"],
    "raw": [r"'\x00ff5c'", r"'\x'"],
    "at": [
        "'infinity'",
        "'0044-03-15 12:00:00.000001+00 BC'",
        "'2026-11-24 10:00:00.123456+09'",
        "'294276-12-31 23:59:59+00'",
    ],
    "local": ["'-infinity'", "'1582-10-10 00:00'"],
    "day": ["'infinity'", "'0001-01-01 BC'", "'1582-10-10'"],
    "clock": ["'24:00'", "'00:00:00.000001'"],
    "span": ["'-1 year 2 mons -3 days 04:05:06.7'", "'178000000 years'"],
    "mood": ["'a ''quoted'' one'"],
    "moods": ["array['glad', null]::mood[]"],
    "net": ["'::1/128'"],
    "range": ["'[1,5)'", "'empty'"],
}


async def test_every_value_arrives_as_it_was_written(two: Two) -> None:
    for here in two.both:
        # Whatever the writer's session prefers.
        await here.run(
            "set timezone = 'Asia/Seoul'; set datestyle = 'German'; set bytea_output = 'escape'"
        )
        await here.run("set extra_float_digits = -5; set intervalstyle = 'iso_8601'")
        for column, values in VALUES.items():
            for value in values:
                query = sql.SQL("insert into notes ({}) values ({})")
                await here.user.execute(query.format(sql.Identifier(column), sql.SQL(value)))
        await here.run("reset all")
        await two.exchange()
    await two.must_agree("notes")
    assert len(await two.external.rows("notes")) == 2 * sum(map(len, VALUES.values()))


async def captured(place: Place) -> list[tuple[str, str, object]]:
    """What was captured: operation, id, and what is in body."""
    changes = await place.captured()
    bodies = [None if c.image is None else msgspec.json.decode(c.image)["body"] for c in changes]
    return [(c.operation.value, c.entity_id, body) for c, body in zip(changes, bodies, strict=True)]


@pytest.fixture(params=list(Site))
def place(two: Two, request: pytest.FixtureRequest) -> Place:
    return two.external if request.param is Site.EXTERNAL else two.supabase


async def test_each_write_of_each_kind_is_captured_once(place: Place) -> None:
    await place.run("insert into notes (id, body) values (%s, 'a'), (%s, 'b')", ONE, TWO)
    upsert = (
        "insert into notes (id, body) values (%s, 'c') on conflict (id) do update set body = 'd'"
    )
    await place.run(upsert, ONE)
    await place.run("update notes set body = body || 'x'")
    await place.run("delete from notes where id = %s", ONE)
    assert await captured(place) == [
        ("insert", ONE, "a"),
        ("insert", TWO, "b"),
        ("update", ONE, "d"),
        ("update", TWO, "bx"),
        ("update", ONE, "dx"),
        ("delete", ONE, None),
    ]


async def test_new_key_is_a_delete_and_an_insert(place: Place) -> None:
    await place.run("insert into notes (id, body) values (%s, 'a')", ONE)
    await place.run("update notes set id = %s", TWO)
    assert await captured(place) == [
        ("insert", ONE, "a"),
        ("delete", ONE, None),
        ("insert", TWO, "a"),
    ]


async def test_writers_with_triggers_off_are_captured_and_ftstream_itself_is_not(
    place: Place,
) -> None:
    await place.run("set session_replication_role = replica")
    await place.run("insert into notes (id, body) values (%s, 'dump')", ONE)
    async with place.user.transaction(), as_ftstream(place.user, place.settings, place.site):
        await place.run("insert into notes (id, body) values (%s, 'ftstream')", TWO)
    await place.run("reset session_replication_role")
    assert await captured(place) == [("insert", ONE, "dump")]


async def test_row_is_captured_as_it_is_when_a_trigger_writes_its_siblings(place: Place) -> None:
    """PostgreSQL fires the triggers of both rows after the statement: NEW is what each was before."""
    await place.run(
        "create function shout() returns trigger language plpgsql as $$ begin"
        " update notes set body = upper(body) where body <> upper(body); return null; end $$"
    )
    await place.run(
        "create trigger a_shout after insert on notes for each row execute function shout()"
    )
    await place.run("insert into notes (id, body) values (%s, 'a'), (%s, 'b')", ONE, TWO)
    found = await captured(place)
    assert sorted(found) == [("insert", ONE, "A"), ("insert", TWO, "B")]


async def test_truncate_is_refused_with_a_hint(place: Place) -> None:
    await place.run("insert into notes (id) values (%s)", ONE)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refused:
        await place.run("truncate notes")
    assert "TRUNCATE is refused" in str(refused.value)
    assert refused.value.diag.message_hint == "DELETE FROM public.notes"


async def test_write_that_cannot_be_captured_fails_and_says_why(place: Place) -> None:
    """There is no silent gap."""
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="over 15 MiB"):
        await place.run("insert into notes (id, body) values (%s, repeat('x', 16000000))", ONE)
    await place.run("alter table ftstream.outbox rename to gone")
    with pytest.raises(psycopg.errors.UndefinedTable, match="outbox"):
        await place.run("insert into notes (id, body) values (%s, 'a')", ONE)
    assert await place.rows("notes") == []


async def test_author_is_the_login_beside_whom_it_names(place: Place) -> None:
    """Claims count from PostgREST's login alone: tests/integration/test_hostile_logins.py."""
    forged = '{"user_metadata": {"email": "boss@example.com"}, "email": "", "sub": "42"}'
    claims = '{"role": "authenticated", "sub": "42", "email": "kim@example.com"}'
    async with place.user.transaction():
        await place.run("select set_config('request.jwt.claims', %s, true)", claims)
        await place.run("insert into notes (id) values (%s)", ONE)
    async with place.user.transaction():
        await place.run("select set_config('ftstream.author', 'importer', true)")
        await place.run("update notes set body = 'a'")
    async with place.user.transaction():
        await place.run("select set_config('request.jwt.claims', %s, true)", forged)
        await place.run("update notes set body = 'b'")
    async with place.user.transaction():
        await place.run("select set_config('request.jwt.claims', 'no token', true)")
        await place.run("delete from notes")
    authors = [msgspec.json.decode(change.message)["author"] for change in await place.captured()]
    user = place.user.info.user
    assert authors == [user, f"importer ({user})", user, user]


async def test_nobody_becomes_the_owner_of_the_capture_function(pair: Pair, two: Two) -> None:
    """A view of one's own that is named like a catalog is not looked at."""
    role = f"apply_{pair.database}"
    async with await pair.connect(Site.SUPABASE, role) as writer:
        await writer.execute("create temp view pg_class as select 1/0 as oid, 'x' as relname")
        await writer.execute("create temp view pg_attribute as select 1/0 as attrelid")
        await writer.execute("insert into notes (id, body) values (%s, 'a')", [ONE])
    assert len(await two.supabase.captured()) == 1


async def test_writer_never_writes_an_older_version_than_it_could_see(place: Place) -> None:
    ahead = time.time_ns() // 1_000 + 3_600_000_000
    await place.run("insert into notes (id) values (%s)", ONE)
    await place.run("update ftstream.last_write set version = %s", ahead)
    await place.run("update notes set body = 'a'")
    *_, last = await place.captured()
    assert last.version == ahead + 1


async def test_rows_that_swap_a_value_are_told_once_each_and_not_of_the_temporary_one(
    place: Place,
) -> None:
    await place.run("alter table notes add unique (body)")
    await place.run("insert into notes (id, body) values (%s, '1'), (%s, '2')", ONE, TWO)
    await place.captured()
    for level in ("read committed", "repeatable read", "serializable"):
        async with place.user.transaction():
            await place.user.execute(
                sql.SQL("set transaction isolation level {}").format(sql.SQL(level))
            )
            one, two = [row[0] for row in await place.run("select body from notes order by id")]
            await place.run("update notes set body = '-1' where id = %s", ONE)
            await place.run("update notes set body = %s where id = %s", one, TWO)
            await place.run("update notes set body = %s where id = %s", two, ONE)
        assert sorted(await captured(place)) == [("update", ONE, two), ("update", TWO, one)]


async def test_row_is_told_as_its_transaction_leaves_it(place: Place) -> None:
    """As an insert if it is new in the transaction, whatever has become of it there."""
    async with place.user.transaction():
        await place.run("insert into notes (id, body) values (%s, 'a')", ONE)
        await place.run("update notes set body = 'b'")
        await place.run("delete from notes")
        await place.run("insert into notes (id, body) values (%s, 'c')", ONE)
        await place.run("update notes set body = 'd'")
    assert await captured(place) == [("insert", ONE, "d")]
    async with place.user.transaction():
        await place.run("update notes set body = 'e'")
        await place.run("delete from notes")
        await place.run("insert into notes (id, body) values (%s, 'f')", ONE)
    assert await captured(place) == [("update", ONE, "f")]
    async with place.user.transaction():
        await place.run("update notes set body = 'g'")
        await place.run("update notes set id = %s", TWO)
        await place.run("update notes set body = 'h'")
    assert sorted(await captured(place)) == [("delete", ONE, None), ("insert", TWO, "h")]
    async with place.user.transaction():
        await place.run("update notes set id = %s", ONE)
        await place.run("update notes set id = %s, body = 'i'", TWO)
    assert sorted(await captured(place)) == [("delete", ONE, None), ("update", TWO, "i")]
    ledger = await place.run(
        "select entity_id, operation::text from ftstream.last_write order by 1"
    )
    assert ledger == [(ONE, "delete"), (TWO, "update")]


async def test_row_that_comes_and_goes_in_a_transaction_does_no_harm(two: Two) -> None:
    for here in two.both:
        async with here.user.transaction():
            await here.run("insert into notes (id, body) values (%s, 'a')", ONE)
            await here.run("delete from notes")
        await two.exchange()
    await two.must_agree("notes")
    assert not await two.external.rows("notes")


async def test_row_that_a_trigger_deletes_or_writes_first_is_told_as_it_ends(place: Place) -> None:
    """The trigger's own write is captured before that of the row which it fires for."""
    await place.run(
        "create function settle() returns trigger language plpgsql as $$ begin"
        " delete from notes where id = new.id and body = 'gone';"
        " update notes set body = 'kept' where id = new.id and body <> 'kept';"
        " return null; end $$"
    )
    await place.run(
        "create trigger a_settle after insert or update on notes for each row execute function settle()"
    )
    await place.run("insert into notes (id, body) values (%s, 'x')", ONE)
    assert await captured(place) == [("insert", ONE, "kept")]
    await place.run("insert into notes (id, body) values (%s, 'gone')", TWO)
    await place.run("update notes set body = 'gone' where id = %s", ONE)
    assert await captured(place) == [("delete", TWO, None), ("delete", ONE, None)]


async def test_table_may_be_altered_in_the_transaction_that_has_written_it(place: Place) -> None:
    await place.run("insert into notes (id, body) values (%s, 'a')", ONE)
    async with place.user.transaction():
        await place.run("update notes set body = 'b'")
        await place.run("alter table notes add column extra integer default 7")
        await place.run("alter table notes alter column ratio type numeric")
    async with place.user.transaction():
        await place.run("alter table notes drop column extra")
    first, last = await place.captured()
    assert first.image is not None and last.image is not None
    assert "extra" not in msgspec.json.decode(first.image)
    assert msgspec.json.decode(last.image)["extra"] == 7
    async with place.user.transaction():
        await place.run("update notes set body = 'c'")
        await place.run("drop table notes")
    assert await place.captured() == []


async def test_savepoint_that_is_rolled_back_leaves_no_trace(place: Place) -> None:
    await place.run("set session_replication_role = replica")
    async with place.user.transaction():
        await place.run("insert into notes (id, body) values (%s, 'a')", ONE)
        with pytest.raises(psycopg.errors.UniqueViolation):
            async with place.user.transaction():
                await place.run("update notes set body = 'b'")
                await place.run("insert into notes (id) values (%s)", TWO)
                await place.run("insert into notes (id) values (%s)", ONE)
    assert await captured(place) == [("insert", ONE, "a")]
    async with place.user.transaction():
        async with place.user.transaction():
            await place.run("update notes set body = 'c'")
            with pytest.raises(psycopg.errors.DivisionByZero):
                async with place.user.transaction():
                    await place.run("delete from notes")
                    await place.run("select 1 / 0")
        async with place.user.transaction():
            await place.run("update notes set body = body || 'd'")
    assert await captured(place) == [("update", ONE, "cd")]


async def test_transaction_that_is_prepared_is_captured_whole(place: Place) -> None:
    await place.run("begin")
    await place.run("insert into notes (id, body) values (%s, 'a')", ONE)
    await place.run("update notes set body = 'b'")
    await place.run("prepare transaction 'two phases'")
    assert await place.captured() == []
    await place.run("commit prepared 'two phases'")
    assert await captured(place) == [("insert", ONE, "b")]


async def test_constraint_that_fails_at_the_commit_leaves_no_message(place: Place) -> None:
    await place.run("create table items (id uuid primary key)")
    await place.run(
        "alter table notes add column item uuid references items deferrable initially deferred"
    )
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        await place.run("insert into notes (item) values (%s)", TWO)
    async with place.user.transaction():
        await place.run("insert into notes (id, item) values (%s, %s)", ONE, TWO)
        await place.run("insert into items values (%s)", TWO)
    assert await captured(place) == [("insert", ONE, None)]
    assert await place.run("select entity_id from ftstream.last_write") == [(ONE,)]


async def test_row_that_a_trigger_writes_at_the_commit_is_told_as_it_ends(place: Place) -> None:
    await place.run(
        "create function late() returns trigger language plpgsql as $$ begin"
        " update notes set body = 'late' where body <> 'late'; return null; end $$"
    )
    await place.run(
        "create constraint trigger late after insert on notes deferrable initially deferred"
        " for each row execute function late()"
    )
    await place.run("insert into notes (id, body) values (%s, 'a'), (%s, 'b')", ONE, TWO)
    assert sorted(await captured(place)) == [("insert", ONE, "late"), ("insert", TWO, "late")]


async def test_delete_that_a_parent_passes_on_is_captured(place: Place) -> None:
    await place.run("create table shows (id uuid primary key)")
    await place.run("alter table notes add column show uuid references shows on delete cascade")
    await place.run("insert into shows values (%s)", TWO)
    await place.run("insert into notes (id, show) values (%s, %s)", ONE, TWO)
    await place.run("delete from shows")
    assert [each[:2] for each in await captured(place)] == [("insert", ONE), ("delete", ONE)]


async def test_copy_of_many_rows_is_captured_and_ddl_alone_is_not(place: Place) -> None:
    many = 3_000
    async with place.user.transaction():
        async with place.user.cursor().copy("copy notes (id, body) from stdin") as copy:
            for number in range(many):
                await copy.write_row((uuid.UUID(int=number), str(number)))
        await place.run("update notes set body = body || 'x'")
    found = await captured(place)
    assert len(found) == many
    assert {body for _, _, body in found} == {f"{number}x" for number in range(many)}
    async with place.user.transaction():
        await place.run("alter table notes add column extra integer default 7")
        await place.run("create index on notes (extra)")
    assert await place.captured() == []


async def test_only_captures_are_handed_over_at_the_commit(two: Two) -> None:
    for here in two.both:
        await here.run("insert into notes (id, body) values (%s, %s)", str(uuid.uuid4()), here.site)
    await two.exchange()
    for here in two.both:
        assert await here.captured() == []  # what was applied is not told again
        async with here.user.transaction():
            await here.run("update ftstream.last_write set received = received + 1")
            await here.run("update ftstream.last_write set operation = 'update'")
            await here.run("update ftstream.last_write set version = version + 1")
        assert await here.captured() == []
        ids = [row[0] for row in await here.run("select entity_id from ftstream.last_write")]
        await here.run(
            "select ftstream.hand_over_again("
            "'public.notes', %s::text[], array[null, null]::bigint[], 'x', false)",
            ids,
        )
        assert len(await here.captured()) == len(ids) == 2


async def test_row_that_cannot_be_seen_is_never_told_as_deleted(least: Pair, two: Two) -> None:
    definer = sql.Identifier(f"ftstream_definer_{least.database}")
    for here in two.both:
        await here.run("insert into notes (id, body) values (%s, 'a')", ONE)
        await here.captured()
        await here.user.execute(sql.SQL("alter role {} nobypassrls").format(definer))
        await here.run("alter table notes enable row level security")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"row.level security"):
            await here.run("update notes set body = 'b'")
    async for _ in run_init(least.settings, MemoryTopics(), [NOTES]):
        pass
    for here in two.both:
        async with await least.connect(here.site) as another:
            await another.execute("update notes set body = 'b'")
        assert await captured(here) == [("update", ONE, "b")]


async def test_view_in_the_place_of_the_table_hides_no_row(place: Place) -> None:
    await place.run("insert into notes (id, body) values (%s, 'a')", ONE)
    await place.captured()
    async with place.user.transaction():
        await place.run("update notes set body = 'b'")
        await place.run("alter table notes rename to all_notes")
        await place.run("create view notes as select * from all_notes where false")
    assert await captured(place) == [("update", ONE, "b")]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="another relation"):
        await place.run("update all_notes set body = 'c'")
    assert await place.captured() == []


async def test_delete_that_a_trigger_or_a_rule_turns_into_something_else_is_none(
    place: Place,
) -> None:
    await place.run("insert into notes (id, body) values (%s, 'a')", ONE)
    await place.captured()
    await place.run(
        "create function keep() returns trigger language plpgsql as $$ begin return null; end $$"
    )
    await place.run(
        "create trigger keep before delete on notes for each row execute function keep()"
    )
    await place.run("delete from notes")
    assert await place.captured() == []
    await place.run(
        "create rule archived as on delete to notes do instead"
        " update notes set body = 'archived' where id = old.id"
    )
    await place.run("delete from notes")
    assert await captured(place) == [("update", ONE, "archived")]


async def test_partition_that_is_detached_or_changed_is_no_delete(least: Pair) -> None:
    setup = (
        "create table notes (id uuid primary key, body text) partition by range (id)",
        f"create table low partition of notes for values from (minvalue) to ('{TWO}')",
        f"create table high partition of notes for values from ('{TWO}') to (maxvalue)",
    )
    async with two_places(least, NOTES, setup) as two:
        for here in two.both:
            await here.run("insert into notes (id, body) values (%s, 'a')", ONE)
            assert await captured(here) == [("insert", ONE, "a")]
            await here.run("update notes set id = %s, body = 'b'", TWO)
            assert sorted(await captured(here)) == [("delete", ONE, None), ("insert", TWO, "b")]
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="not deleted it"):
                async with here.user.transaction():
                    await here.run("update notes set body = 'c'")
                    await here.run("alter table notes detach partition high")
            await here.run("update high set body = 'd'")
            assert await captured(here) == [("update", TWO, "d")]


async def test_author_of_a_statement_is_not_lost_at_the_commit(place: Place) -> None:
    await place.run(
        "create function edit(who text, what text) returns void language plpgsql as $$ begin"
        " perform set_config('ftstream.author', who, true);"
        " update notes set body = what;"
        " perform set_config('ftstream.author', '', true); end $$"
    )
    async with place.user.transaction():
        await place.run("insert into notes (id, body) values (%s, 'a')", ONE)
        await place.run("select edit('kim', 'b')")
        await place.run("update notes set flag = true")  # as a trigger does, which names nobody
    async with place.user.transaction():
        await place.run("select edit('kim', 'c')")
        await place.run("select edit('lee', 'd')")
    await place.run("update notes set flag = false")  # of no transaction before
    authors = [msgspec.json.decode(change.message)["author"] for change in await place.captured()]
    user = place.user.info.user
    assert authors == [f"kim ({user})", f"lee ({user})", user]


async def published(taken: Outbox) -> list[list[OutboxEntry]]:
    """What a publisher takes, turn by turn, until nothing is left."""
    turns = []
    while await taken.waiting():
        async with taken.turn() as turn:
            assert turn is not None
            entries = await turn.next()
            await turn.published(entries)
            assert entries
            turns.append(entries)
    return turns


async def test_constraints_that_are_immediate_cost_a_message_a_statement(
    least: Pair, two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which the publisher keeps the last of each row and transaction; the log has all."""
    for here in two.both:
        await here.run("insert into notes (id, body) values (%s, '1')", TWO)
        async with here.user.transaction():
            await here.run("set constraints all immediate")
            await here.run("insert into notes (id, body) values (%s, '1')", ONE)
            async with here.user.transaction():
                await here.run("update notes set body = body || '2'")
                await here.run("update notes set body = body || '3'")
            await here.run("set constraints all deferred")
            await here.run("update notes set body = body || '4'")
        await here.run("update notes set body = body || '5' where id = %s", TWO)
    assert [body for _, entity, body in await captured(two.external) if entity == ONE] == [
        "1",
        "12",
        "123",
        "1234",
    ]
    monkeypatch.setattr(outbox, "ROWS", 1)  # a transaction may end in another turn
    taken = Outbox(least.settings, ["notes"], 30.0)
    try:
        turns = await published(taken)
    finally:
        await taken.close()
    bodies = [(e.entity_id, msgspec.json.decode(e.payload)["row"]["body"]) for (e,) in turns]
    assert sorted(bodies) == [(ONE, "1234"), (TWO, "1"), (TWO, "1234"), (TWO, "12345")]
    assert await two.supabase.run("select from ftstream.outbox") == []


async def init(pair: Pair) -> None:
    async for _ in run_init(pair.settings, MemoryTopics(), [NOTES]):
        pass


@pytest.mark.parametrize(
    "change",
    [
        "alter table ftstream.last_write disable trigger ftstream_hand_over",
        "alter table ftstream.last_write enable trigger ftstream_hand_over",  # ALWAYS no more
        "drop trigger ftstream_hand_over on ftstream.last_write",
    ],
)
async def test_init_brings_the_hand_over_back_and_what_was_not_handed_over_is_a_gap(
    least: Pair, place: Place, change: LiteralString
) -> None:
    await init(least)
    assert await unreconciled(place.user, NOTES.tables) == []
    await place.run(change)
    await place.run("set session_replication_role = replica")
    await place.run("insert into notes (id, body) values (%s, 'a')", ONE)
    assert await place.captured() == []
    await init(least)
    (gap,) = await gaps.gaps(place.user)
    assert gap.table == "public.notes"
    assert await unreconciled(place.user, NOTES.tables) == []
    await place.run("update notes set body = 'b'")
    assert await captured(place) == [("update", ONE, "b")]
