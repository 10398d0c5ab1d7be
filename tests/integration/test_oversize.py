"""Rows that no record of Kafka holds are found, whatever makes them so large."""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

from ftstream.capture.oversize import LargeRow, told, too_large
from ftstream.flows import Site, Table
from tests.integration.conftest import Pair

LIMIT = 100_000

TABLE: LiteralString = '''create table notes (
    id int primary key, "50% ""x""" text, doc jsonb, raw bytea, parts text[],
    twice text generated always as (encode(raw, 'hex')) stored
)'''

INSERT: LiteralString = 'insert into notes (id, "50% ""x""", doc, raw, parts) values ({})'
ROWS: dict[str, tuple[LiteralString, int]] = {
    "text": ("1, repeat('x', 100001), null, null, null", 100_003),
    "quotes, each two bytes in JSON": ("2, repeat('\"', 50000), null, null, null", 100_002),
    "bytes, each two in hexadecimal": (
        "3, null, null, decode(repeat('00', 50000), 'hex'), null",
        100_005,
    ),
    "many columns": (
        "4, repeat('x', 50000), to_jsonb(repeat('y', 49999)), null, null",
        100_007,
    ),
    "array": ("5, null, null, null, array_fill('xy'::text, array[40000])", 120_003),
}
SMALL: LiteralString = "6, repeat('x', 99998), null, null, null"
EMPTY: LiteralString = "7, null, null, null, null"


async def test_rows_too_large_are_found_with_their_sizes(pair: Pair) -> None:
    async with await pair.connect(Site.EXTERNAL) as connection:
        await connection.execute(TABLE)
        for values in (*(values for values, _ in ROWS.values()), SMALL, EMPTY):
            await connection.execute(sql.SQL(INSERT).format(sql.SQL(values)))
        found = await too_large(connection, Table("notes"), LIMIT)
        expected = [LargeRow("notes", values[0], size) for values, size in ROWS.values()]
        assert sorted(found, key=lambda row: row.id) == expected
        assert [row.bytes for row in found] == sorted((row.bytes for row in found), reverse=True)

        excluded = Table("notes", excluded=frozenset({'50% "x"'}))
        assert [row.id for row in await too_large(connection, excluded, LIMIT)] == ["5", "3"]


async def test_value_that_as_json_would_be_too_large_for_postgresql_is_found(pair: Pair) -> None:
    async with await pair.connect(Site.EXTERNAL) as connection:
        await connection.execute("create table notes (id int primary key, body text)")
        await connection.execute("insert into notes values (1, repeat(chr(1), 200000000))")
        found = await too_large(connection, Table("notes"), 16_000_000)
    assert found == [LargeRow("notes", "1", 200_000_000)]


def test_what_holds_a_flow_up_is_told_with_the_way_on() -> None:
    row = LargeRow("gfx_sessions", "7", 18_000_000)
    assert "gfx_sessions 7 (18,000,000 bytes)" in told([row], LIMIT, "gfx")
    assert "shortened or deleted since" in told([], LIMIT, "gfx")
    assert "connectors apply gfx --pass-too-large" in told([], LIMIT, "gfx")
