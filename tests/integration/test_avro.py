"""Rows through Avro between two real databases: every type, and the values that are lost easily."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection, Connection, sql

from ftstream.apply.statements import TableStatements
from ftstream.capture.batch.avro_rows import read_rows, table_schema
from ftstream.flows import WSOP, Site, Table
from ftstream.messages.avro import decode, encode
from ftstream.messages.change import Operation
from ftstream.postgres.catalog import Column, KeyMissing, read_columns
from ftstream.postgres.codec import text_codec
from ftstream.postgres.connection import Json, open_connection
from ftstream.setup.migrate import migrate

from .conftest import Pair

WIDE = Table("wide")

TYPES: LiteralString = r"""
    create extension citext;
    create extension hstore;
    create type suit as enum ('clubs', 'di''amonds', 'he"arts, \');
    create type pair as (a int, b text);
    create domain chips as bigint check (value >= 0);
    create domain deep as chips;
    create domain hand as text[];
"""

COLUMNS: dict[str, tuple[LiteralString, Sequence[LiteralString]]] = {
    "small": ("smallint", ["-32768", "32767"]),
    "whole": ("int", ["-2147483648", "2147483647", "0"]),
    "big": ("bigint", ["-9223372036854775808", "9223372036854775807"]),
    "limited": ("deep", ["9223372036854775807", "0"]),
    "yes": ("boolean", ["true", "false"]),
    "rough": ("float4", ["'1e-45'", "3.4028235e38", "0.1", "'NaN'", "'-0'", "'-Infinity'"]),
    "double": (
        "float8",
        ["'5e-324'", "1.7976931348623157e308", "0.1::float8 + 0.2", "'NaN'", "'-0'"],
    ),
    "endless": ("float8", ["'Infinity'", "'-Infinity'", "1e15", "1", "123456789012345680"]),
    "exact": ("numeric", ["20.00", "'NaN'", "'Infinity'", "'-Infinity'", "'-0.000'", "1e1000"]),
    "scaled": ("numeric(10, 2)", ["20.00", "'NaN'", "-0.01", "99999999.99"]),
    "price": ("money", ["12345678.90::numeric::money", "(-0.01)::numeric::money"]),
    "words": (
        "text",
        ["''", r"""E'"quoted" \'and\'\n\r\t\\b {a,b} %s'""", "'한글 🂡 e\u0301'", "'null'", "' x '"],
    ),
    "short": ("varchar(3)", ["'A♠'", "''"]),
    "padded": ("char(5)", ["'ab'", "''", "' a'"]),
    "spaced": ("bpchar", ["'ab   '", "''"]),
    "one": ('"char"', ["'x'", "''"]),
    "name_": ("name", ["'a b'"]),
    "folded": ("citext", ["'MiXed'"]),
    "moment": (
        "timestamptz",
        [
            "'2026-11-24 10:00:00.123456+09'",
            "'infinity'",
            "'-infinity'",
            "'4713-01-01 00:00:00 BC'",
            "'294276-12-31 23:59:59.999999+00'",
            "'1582-10-10 00:00:00.000001+00'",
        ],
    ),
    "local_moment": ("timestamp", ["'2026-11-24 10:00:00.1'", "'infinity'", "'0044-03-15 BC'"]),
    "day": ("date", ["'2026-02-28'", "'infinity'", "'0001-12-31 BC'", "'5874897-12-31'"]),
    "clock": ("time", ["'24:00'", "'00:00:00.000001'"]),
    "zoned": ("timetz", ["'10:00:00.5+05:30'"]),
    "lapse": (
        "interval",
        ["'-1 mon +2 days -03:04:05.000006'", "'178000000 years'", "'00:00'", "'-0.5 s'"],
    ),
    "told": ("json", ["'null'", """'{"b": 1,  "a": 20.00, "a": null}'""", "'\"\\u0041\"'"]),
    "told_b": (
        "jsonb",
        ["'null'", """'{"n": 12345678901234567890.00, "t": "\\u001f🂡"}'""", "'[]'", "'{}'"],
    ),
    "raw": ("bytea", ["'\\x00ff5c'", "''"]),
    "numbers": ("int[]", ["'{}'", "'{1,NULL,3}'", "'{{1,2},{3,4}}'", "'[0:1]={1,2}'"]),
    "texts": ("text[]", [r"""array['', null, 'NULL', 'a"b', E'c\\d', 'e,{f}', ' g']""", "'{}'"]),
    "jsons": ("jsonb[]", ["array['null'::jsonb, null, '{\"a\": [1]}']"]),
    "moments": ("timestamptz[]", ["array['0001-01-01 BC'::timestamptz, 'infinity', null]"]),
    "suits": ("suit[]", ["array['he\"arts, \\'::suit, null]"]),
    "boards": ("hand", ["array['Ah', null]"]),
    "suit": ("suit", ["'di''amonds'", "'he\"arts, \\'"]),
    "whole_range": ("int4range", ["'empty'", "'[1,)'", "'(,)'"]),
    "moment_range": ("tstzrange", ["'[2026-01-01 00:00:00.000001+00,infinity]'"]),
    "many_ranges": ("int8multirange", ["'{[1,2],[5,)}'", "'{}'"]),
    "address": ("inet", ["'10.0.0.1'", "'::ffff:1.2.3.4/120'"]),
    "net": ("cidr", ["'10.0.0.0/8'"]),
    "hardware": ("macaddr8", ["'08:00:2b:01:02:03:04:05'"]),
    "bits": ("bit(4)", ["B'0101'"]),
    "some_bits": ("bit varying", ["B''", "B'1'"]),
    "composed": ("pair", ["row(1, 'a\"b,(c)')", "row(null, null)"]),
    "keys": ("hstore", ['\'"a"=>"b=>\\"c", d=>NULL\'']),
    "found": ("tsvector", ["to_tsvector('english', 'the quick fox''s')"]),
    "sought": ("tsquery", ["'a & !b:*'"]),
    "place": ("point", ["'(1e-300,0.1)'"]),
    "marked": ("xml", ["'<a b=\"c\">d</a>'"]),
    "position": ("pg_lsn", ["'16/B374D848'"]),
    'Odd "name" %s ♠': ("text", ["'1'"]),
    "1_u41_": ("text", ["'2'"]),
    "tail": ("int", ["7"]),
}


ROWS = max(len(values) for _, values in COLUMNS.values())


async def test_every_value_arrives_as_it_was(pair: Pair) -> None:
    for site in Site:
        with psycopg.connect(superuser(pair, site)) as connection:
            create(connection)
            if site is Site.EXTERNAL:
                fill(connection)
    external = await open_connection(superuser(pair, Site.EXTERNAL))
    supabase = await open_connection(superuser(pair, Site.SUPABASE))
    async with external, supabase:
        await migrate(supabase, Site.SUPABASE)
        # What a role or a database has set must not show in any value.
        for session in (external, supabase):
            await session.execute("set timezone to 'Asia/Seoul'")
            await session.execute("set datestyle to 'SQL, DMY'")
            await session.execute("set intervalstyle to 'sql_standard'")
            await session.execute("set bytea_output to 'escape'")
            await session.execute("set extra_float_digits to 0")
        ours = await read_columns(external, WIDE)
        theirs = await read_columns(supabase, WIDE)
        images = await through_avro(external, ours)
        statements = TableStatements(WIDE, ours, theirs, (), images=text_codec)
        (upsert,) = statements.of(statements.shape).upsert
        await supabase.execute(upsert, {"images": Json.array(images)})
        expected, found = await texts(external), await texts(supabase)
    assert len(expected) == ROWS + 1
    assert differing(expected, found) == {}
    assert found == expected


async def through_avro(external: AsyncConnection, columns: Sequence[Column]) -> list[bytes]:
    """The images that the messages of these rows hold."""
    schema = table_schema(WSOP, WIDE, columns)
    ids = [str(n) for n in range(ROWS + 1)]
    rows = {i: row async for i, row in read_rows(external, WIDE, columns, ids)}
    images = []
    for entity_id, row in rows.items():
        message = encode(schema, Operation.UPDATE, entity_id, 1, row)
        key = entity_id.encode()
        change = decode({schema.fingerprint: schema}, WIDE.name, "t", 0, 0, key, message)
        assert change.image is not None
        images.append(change.image)
    return images


def create(connection: Connection) -> None:
    connection.execute(TYPES)
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(definition))
        for name, (definition, _) in COLUMNS.items()
    ]
    connection.execute(
        sql.SQL(
            "create table wide (id int primary key, {}, made int generated always as (id * 2) stored)"
        ).format(sql.SQL(", ").join(columns))
    )


def fill(connection: Connection) -> None:
    """A row for each value of the column with the most, and one of NULLs."""
    for number in range(ROWS):
        values = [sql.SQL(given[number % len(given)]) for _, given in COLUMNS.values()]
        connection.execute(
            sql.SQL("insert into wide values ({}, {})").format(
                sql.Literal(number), sql.SQL(", ").join(values)
            )
        )
    connection.execute(sql.SQL("insert into wide values ({})").format(sql.Literal(ROWS)))


async def texts(connection: AsyncConnection) -> list[tuple[str, ...]]:
    """Each row whole, and each of its columns, as PostgreSQL writes them."""
    columns = [sql.SQL("row({})::text").format(sql.Identifier(name)) for name in COLUMNS]
    query = sql.SQL("select wide::text, {} from wide order by id")
    cursor = await connection.execute(query.format(sql.SQL(", ").join(columns)))
    return await cursor.fetchall()


def differing(
    expected: Sequence[tuple[str, ...]], found: Sequence[tuple[str, ...]]
) -> dict[str, list[tuple[str, str]]]:
    return {
        name: pairs
        for number, name in enumerate(COLUMNS, start=1)
        if (
            pairs := [
                (ours[number], theirs[number])
                for ours, theirs in zip(expected, found, strict=True)
                if ours[number] != theirs[number]
            ]
        )
    }


def superuser(pair: Pair, site: Site) -> str:
    cluster = pair.cluster(site)
    return cluster.dsn(cluster.site.superuser, pair.database)


async def test_a_table_without_its_key_has_no_schema(pair: Pair) -> None:
    async with await pair.connect(Site.EXTERNAL) as external:
        await external.execute("create table keyless (a int)")
        table = Table("keyless")
        with pytest.raises(KeyMissing, match=r"public\.keyless\.id"):
            table_schema(WSOP, table, await read_columns(external, table))
