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

from ftstream.flows import Capture, Conflict, Flow, Site, Table
from tests.integration.conftest import Pair
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
    await place.run("set ftstream.applying = 'on'")
    await place.run("insert into notes (id, body) values (%s, 'ftstream')", TWO)
    await place.run("reset ftstream.applying")
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
    assert {body for _, _, body in found} == {"A", "B"}
    assert {entity for _, entity, _ in found} == {ONE, TWO}


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


async def test_author_is_the_login_that_postgrest_acts_for(place: Place) -> None:
    # What lies deeper the user may set, and an empty address is none.
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
    assert authors == ["kim@example.com", "importer", "42", place.user.info.user]


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
