"""Whatever a database, a role or a writer's session has set, values are the same on both sites."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import LiteralString

import pytest
from psycopg import AsyncConnection, sql

from ftstream.flows import Site
from ftstream.postgres.codec import UnsupportedType, image_codec
from ftstream.postgres.connection import SESSION, open_connection
from ftstream.postgres.queries import statement
from tests.integration.conftest import Pair
from tests.integration.test_outbox import NOTES
from tests.integration.two_way import Place, Two, two_places
from tests.unit.test_codec import column

ONE = str(uuid.UUID(int=1))

HOSTILE: dict[str, str] = {
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Seoul",
    "extra_float_digits": "-10",
    "bytea_output": "escape",
    "array_nulls": "off",
    "xmloption": "document",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "client_encoding": "LATIN1",
    "default_transaction_isolation": "serializable",
}

COLUMNS: dict[str, tuple[LiteralString, LiteralString]] = {
    "lapse": ("interval", "interval '-1 mon +2 days -03:04:05.000006'"),
    "double": ("float8", "0.1::float8 + 0.2"),
    "rough": ("float4", "1.1754944e-38"),
    "bytes": ("bytea", "decode('00ff5c27', 'hex')"),
    "moment": ("timestamptz", "timestamptz '2026-02-03 04:05:06.000007+00'"),
    "old": ("timestamptz", "timestamptz '0044-03-15 00:00:00+00 BC'"),
    "day": ("date", "date '2026-02-03'"),
    "words": ("text[]", "array['a', null, 'NULL']"),
    "part": ("xml", "xmlparse(content 'a<b/>c')"),
    "hand": ("text", "U&'\\d55c\\ae00'"),
    "doc": ("jsonb", "jsonb '{\"a\": [null, 20.00]}'"),
}


async def make_hostile(pair: Pair, site: Site) -> None:
    async with await pair.connect(site) as connection:
        for name, value in HOSTILE.items():
            await connection.execute(
                sql.SQL("alter database {} set {} to {}").format(
                    *map(sql.Identifier, (pair.database, name)), sql.Literal(value)
                )
            )


@pytest.fixture(params=[(Site.EXTERNAL,), (Site.SUPABASE,)], ids=lambda sites: str(sites[0]))
async def two(least: Pair, request: pytest.FixtureRequest) -> AsyncIterator[Two]:
    for site in request.param:
        await make_hostile(least, site)
    listed = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))
        for name, (kind, _) in COLUMNS.items()
    )
    made = sql.SQL("create table notes (id uuid primary key, {})").format(listed)
    async with two_places(least, NOTES, [made.as_string(None)]) as two:
        for place in two.both:
            # What the test itself reads of the log.
            await place.user.execute("set client_encoding = 'UTF8'")
            await place.user.execute("set quote_all_identifiers = off")
        yield two


async def exact(place: Place) -> list[tuple[object, ...]]:
    """The rows as they are, whatever the settings."""
    async with place.user.transaction():
        await place.user.execute(statement(SESSION["exact_text"]))
        return await place.rows("notes")


async def write(place: Place) -> None:
    values = sql.SQL(", ").join(sql.SQL(value) for _, value in COLUMNS.values())
    async with place.user.transaction():
        # What the writer has set is not the point here, but that of its server.
        await place.user.execute("set local standard_conforming_strings = on")
        await place.user.execute("set local xmloption = content")
        query = sql.SQL("insert into notes values ({}, {})").format(sql.Literal(ONE), values)
        await place.user.execute(query)


@pytest.mark.parametrize("writer", [0, 1], ids=["external writes", "supabase writes"])
async def test_what_is_set_for_a_database_changes_no_value(two: Two, writer: int) -> None:
    await write(two.both[writer])
    await two.exchange()
    ours, theirs = await exact(two.external), await exact(two.supabase)
    assert ours == theirs and len(ours) == 1


async def test_sessions_of_ftstreams_own_have_none_of_it(least: Pair) -> None:
    await make_hostile(least, Site.SUPABASE)
    conninfo = least.settings.supabase.conninfo(admin=True)
    async with await open_connection(conninfo) as connection, connection.transaction():
        await connection.execute(statement(SESSION["exact_text"]))
        for name in HOSTILE:
            assert await setting(connection, name) != HOSTILE[name], name


async def setting(connection: AsyncConnection, name: str) -> str:
    actual = "transaction_isolation" if name == "default_transaction_isolation" else name
    row = await (await connection.execute("select current_setting(%s)", [actual])).fetchone()
    assert row is not None
    return str(row[0])


def test_money_is_refused_in_an_image_since_its_text_is_another_elsewhere() -> None:
    with pytest.raises(UnsupportedType, match="lc_monetary"):
        image_codec(column("money"))
