"""Exact or parked: a value that a narrower column would round, cut or reformat is never written."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from ftstream.apply import applier
from ftstream.apply.sites import ApplyFailed
from ftstream.compare.digests import Digests
from ftstream.failures import INEXACT, Policy
from ftstream.postgres.catalog import carried, read_columns
from tests.integration.conftest import Pair
from tests.integration.test_outbox import NOTES
from tests.integration.two_way import Place, Two, two_places

ONE = str(uuid.UUID(int=1))

NARROWED: dict[str, tuple[LiteralString, LiteralString, LiteralString, LiteralString]] = {
    "scale": ("numeric(9, 4)", "numeric(5, 2)", "'1.5000'", "'1.2345'"),
    "free": ("numeric", "numeric(5, 2)", "'1.5'", "'1.005'"),
    "whole": ("numeric(9, 4)", "integer", "'2.0000'", "'2.5000'"),
    "nan": ("numeric", "integer", "'7'", "'NaN'"),
    "stamp": (
        "timestamp(6)",
        "timestamp(3)",
        "'2026-01-01 00:00:00.123'",
        "'2026-01-01 00:00:00.123456'",
    ),
    "moment": (
        "timestamptz",
        "timestamptz(0)",
        "'2026-01-01 00:00:00+00'",
        "'2026-01-01 00:00:00.5+00'",
    ),
    "day": ("timestamptz", "date", "'2026-01-01 00:00:00+00'", "'2026-01-01 00:00:01+00'"),
    "clock": ("time", "time(0)", "'12:00'", "'12:00:00.4'"),
    "lapse": ("interval", "interval(0)", "'1 day 00:00:01'", "'1 day 00:00:01.5'"),
    "fields": ("interval", "interval hour to minute", "'3:04'", "'3:04:05'"),
    "short": ("varchar(10)", "varchar(3)", "'abc'", "'abc '"),
    "long": ("text", "varchar(3)", "'abc'", "'abcd'"),
    "padded": ("text", "char(5)", "'abc'", "'abc  '"),
    "chars": ("char(8)", "char(5)", "'abc'", "'abcdefgh'"),
    "bits": ("bit varying(8)", "bit varying(3)", "'101'", "'10101'"),
    "rough": ("double precision", "real", "0.5", "0.1"),
    "digits": ("bigint", "real", "16777216", "16777217"),
    "doc": ("text", "jsonb", """'{"a": 1}'""", """'{"b":1,"a":1}'"""),
    "list": ("numeric(9, 4)[]", "numeric(5, 2)[]", "'{1.5,null}'", "'{1.5,1.2345}'"),
    "stamps": (
        "timestamp[]",
        "timestamp(3)[]",
        "'{2026-01-01}'",
        "'{\"2026-01-01 00:00:00.0001\"}'",
    ),
    "letters": ("text", "varchar(4)", "'카드'", "'카드카드카'"),
}
"""By column: its type on External and on Supabase, a value that both hold, and one that Supabase does not."""

COLUMNS = sql.SQL(", ").join(
    sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(wide))
    for name, (wide, *_) in NARROWED.items()
)


async def narrow(place: Place, *names: str) -> None:
    """As somebody alters the table, while the flow runs."""
    for name in names or NARROWED:
        kind = sql.SQL(NARROWED[name][1])
        query = sql.SQL("alter table notes alter {0} type {1} using null").format(
            sql.Identifier(name), kind
        )
        await place.user.execute(query)


async def put(place: Place, name: str, value: LiteralString) -> None:
    query = sql.SQL(
        "insert into notes (id, {0}) values ({1}, {2}) on conflict (id) do update set {0} = excluded.{0}"
    ).format(sql.Identifier(name), ONE, sql.SQL(value))
    await place.user.execute(query)


async def held(place: Place, name: str) -> Any:
    query = sql.SQL("select {}::text from notes").format(sql.Identifier(name))
    return await (await place.user.execute(query)).fetchall()


@pytest.fixture
async def two(least: Pair, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    monkeypatch.setattr(applier, "AGAIN_SECONDS", 0)  # the machine may be quick
    made = sql.SQL("create table notes (id uuid primary key, body text, {})").format(COLUMNS)
    async with two_places(least, NOTES, [made.as_string(None)]) as two:
        yield two


async def test_value_that_a_narrower_column_holds_goes_through(two: Two) -> None:
    await narrow(two.supabase)
    await two.supabase.user.execute("set timezone = 'UTC'")
    for name, (wide, _, exact, _) in NARROWED.items():
        await put(two.external, name, exact)
        await two.exchange()
        same = sql.SQL("select {0}::{1} = {2}::{1} from notes").format(
            sql.Identifier(name), sql.SQL(wide), sql.SQL(exact)
        )
        assert await (await two.supabase.user.execute(same)).fetchall() == [(True,)], name


@pytest.mark.parametrize("name", NARROWED)
async def test_value_that_it_does_not_hold_is_parked_with_the_column_named(
    two: Two, name: str
) -> None:
    """The table is altered while the flow runs: nothing but the look at the table tells."""
    await put(two.external, name, NARROWED[name][2])
    await two.exchange()
    await narrow(two.supabase, name)
    await two.supabase.captured()  # what the alteration did is no edit
    await put(two.external, name, NARROWED[name][3])
    (change,) = await two.external.captured()
    with pytest.raises(ApplyFailed) as failed:
        await two.supabase.apply(change)
    failure = failed.value.failure
    assert failure.policy is Policy.PARK
    assert f"notes.{name}" in failure.message
    assert await held(two.supabase, name) == [(None,)]
    if failure.sqlstate == INEXACT:
        assert [n.kind for n in two.supabase.told] == ["types_differ"]
        assert name in two.supabase.told[0].message
    else:
        assert failure.sqlstate.startswith("22")  # PostgreSQL's own: it does not fit


WIDENED: dict[str, tuple[LiteralString, LiteralString, LiteralString, LiteralString]] = {
    "scale": ("numeric(9, 4)", "numeric(12, 6)", "'1.234500'", "'1.234567'"),
    "stamp": (
        "timestamp(3)",
        "timestamp(6)",
        "'2026-01-01 00:00:00.123'",
        "'2026-01-01 00:00:00.123456'",
    ),
    "moment": (
        "timestamptz(0)",
        "timestamptz",
        "'2026-01-01 00:00:00+00'",
        "'2026-01-01 00:00:00.5+00'",
    ),
    "clock": ("time(0)", "time", "'12:00'", "'12:00:00.4'"),
    "lapse": ("interval(0)", "interval", "'1 day 00:00:01'", "'1 day 00:00:01.5'"),
    "rough": ("real", "double precision", "0.5", "0.1234567890123"),
    "fine": ("double precision", "numeric", "0.5", "0.12345678901234567891"),
    "digits": ("numeric(9, 4)", "double precision", "1.2345", "1.23456789"),
    "day": ("date", "timestamp", "'2026-01-01'", "'2026-01-01 00:00:01'"),
    "hour": ("time", "timestamp", "'12:00'", "'2026-01-01 12:00'"),
    "short": ("varchar(3)", "varchar(10)", "'abc'", "'abc  '"),
    "list": ("numeric(5, 2)[]", "numeric(9, 4)[]", "'{1.5,null}'", "'{1.5,1.2345}'"),
}
"""By column: its type on both sites, External's new one, a value of both, and one that Supabase lacks."""


async def alter(place: Place, name: str, kind: LiteralString) -> None:
    query = sql.SQL("alter table notes alter {} type {} using null")
    await place.user.execute(query.format(sql.Identifier(name), sql.SQL(kind)))


async def widen(two: Two, name: str, *types: LiteralString, exact: LiteralString) -> None:
    """Of both sites' columns of the first type External's becomes one of the second."""
    before, after = types
    column = sql.Identifier(name)
    for place in (two.external, two.supabase):
        await place.user.execute(
            sql.SQL("alter table notes drop column if exists {}").format(column)
        )
        added = sql.SQL("alter table notes add {} {}").format(column, sql.SQL(before))
        await place.user.execute(added)
    for place in (two.external, two.supabase):
        await place.applier.prepare()
    await put(two.external, name, exact)
    await two.exchange()
    same = sql.SQL("select {0} = {1}::{2} from notes").format(
        column, sql.SQL(exact), sql.SQL(before)
    )
    assert await (await two.supabase.user.execute(same)).fetchall() == [(True,)]
    await alter(two.external, name, after)
    await two.external.captured()


@pytest.mark.parametrize("name", WIDENED)
async def test_value_of_a_column_widened_at_its_source_is_never_rounded_unseen(
    two: Two, name: str
) -> None:
    """Nothing tells of it but the value: the target is as it was."""
    before, after, exact, odd = WIDENED[name]
    await widen(two, name, before, after, exact=exact)
    kept = await held(two.supabase, name)
    await put(two.external, name, odd)
    (change,) = await two.external.captured()
    with pytest.raises(ApplyFailed) as failed:
        await two.supabase.apply(change)
    assert failed.value.failure.policy is Policy.PARK
    assert f"notes.{name}" in failed.value.failure.message
    assert await held(two.supabase, name) == kept


HELD: dict[str, tuple[LiteralString, LiteralString, LiteralString]] = {
    "rough": ("real", "double precision", "0.1"),
    "fine": ("double precision", "numeric", "0.1234567890123456"),
    "single": ("real", "numeric", "1.2345678"),
    "scale": ("numeric(5, 2)", "numeric(9, 4)", "1.25"),
    "free": ("numeric(5, 2)", "numeric", "1.20"),
    "digits": ("integer", "bigint", "7"),
    "large": ("bigint", "numeric", "9007199254740993"),
    "short": ("varchar(3)", "varchar(9)", "'abc'"),
    "long": ("varchar(3)", "text", "'abc'"),
    "padded": ("char(3)", "char(5)", "'ab'"),
    "stamp": ("timestamp(3)", "timestamp(6)", "'2026-01-01 00:00:00.123'"),
    "day": ("date", "timestamp", "'2026-01-01'"),
}
"""By column: its type on External and on Supabase, and a value, which both hold."""


async def test_value_that_another_type_holds_arrives_and_is_compared_as_equal(two: Two) -> None:
    for place, at in ((two.external, 0), (two.supabase, 1)):
        for name, types in HELD.items():
            column = sql.Identifier(name)
            dropped = sql.SQL("alter table notes drop column if exists {}").format(column)
            await place.user.execute(dropped)
            added = sql.SQL("alter table notes add {} {}").format(column, sql.SQL(types[at]))
            await place.user.execute(added)
    for place in (two.external, two.supabase):
        await place.applier.prepare()
    for name, (*_, value) in HELD.items():
        await put(two.external, name, value)
        await two.exchange()
    (table,) = NOTES.tables
    here, there = [await read_columns(p.user, table) for p in (two.external, two.supabase)]
    pairs = [pair for pair in carried(here, there) if pair[0].name in {"id", *HELD}]
    ours, theirs = [Digests(p.user, table, pairs) for p in (two.external, two.supabase)]
    found, other = await ours.column_digests([ONE]), await theirs.column_digests([ONE])
    odd = [n for n, a, b in zip(ours.columns, found[ONE], other[ONE], strict=True) if a != b]
    assert odd == [] and None not in found[ONE]


async def test_edit_of_the_narrower_site_never_comes_back_rounded(two: Two) -> None:
    await put(two.external, "scale", "'1.2345'")
    await two.exchange()
    await narrow(two.supabase, "scale")
    await put(two.supabase, "scale", "'2.50'")
    await two.exchange()
    assert await held(two.external, "scale") == [("2.5000",)]
    await put(two.external, "scale", "'1.2345'")
    (change,) = await two.external.captured()
    with pytest.raises(
        ApplyFailed, match=r"notes\.scale: numeric\(5,2\) cannot hold 1\.2345 exactly"
    ):
        await two.supabase.apply(change)
    await two.supabase.apply(*await two.supabase.captured())
    assert await held(two.external, "scale") == [("1.2345",)]


SPELT: list[tuple[LiteralString, str, bool]] = [
    ("timestamptz", '"2026-01-01T00:00:00"', True),
    ("timestamp", '"2026-01-01T00:00:00+00:00"', True),
    ("timestamp", '"2026-01-01T00:00:00+05:00"', False),
    ("timestamp", '"2026-01-01"', True),
    ("date", '"2026-01-01T00:00:00"', True),
    ("date", '"2026-01-01T00:00:01"', False),
    ("text", "7", True),
    ("integer", '"7"', True),
    ("numeric(5, 2)", "1.234", False),
    ("numeric(5, 2)", "1.5", True),
    ("char(5)", '"ab"', True),
    ("real", "0.1234567890123", False),
]
"""A column's type, an image's value, and whether the column holds it."""


@pytest.mark.parametrize(("kind", "value", "holds"), SPELT)
async def test_image_is_held_exactly_however_its_values_are_spelt(
    two: Two, kind: LiteralString, value: str, holds: bool
) -> None:
    """For those who write an image by jsonb_populate_record."""
    place = two.supabase
    await alter(place, "doc", kind)
    await place.user.execute("set timezone = 'Asia/Seoul'")
    check = place.run("select ftstream.require_exact('notes', %s)", f'{{"doc": {value}}}')
    if holds:
        await check
    else:
        with pytest.raises(psycopg.Error, match="cannot hold"):
            await check
