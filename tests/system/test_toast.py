"""Large values that a change leaves alone are not in the log: they are never overwritten and never lost."""

from __future__ import annotations

import uuid
from typing import LiteralString

import psycopg
import pytest
from psycopg import Connection, sql

from ftstream.local.demo.rig import Rig, SiteName
from tests.conftest import until
from tests.system.scene import pass_for_the_worker

WORDS = sql.SQL("(select md5(random()::text || i) as x from generate_series(1, {} / 32) i) w")
NUMBERS = sql.SQL("(select (random() * 2e9)::int as x from generate_series(1, {} / 4)) n")

COLUMNS: dict[str, tuple[LiteralString, LiteralString, sql.SQL]] = {
    "text": ("text", "string_agg(x, '한')", WORDS),
    "varchar": ("varchar", "string_agg(x, '')", WORDS),
    "citext": ("citext", "string_agg(x, 'X')", WORDS),
    "xml": ("xml", "xmlelement(name a, string_agg(x, ''))", WORDS),
    "json": ("json", "json_agg(x)", WORDS),
    "jsonb": ("jsonb", "jsonb_object_agg(x, 20.00)", WORDS),
    "domain": ("large", "jsonb_agg(x)", WORDS),
    "bytea": ("bytea", "convert_to(string_agg(x, ''), 'utf8')", WORDS),
    "hstore": ("hstore", "hstore(array_agg(x), array_agg(x))", WORDS),
    "text[]": ("text[]", "array_agg(x)", WORDS),
    "varchar[]": ("varchar(40)[]", "array_agg(x)", WORDS),
    "char[]": ("char(40)[]", "array_agg(x)", WORDS),
    "json[]": ("json[]", "array_agg(to_json(x))", WORDS),
    "jsonb[]": ("jsonb[]", "array_agg(to_jsonb(x))", WORDS),
    "uuid[]": ("uuid[]", "array_agg(x::uuid) || array_agg(x::uuid)", WORDS),
    "int[]": ("int[]", "array_agg(x)", NUMBERS),
    "bigint[]": ("bigint[]", "array_agg(x * 4000000000)", NUMBERS),
    "date[]": ("date[]", "array_agg(date '2000-01-01' + mod(x, 90000))", NUMBERS),
    "numeric": ("numeric", "left(string_agg(x::text, ''), 100000)::numeric", NUMBERS),
}
"""Name, type, and an aggregate that makes a value of words or numbers."""

SITES: tuple[SiteName, ...] = ("external", "supabase")

Row = dict[str, str]
"""By column: the digest of its value."""


@pytest.fixture(scope="module")
def carried(rig: Rig) -> Rig:
    """The rig with a large column of each type, after the changes of every case."""
    for site in SITES:
        with psycopg.connect(rig.dsn(site)) as connection:
            add_columns(connection)
    rig.run("init")
    rig.run("connectors", "apply", "gfx")
    start_worker(rig)
    with psycopg.connect(rig.dsn("external"), autocommit=True) as external:
        for case in ("later", "replaced", "alternating", "rekeyed", "missing", "absent", "gone"):
            insert(external, case, 120_000 if case == "later" else 4_000)
        rig.run("wait", "gfx")
        rig.stop_workers()
        delete_by_hand(rig, "missing", "absent")
        change_in_one_batch(external)
        start_worker(rig)
        rig.run("wait", "gfx")
        change_while_the_row_goes(rig, external)
    rig.run("wait", "gfx")
    return rig


def change_in_one_batch(external: Connection) -> None:
    """No worker runs: it finds all of this at once."""
    rename(external, "later")
    insert(external, "together", 4_000)
    rename(external, "together")
    replace(external, "replaced", *COLUMNS)
    rename(external, "replaced")
    for name in ("text", "jsonb", "int[]", "text", "jsonb"):
        replace(external, "alternating", name)
    external.execute(
        "update gfx_players set id = %s where player_hash = 'rekeyed'", (key("new key"),)
    )
    rename(external, "missing")
    external.execute("delete from gfx_players where player_hash = 'absent'")


def change_while_the_row_goes(rig: Rig, external: Connection) -> None:
    """The change is applied when neither site has the row any more."""
    delete_by_hand(rig, "gone")
    with psycopg.connect(rig.dsn("supabase")) as blocking:
        blocking.execute("lock table gfx_players in share mode")
        rename(external, "gone")
        until(lambda: waits_for_lock(rig))
        external.execute("delete from gfx_players where player_hash = 'gone'")


def waits_for_lock(rig: Rig) -> bool:
    with psycopg.connect(rig.dsn("supabase")) as connection:
        row = connection.execute(
            "select 1 from pg_locks where relation = 'gfx_players'::regclass and not granted"
        ).fetchone()
        return row is not None


def test_a_value_survives_an_update_of_another_column(carried: Rig) -> None:
    assert_equal(carried, "later")


def test_a_value_inserted_in_the_same_batch_survives(carried: Rig) -> None:
    assert_equal(carried, "together")


def test_a_new_value_arrives_with_the_later_change_that_lacks_it(carried: Rig) -> None:
    assert_equal(carried, "replaced")


def test_values_that_change_in_turns_all_arrive(carried: Rig) -> None:
    assert_equal(carried, "alternating")


def test_a_row_keeps_its_values_when_its_key_changes(carried: Rig) -> None:
    assert_equal(carried, "rekeyed")
    assert logged(carried, "rekeyed") == [("insert", "applied"), ("delete", "applied")]
    assert logged(carried, "new key") == [("insert", "reread")]


def test_a_row_that_the_target_lacks_is_read_from_its_owner(carried: Rig) -> None:
    assert_equal(carried, "missing")
    assert logged(carried, "missing")[-1] == ("update", "reread")


def test_a_delete_of_a_row_that_is_not_there_is_applied(carried: Rig) -> None:
    assert at(carried, "supabase", "absent") == {}
    assert logged(carried, "absent") == [("insert", "applied"), ("delete", "applied")]


def test_a_change_of_a_row_that_is_nowhere_any_more_is_no_error(carried: Rig) -> None:
    assert at(carried, "supabase", "gone") == {}
    assert [operation for operation, _ in logged(carried, "gone")] == ["insert", "update", "delete"]


def test_changes_in_one_batch_are_logged_each(carried: Rig) -> None:
    assert logged(carried, "together") == [("insert", "merged"), ("update", "applied")]
    assert logged(carried, "replaced")[1:] == [("update", "merged"), ("update", "applied")]
    assert logged(carried, "alternating")[1:] == [("update", "merged")] * 4 + [
        ("update", "applied")
    ]


def test_every_value_of_these_rows_is_stored_out_of_line(carried: Rig) -> None:
    """Otherwise the others prove nothing: a row has room for less than 2 KB in line."""
    sizes = [sql.SQL("min(pg_column_size({}))").format(sql.Identifier(name)) for name in COLUMNS]
    with psycopg.connect(carried.dsn("external")) as connection:
        query = sql.SQL("select {} from gfx_players").format(sql.SQL(", ").join(sizes))
        row = connection.execute(query).fetchone()
    assert row is not None
    assert {n: size for n, size in zip(COLUMNS, row, strict=True) if size < 2_000} == {}


def test_every_change_is_logged_once(carried: Rig) -> None:
    with psycopg.connect(carried.dsn("supabase")) as connection:
        repeated = connection.execute(
            "select topic, kafka_partition, kafka_offset from ftstream.sync_log"
            " group by 1, 2, 3 having count(*) > 1"
        ).fetchall()
    assert repeated == []


def assert_equal(rig: Rig, case: str) -> None:
    external = at(rig, "external", case)
    assert external
    assert at(rig, "supabase", case) == external


def start_worker(rig: Rig) -> None:
    rig.start_worker(rig.stack.folder / "logs" / f"{rig.namespace}.log")


def add_columns(connection: Connection) -> None:
    connection.execute(
        "create extension citext; create extension hstore; create domain large as jsonb"
    )
    for name, (definition, *_) in COLUMNS.items():
        connection.execute(
            sql.SQL(
                "alter table gfx_players add {name} {type}, alter {name} set storage external"
            ).format(name=sql.Identifier(name), type=sql.SQL(definition))
        )


def key(case: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, case))


def insert(external: Connection, case: str, size: int) -> None:
    names = sql.SQL(", ").join(sql.Identifier(name) for name in COLUMNS)
    values = sql.SQL(", ").join(value(name, size) for name in COLUMNS)
    external.execute(
        sql.SQL(
            "insert into gfx_players (id, player_hash, name, {}) values (%s, %s, 'a name', {})"
        ).format(names, values),
        (key(case), case),
    )


def replace(external: Connection, case: str, *names: str) -> None:
    changes = (
        sql.SQL("{} = {}").format(sql.Identifier(name), value(name, 5_000)) for name in names
    )
    external.execute(
        sql.SQL("update gfx_players set {} where player_hash = %s").format(
            sql.SQL(", ").join(changes)
        ),
        (case,),
    )


def value(name: str, size: int) -> sql.Composed:
    """A random value of about so many bytes."""
    _, aggregate, source = COLUMNS[name]
    return sql.SQL("(select {} from {})").format(
        sql.SQL(aggregate), source.format(sql.Literal(size))
    )


def rename(external: Connection, case: str) -> None:
    external.execute("update gfx_players set name = name || '!' where player_hash = %s", (case,))


def delete_by_hand(rig: Rig, *cases: str) -> None:
    with psycopg.connect(rig.dsn("supabase", "supabase_admin")) as connection:
        pass_for_the_worker(connection)
        connection.execute("delete from gfx_players where player_hash = any(%s)", (list(cases),))


def at(rig: Rig, site: SiteName, case: str) -> Row:
    digests = (sql.SQL("md5(row({})::text)").format(sql.Identifier(name)) for name in COLUMNS)
    with psycopg.connect(rig.dsn(site)) as connection:
        query = sql.SQL("select name, id::text, {} from gfx_players where player_hash = %s")
        row = connection.execute(query.format(sql.SQL(", ").join(digests)), (case,)).fetchone()
    return {} if row is None else dict(zip(("name", "id", *COLUMNS), row, strict=True))


def logged(rig: Rig, case: str) -> list[tuple[str, str]]:
    """Operation and outcome of each change of the row that was inserted for the case."""
    with psycopg.connect(rig.dsn("supabase")) as connection:
        return connection.execute(
            "select operation::text, outcome::text from ftstream.sync_log where entity_id = %s"
            " order by kafka_offset",
            (key(case),),
        ).fetchall()
