"""Exact or parked: a value that a narrower column would round, cut or reformat is never written."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any, LiteralString

import pytest
from psycopg import sql

from ftstream.adapters.postgres.sites import ApplyFailed
from ftstream.core.failures import INEXACT, Policy
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
async def two(least: Pair) -> AsyncIterator[Two]:
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
