"""The statements that apply a batch to one table, generated from the catalogs of both sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from ftstream.adapters.postgres import codec
from ftstream.adapters.postgres.catalog import Column, carried
from ftstream.adapters.postgres.codec import CodecOf
from ftstream.adapters.postgres.queries import Queries, identifier, literal, statement
from ftstream.core.unavailable import UNAVAILABLE_FIELD
from ftstream.flows import Table

QUERIES = Queries.load(__package__, "apply.sql")


@dataclass(frozen=True, slots=True)
class TableStatements:
    """What applying one table takes; `unique_keys` are the columns whose values may move between rows."""

    delete: sql.Composed
    displace: sql.Composed
    upsert: sql.Composed
    patch: sql.Composed
    upsert_read: sql.Composed
    read_rows: sql.Composed
    existing: sql.Composed
    blockers: tuple[sql.Composed, ...]


def table_statements(
    table: Table,
    source: Sequence[Column],
    target: Sequence[Column],
    unique_keys: Sequence[Sequence[str]],
) -> TableStatements:
    """Build the statements; raises UnsupportedType for a column that cannot be carried."""
    pairs = carried(source, target)
    by_name = {column.name: column for column, _ in pairs}
    key = by_name[table.key]
    names = {
        "table": identifier(table.schema, table.name),
        "key": identifier(table.key),
        "key_type": sql.SQL(key.cast_type),  # from format_type()
    }

    def build(query: str, /, **parts: sql.Composable) -> sql.Composed:
        return statement(QUERIES[query]).format(**names, **parts)

    return TableStatements(
        delete=build("delete"),
        displace=build("displace", name=literal(table.name)),
        upsert=build("upsert", **_upsert_parts(pairs, codec.debezium_codec)),
        patch=build("patch", **_patch_parts(pairs, key)),
        upsert_read=build("upsert", **_upsert_parts(pairs, codec.text_codec)),
        read_rows=build("read_rows", **_read_parts(pairs)),
        existing=build("existing"),
        blockers=tuple(
            build("blockers", **_blocker_parts(pairs, columns))
            for columns in unique_keys
            if table.key not in columns and all(name in by_name for name in columns)
        ),
    )


Pairs = Sequence[tuple[Column, Column]]


def _listed(parts: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _upsert_parts(pairs: Pairs, codec_of: CodecOf) -> dict[str, sql.Composable]:
    columns = [identifier(column.name) for column, _ in pairs]
    return {
        "columns": _listed(columns),
        "values": _listed([codec.value(column, codec_of(column)) for column, _ in pairs]),
        "wire_columns": _listed(
            [codec.wire_column(column, codec_of(column)) for column, _ in pairs]
        ),
        "assignments": _listed([sql.SQL("{0} = excluded.{0}").format(name) for name in columns]),
    }


def _patch_parts(pairs: Pairs, key: Column) -> dict[str, sql.Composable]:
    parts = _upsert_parts(pairs, codec.debezium_codec)
    return {
        "wire_columns": parts["wire_columns"],
        "assignments": _listed([_kept_or_new(column) for column, _ in pairs]),
        "key_value": codec.value(key, codec.debezium_codec(key)),
    }


def _kept_or_new(column: Column) -> sql.Composed:
    name, new = identifier(column.name), codec.value(column, codec.debezium_codec(column))
    if not column.toastable:
        return sql.SQL("{} = {}").format(name, new)
    return sql.SQL(
        "{name} = case when {label} = any(r.{field}) then t.{name} else {new} end"
    ).format(name=name, label=literal(column.name), field=identifier(UNAVAILABLE_FIELD), new=new)


def _read_parts(pairs: Pairs) -> dict[str, sql.Composable]:
    return {
        "names": _listed([literal(column.name) for column, _ in pairs]),
        "texts": _listed(
            [sql.SQL("t.{}::text").format(identifier(column.name)) for column, _ in pairs]
        ),
    }


def _blocker_parts(pairs: Pairs, columns: Sequence[str]) -> dict[str, sql.Composable]:
    unique = [column for column, _ in pairs if column.name in columns]
    return {
        "wire_columns": _listed(
            [codec.wire_column(column, codec.text_codec(column)) for column in unique]
        ),
        "matches": sql.SQL(" and ").join(
            sql.SQL("t.{} = {}").format(
                identifier(column.name), codec.value(column, codec.text_codec(column))
            )
            for column in unique
        ),
    }
