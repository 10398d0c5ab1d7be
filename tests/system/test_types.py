"""Every value of every type arrives as it is: by snapshot, by insert, and by update from any other value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

import psycopg
import pytest
from psycopg import Connection, sql

from ftstream.local.demo.rig import CommandFailed, Rig, SiteName
from ftstream.postgres.connection import SESSION

SITES: tuple[SiteName, ...] = ("external", "supabase")

DDL: LiteralString = r"""
create extension citext;
create extension hstore;
create schema "Other schema";
create type suit as enum ('spade', 'heart''s', 'with "quotes"', 'with, comma', '', '카드', E'back\\slash');
create type "Other schema"."Suit %" as enum ('spade', 'club');
create domain chips as bigint check (value > -10);
create domain big_chips as chips default 7;
create domain money_amount as numeric(12, 2);
create domain exact as numeric;
create domain day as date;
create domain tags as text[];
create domain short as varchar(5);
create domain settings as jsonb;
"""


@dataclass(frozen=True)
class Column:
    """A column, and values for it as SQL; NULL is added to every one."""

    name: str
    definition: LiteralString
    values: tuple[LiteralString, ...]


def column(name: str, definition: LiteralString, *values: LiteralString) -> Column:
    return Column(name, definition, (*values, "null"))


TEXTS = (
    "'plain'",
    "''",
    "' '",
    "'null'",
    "'한국어 텍스트 🂡👩‍👩‍👧 e\u0301 \uffff \U0010ffff'",
    r"E'tab\t line\n return\r bell\x07 del\x7f back\\slash'",
    """'quotes " '' comma , brace {} []'""",
    "repeat('long ', 5000)",
    "'POSITIVE_INFINITY'",
    "'__debezium_unavailable_value'",
    "'ftstream: unchanged value'",
)
FLOATS = (
    "'NaN'",
    "'Infinity'",
    "'-Infinity'",
    "'-0'",
    "0.1",
    "1e-37",
    "'1.17549435e-38'",
    "123456.7",
    "3",
)
DOUBLES = (
    *FLOATS,
    "'5e-324'",
    "'1.7976931348623157e308'",
    "0.1::float8 + 0.2",
    "9007199254740993",
    "1e15",
    "1e22",
)
NUMERICS = (
    "'NaN'",
    "'Infinity'",
    "'-Infinity'",
    "0",
    "'0.000'",
    "'-0.00000000000000000000001'",
    "20.00",
    "1e400",
    "repeat('9', 2000)::numeric",
    "('0.' || repeat('0', 2000) || '1')::numeric",
    "(repeat('7', 500) || '.' || repeat('3', 500))::numeric",
)
DATES = (
    "'2024-02-29'",
    "'1970-01-01'",
    "'1969-12-31'",
    "'infinity'",
    "'-infinity'",
    "'0001-01-01'",
    "'5874897-12-31'",
    "'9999-12-31'",
    "'10000-01-01'",
)
TIMESTAMPS = (
    "'2024-02-29 23:59:59.999999'",
    "'1969-12-31 23:59:59.999999'",
    "'1970-01-01'",
    "'infinity'",
    "'-infinity'",
    "'4713-01-01 00:00:00 BC'",
    "'0001-01-01 00:00:00.000001'",
    "'0001-12-31 23:59:59.999999 BC'",
    "'294246-12-31 23:59:59.999999'",
    "'1582-10-10 12:00'",
    "'10000-01-01 00:00:00.5'",
    "'1900-01-01 00:00:00'",
    "'2024-03-31 02:30:00'",
)
TIMES = ("'00:00'", "'24:00'", "'23:59:59.999999'", "'00:00:00.000001'", "'12:34:56'")
INTERVALS = (
    "'0'",
    "'1 microsecond'",
    "'-1 microsecond'",
    "'1 year 2 months 3 days 04:05:06.789012'",
    "'-1 year 2 days -00:00:01'",
    "'1 mon -1 day 00:00:00.5'",
    "'30 days'",
    "'720 hours'",
    "'1 month'",
    "'-178000000 years'",
    "'2147483647 days'",
    "'2147483647:59:59.999999'",
    "'100 days 25:00:00'",
)
JSONS = (
    "'null'",
    "'{}'",
    "'[]'",
    "'\"\"'",
    "'0'",
    "'true'",
    "'20.00'",
    "'1e400'",
    "'-1e-400'",
    "'[1, 2.50, 638000000000000001, 0.1000]'",
    '\'{"a": {"b": [null, {"c": "d\\"e\\\\f"}]}}\'',
    '\'{"한": "🂡", "": " ", "x y": "\\u00e9\\n\\t"}\'',
    "(repeat('[', 900) || repeat(']', 900))::{type}",
    "'\"__debezium_unavailable_values\"'",
)


def arrays(element: LiteralString, *lists: LiteralString) -> tuple[LiteralString, ...]:
    """Arrays of these elements, and those that every type has."""
    return (
        *(f"array[{inside}]::{element}[]" for inside in lists),
        "'{}'",
        "'{null}'",
        "'{null,null}'",
    )


PLAIN: tuple[Column, ...] = (
    column("Text", "text default 'default'", *TEXTS),
    column("two words", "varchar(30000)", *TEXTS),
    column("select", "varchar", *TEXTS),
    column("c", "citext", *TEXTS, "'MiXeD'"),
    column('quo"te', "varchar(5)", "'한국어 🂡'", "''", "'abc  '"),
    column("char 1", "char(1)", "'A'", "' '", "''", "'한'"),
    column("char 5", "char(5)", "'A'", "''", "'한국어'", "'  a'"),
    column("int", "int default 5", "0", "2147483647", "-2147483648"),
    column("smallint", "smallint", "0", "32767", "-32768"),
    column(
        "bigint",
        "bigint",
        "0",
        "9007199254740993",
        "638000000000000001",
        "9223372036854775807",
        "-9223372036854775808",
    ),
    column("bool", "boolean default true", "true", "false"),
    column("n52", "numeric(5, 2)", "0", "600", "-999.99", "0.10", "'NaN'"),
    column("n122", "numeric(12, 2)", "9999999999.99", "0.01", "-0.01", "20"),
    column("n102", "numeric(10, 2)", "99999999.99", "12.30"),
    column("n5-2", "numeric(5, -2)", "12300", "9999900"),
    column("100%", "numeric", *NUMERICS),
    column("real", "real", *FLOATS, "'1.4e-45'", "'3.4028235e38'", "16777217"),
    column("double", "double precision", *DOUBLES),
    column(
        "json",
        "json",
        *(v.replace("{type}", "json") for v in JSONS),
        '\'{"b" : 1, "a":2,  "b": 3}\'',
        "'  1.0 '",
        r"""'"\u0000"'""",
    ),
    column("jsonb", "jsonb default '{}'", *(v.replace("{type}", "jsonb") for v in JSONS)),
    column("date", "date", *DATES),
    column("time", "time", *TIMES),
    column("time 3", "time(3)", *TIMES),
    column("timestamp", "timestamp", *TIMESTAMPS),
    column("timestamp 3", "timestamp(3)", *TIMESTAMPS),
    column("timestamptz", "timestamptz", *TIMESTAMPS, "'1900-01-01 00:00:00 Asia/Seoul'"),
    column("interval", "interval", *INTERVALS),
    column("uuid", "uuid", "'00000000-0000-0000-0000-000000000000'", "gen_random_uuid()"),
    column(
        "bytea",
        "bytea",
        "''",
        r"'\x00'",
        "(select string_agg(set_byte('x', 0, i), '') from generate_series(0, 255) i)",
        "'text'",
    ),
    column(
        "suit",
        "suit",
        "'spade'",
        "'heart''s'",
        "'with \"quotes\"'",
        "'with, comma'",
        "''",
        "'카드'",
        r"E'back\\slash'",
    ),
    column("Suit elsewhere", '"Other schema"."Suit %"', "'spade'", "'club'"),
    column(
        "hstore",
        "hstore",
        "''",
        "'a=>1'",
        "'a=>NULL'",
        "'a=>\"NULL\"'",
        '\'""=>""\'',
        r"""hstore(array['q"uote', 'ba\ck', 'com,ma', '한', '=>', 'a b', E'\t\n', ''''],
                      array['q"uote', 'ba\ck', 'com,ma', '🂡', '=>', null, E'\t\n', ''''])""",
    ),
    column("inet", "inet", "'10.0.0.1'", "'10.0.0.1/8'", "'::1'", "'fe80::/10'"),
    column("cidr", "cidr", "'10.0.0.0/8'", "'::/0'"),
    column("macaddr", "macaddr", "'08:00:2b:01:02:03'"),
    column("int4range", "int4range", "'[1,5)'", "'empty'", "'(,)'", "'[1,)'"),
    column("int8range", "int8range", "'[1,9223372036854775807)'", "'empty'"),
    column("numrange", "numrange", "'[1.50,2.5]'", "'(,1e400)'"),
    column("tsrange", "tsrange", "'[2024-01-01 00:00:00.000001,infinity)'", "'[,0044-03-15 BC)'"),
    column(
        "tstzrange", "tstzrange", "'[2024-01-01 00:00:00.000001+09,infinity)'", "'[1900-01-01,)'"
    ),
    column("daterange", "daterange", "'[2024-01-01,infinity)'", "'empty'"),
    column("xml", "xml", "'<a b=\"c\">한 &amp; &lt;</a>'", "'text'"),
    column("chips", "chips", "0", "9007199254740993"),
    column("big chips", "big_chips", "0", "9007199254740993"),
    column("money amount", "money_amount", "0.10", "-9999999999.99"),
    column("exact", "exact", *NUMERICS),
    column("day", "day", *DATES),
    column("short", "short", "'한국어 🂡'", "''"),
    column("settings", "settings", "'{\"a\": 20.00}'", "'null'"),
    column(
        "text[]",
        "text[] default '{}'",
        *arrays("text", *TEXTS, "'', null, 'NULL', 'a,b', '{}', 'q\"', 'b\\', ' '"),
    ),
    column(
        "varchar[]",
        "varchar(9)[]",
        *arrays("varchar", "'', null, 'NULL', 'a,b', '{}', 'q\"', 'b\\', ' '"),
    ),
    column("bpchar[]", "char(3)[]", *arrays("bpchar", "'', null, 'a', ' b'")),
    column("int[]", "int[]", *arrays("int", "1, null, -2147483648, 2147483647")),
    column(
        "bigint[]", "bigint[]", *arrays("bigint", "1, null, 9007199254740993, -9223372036854775808")
    ),
    column("date[]", "date[]", *arrays("date", "null, '2024-02-29'", ", ".join(DATES))),
    column("uuid[]", "uuid[]", *arrays("uuid", "null, gen_random_uuid()")),
    column("json[]", "json[]", *arrays("json", r"""null, 'null', '{"a":  20.00}', '"q\"b\\"'""")),
    column(
        "jsonb[]", "jsonb[]", *arrays("jsonb", r"""null, 'null', '{"a":  20.00}', '"q\"b\\"'""")
    ),
)
"""On gfx_players, with the replica identity that a table has by default."""

HIDING: tuple[Column, ...] = (
    column("int2[]", "smallint[]", *arrays("int2", "1, null, -32768")),
    column("bytea[]", "bytea[]", *arrays("bytea", r"null, '', '\x00ff'")),
    # Without NULL: an enum array that has one stops the connector.
    column(
        "suit[]",
        "suit[]",
        "'{}'",
        r"""array['spade', '', 'with "quotes"', 'with, comma', '카드', E'back\\slash']::suit[]""",
    ),
    column("numeric[]", "numeric[]", *arrays("numeric", ", ".join(NUMERICS[3:]), "null, 1.50")),
    column("n52[]", "numeric(5, 2)[]", *arrays("numeric", "null, 1.5, -999.99")),
    column("real[]", "real[]", *arrays("real", ", ".join(FLOATS), "null")),
    column("double[]", "double precision[]", *arrays("float8", ", ".join(DOUBLES), "null, 1")),
    column("bool[]", "boolean[]", *arrays("bool", "true, false, null")),
    column("tags", "tags", "array['a', null, '']"),
    column("text", "text default 'default'", *TEXTS),
)
"""On gfx_hands, with REPLICA IDENTITY FULL."""

DATES_LOST = {"0": "0044-03-15 BC", "1": "1582-10-10"}
"""In the first rows: dates that a snapshot does not carry."""

COLUMNS: dict[str, tuple[Column, ...]] = {"gfx_players": PLAIN, "gfx_hands": HIDING}
LABEL = {"gfx_players": "player_hash", "gfx_hands": "description"}
"""The column that names the case: row `3` has the fourth value of each column, `3>5` became the sixth."""
REQUIRED: dict[str, tuple[LiteralString, LiteralString]] = {
    "gfx_players": ("name", "'a name'"),
    "gfx_hands": ("session_id, hand_num, start_time", "1, nextval('numbers'), now()"),
}

SET_FOR_THE_DATABASE = {
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Seoul",
    "extra_float_digits": "-10",
    "bytea_output": "escape",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
}
"""What changes values on their way to text: without the capture role's own settings, Debezium's too."""

Differences = dict[str, dict[str, tuple[str, str]]]
"""By column and case: the value on External, and on Supabase."""


@pytest.fixture(scope="module")
def snapshot(rig: Rig) -> Differences:
    """Rows that were there before the connector started, with each value of each column."""
    for site in SITES:
        with psycopg.connect(rig.dsn(site)) as connection:
            add_columns(connection)
    with psycopg.connect(rig.dsn("external")) as connection:
        connection.execute("create temporary sequence numbers")
        for table in COLUMNS:
            insert_values(connection, table)
        for case, date in DATES_LOST.items():
            connection.execute(
                "update gfx_players set date = %s where player_hash = %s", (date, case)
            )
    for site in SITES:
        with psycopg.connect(rig.dsn(site), autocommit=True) as connection:
            for name, setting in SET_FOR_THE_DATABASE.items():
                query = sql.SQL("alter database {} set {} to {}")
                names = map(sql.Identifier, (rig.namespace, name))
                connection.execute(query.format(*names, sql.Literal(setting)))
    rig.run("init")
    rig.run("connectors", "apply", "gfx")
    rig.start_worker(rig.stack.folder / "logs" / f"{rig.namespace}.log")
    return differences(rig)


@pytest.fixture(scope="module")
def inserted(snapshot: Differences, rig: Rig) -> Differences:
    """Rows inserted while the connector runs, for each value as many as there are values."""
    with psycopg.connect(rig.dsn("external")) as connection:
        connection.execute("update gfx_players set name = name")
        connection.execute("create temporary sequence numbers start 1000")
        for table in COLUMNS:
            insert_pairs(connection, table)
    return differences(rig)


@pytest.fixture(scope="module")
def updated(inserted: Differences, rig: Rig) -> Differences:
    """The same rows after an update of each value to each."""
    with psycopg.connect(rig.dsn("external")) as connection:
        for table in COLUMNS:
            update_pairs(connection, table)
    return differences(rig)


@pytest.fixture(scope="module")
def untouched(updated: Differences, rig: Rig) -> Differences:
    """The same rows after an update of another column, which leaves most values out of the log."""
    with psycopg.connect(rig.dsn("external")) as connection:
        connection.execute("update gfx_players set name = 'another name'")
        connection.execute("update gfx_hands set game_variant = 'OMAHA'")
    return differences(rig)


def test_every_value_of_a_snapshot_arrives_as_it_is_but_two_kinds_of_dates(
    snapshot: Differences,
) -> None:
    # Debezium changes them, in snapshots only: the row arrives as it is when it is written again.
    assert snapshot == {
        "gfx_players: date": {
            "0": ('("0044-03-15 BC")', "(0044-03-15)"),
            "1": ("(1582-10-10)", "(1582-10-20)"),
        }
    }


def test_every_inserted_value_arrives_as_it_is(inserted: Differences) -> None:
    assert inserted == {}


def test_every_value_arrives_as_it_is_after_any_other(updated: Differences) -> None:
    assert updated == {}


def test_every_value_stays_as_it_is_when_another_column_changes(untouched: Differences) -> None:
    assert untouched == {}


REFUSED: dict[LiteralString, str] = {
    "alter table gfx_sessions add times time[]": "times has type time without time zone[]",
    "alter table gfx_sessions add stamps timestamptz[]": "stamps has type timestamp with time zone[]",
    "alter table gfx_sessions add matrix int[][]": "matrix has type integer[] of 2 dimensions",
    "alter table gfx_sessions add cash money": "cash has type money",
    "alter table gfx_sessions add flags bool[]": "gfx_sessions REPLICA IDENTITY FULL",
    "alter table gfx_sessions add labels tags": "gfx_sessions.labels is of type public.tags",
    "create domain lucky as suit": "type public.lucky is a domain over an enum",
}
"""What adds a type that cannot be carried, and what `init` says of it."""


def test_what_cannot_be_carried_is_refused_by_init(untouched: Differences, rig: Rig) -> None:
    for site in SITES:
        with psycopg.connect(rig.dsn(site)) as connection:
            for statement in REFUSED:
                connection.execute(statement)
    with pytest.raises(CommandFailed) as refusal:
        rig.run("init")
    said = str(refusal.value)
    assert [problem for problem in REFUSED.values() if problem not in said] == []


def add_columns(connection: Connection) -> None:
    connection.execute(DDL)
    for table, columns in COLUMNS.items():
        for c in columns:
            connection.execute(
                sql.SQL("alter table {} add {} {}").format(
                    sql.Identifier(table), sql.Identifier(c.name), sql.SQL(c.definition)
                )
            )
        # Rows are wide: nearly every value is stored out of line, and is not in the log unless it changes.
        connection.execute(
            sql.SQL("alter table {} set (toast_tuple_target = 128)").format(sql.Identifier(table))
        )
    connection.execute("alter table gfx_hands replica identity full")


def insert_values(connection: Connection, table: str) -> None:
    """One row for each number up to that of the values of the column with the most."""
    columns = COLUMNS[table]
    for number in range(max(len(c.values) for c in columns)):
        values = [sql.SQL(c.values[number % len(c.values)]) for c in columns]
        run(
            connection,
            table,
            """
            insert into {table} ({label}, {required}, {columns})
            select {number}, {required_values}, {values}
            """,
            number=sql.Literal(str(number)),
            values=sql.SQL(", ").join(values),
        )


def insert_pairs(connection: Connection, table: str) -> None:
    run(
        connection,
        table,
        """
        insert into {table} ({label}, {required}, {columns})
        select v.{label} || '>' || w.{label}, {required_values}, {v_columns}
        from {table} v, {table} w
        """,
    )


def update_pairs(connection: Connection, table: str) -> None:
    run(
        connection,
        table,
        """
        update {table} t set ({columns}) = row({v_columns})
        from {table} v
        where v.{label} = split_part(t.{label}, '>', 2)
        """,
    )


def run(connection: Connection, table: str, query: LiteralString, **parts: sql.Composable) -> None:
    names = [sql.Identifier(c.name) for c in COLUMNS[table]]
    required, required_values = REQUIRED[table]
    connection.execute(
        sql.SQL(query).format(
            table=sql.Identifier(table),
            label=sql.Identifier(LABEL[table]),
            required=sql.SQL(required),
            required_values=sql.SQL(required_values),
            columns=sql.SQL(", ").join(names),
            v_columns=sql.SQL(", ").join(sql.SQL("v.{}").format(name) for name in names),
            **parts,
        )
    )


def differences(rig: Rig) -> Differences:
    """What is not the same on both sites once everything is applied."""
    rig.run("wait", "gfx")
    found: Differences = {}
    for table, columns in COLUMNS.items():
        external, supabase = (read(rig, site, table) for site in SITES)
        assert external.keys() == supabase.keys()
        for case, row in external.items():
            for c, ours, theirs in zip(columns, row, supabase[case], strict=True):
                if ours != theirs:
                    found.setdefault(f"{table}: {c.name}", {})[case] = (ours[:100], theirs[:100])
    return found


def read(rig: Rig, site: SiteName, table: str) -> dict[str, Sequence[str]]:
    texts = [sql.SQL("row({})::text").format(sql.Identifier(c.name)) for c in COLUMNS[table]]
    with psycopg.connect(rig.dsn(site)) as connection:
        connection.execute(SESSION["exact_text"])
        query = sql.SQL("select {}, {} from {}").format(
            sql.Identifier(LABEL[table]), sql.SQL(", ").join(texts), sql.Identifier(table)
        )
        return {row[0]: row[1:] for row in connection.execute(query)}
