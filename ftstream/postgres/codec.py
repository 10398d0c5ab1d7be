"""How each column travels: from Debezium's JSON, or from PostgreSQL's own text, to the target's type.

A `Codec` names the type under which json_to_recordset reads the value, and the SQL expression that
makes the column's value of it. PostgreSQL does the converting, so no value passes through Python.

Measured on every type with Debezium 3.7.0 (tests/system/test_types.py). A type that it does not carry
exactly is refused. A few values cannot be refused by their type:
- a date before Christ, or from 5 to 14 October 1582 (the days that the calendar left out), comes as
  another date in a snapshot and in an array; from the log a date comes as it is;
- an array of more than one dimension, or not numbered from 1, comes as another array (refused if the
  column is declared with more than one dimension);
- in an image of an outbox, an array that is not numbered from 1 is numbered from 1;
- NULL in an enum array, NaN or infinity in a numeric array, and an interval of more than 2^31 hours
  stop the connector; a timestamp after the year 294246 halts the flow. Nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from ftstream.postgres.catalog import Column
from ftstream.postgres.queries import identifier, literal


class UnsupportedType(Exception):
    """A column's type cannot be carried exactly; the message names it and what to do."""


@dataclass(frozen=True, slots=True)
class Codec:
    """`wire`: the type json_to_recordset reads; `value`: from that, named {x}, to a value of {type}.

    An empty wire type stands for the column's own.
    """

    wire: LiteralString = ""
    value: LiteralString = "{x}"


CodecOf = Callable[[Column], Codec]

# What Debezium sends where a plain number cannot tell the value (time.precision.mode=microseconds).
# By days: an interval is multiplied in floating point, which loses microseconds after the year 18000.
# Infinity is the greatest number since Debezium 3.7; records of earlier versions may still be in Kafka.
_TIMESTAMP: LiteralString = """case when {x} in (9223372036854775807, 9223372036825200000) then 'infinity'
    when {x} in (-9223372036854775808, -9223372036832400000) then '-infinity'
    else timestamp 'epoch' + ({x} / 86400000000) * interval '1 day'
        + ({x} %% 86400000000) * interval '1 microsecond' end"""
# Infinity is one number in the log (since Debezium 3.7 another), another in a snapshot or an array: all of
# them before the first date or after the last.
_DATE: LiteralString = """case when {x} in (2146033979, -2147472692, -622191234) then 'infinity'
    when {x} in (-2147472691, -625821272) then '-infinity'
    else date 'epoch' + {x} end"""
# ISO 8601 has a year 0, signs, and a sign before five digits; PostgreSQL has BC, and no signs.
_TIMESTAMPTZ: LiteralString = r"""case when {x} !~ '^([+-]\d|0000-)' then {x}::timestamptz else (
    select (to_char(abs(m[1]::integer - (m[1]::integer <= 0)::integer), 'FM9999990000') || m[2]
            || case when m[1]::integer <= 0 then ' BC' else '' end)::timestamptz
    from regexp_match({x}, '^([+-]?\d+)(.*)$') m) end"""
_TIME: LiteralString = """case {x} when 86400000000 then time '24:00'
    else time '00:00' + {x} * interval '1 microsecond' end"""
_NUMERIC: LiteralString = """case {x} when 'POSITIVE_INFINITY' then numeric 'Infinity'
    when 'NEGATIVE_INFINITY' then numeric '-Infinity' else {x}::numeric end"""
# By way of text: the extension's functions may be in any schema, its type name comes qualified.
_HSTORE: LiteralString = r"""case when {x} is not null then (
    select coalesce(string_agg(
        '"' || replace(replace(h.key, '\', '\\'), '"', '\"') || '"=>'
            || coalesce('"' || replace(replace(h.value, '\', '\\'), '"', '\"') || '"', 'NULL'), ','), '')
    from json_each_text({x}::json) h)::{type} end"""
_EACH: tuple[LiteralString, LiteralString] = (
    "case when {x} is not null then array(select ",
    " from unnest({x}) with ordinality as u(e, n) order by u.n) end",
)

_PLAIN = frozenset(
    (
        *("int2", "int4", "int8", "oid", "float4", "float8", "bool", "uuid"),
        *("text", "varchar", "bpchar", "name", "citext", "tsvector"),
        *("inet", "cidr", "macaddr", "macaddr8"),
        *("int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange"),
    )
)
_SCALARS: dict[str, Codec] = {
    "json": Codec("text", "{x}::{type}"),
    "jsonb": Codec("text", "{x}::{type}"),
    "xml": Codec("text", "{x}::{type}"),
    "timestamp": Codec("bigint", _TIMESTAMP),
    "timestamptz": Codec("text", _TIMESTAMPTZ),
    "date": Codec("integer", _DATE),
    "time": Codec("bigint", _TIME),
    "interval": Codec("text", "{x}::interval"),
    "bytea": Codec("text", "decode({x}, 'hex')"),
    "numeric": Codec("text", _NUMERIC),
    "hstore": Codec("text", _HSTORE),
}
_PLAIN_ARRAYS = frozenset(
    ("int2", "int4", "int8", "float4", "float8", "bool", "text", "varchar", "bpchar", "uuid")
)
# Not timestamp, timestamptz and time: their arrays come shifted by days before 1582, without the
# era, or cut to milliseconds.
_CONVERTED_ARRAYS = frozenset(("json", "jsonb", "date", "bytea", "numeric"))
_TOLD_ARRAYS = frozenset(
    ("text", "varchar", "bpchar", "int4", "int8", "uuid", "json", "jsonb", "date")
)


def debezium_codec(column: Column) -> Codec:
    """Say how this column of the source comes in Debezium's events; raises UnsupportedType."""
    codec = _array(column) if column.is_array else _scalar(column)
    if codec is None:
        dimensions = f" of {column.dimensions} dimensions" if column.dimensions > 1 else ""
        raise UnsupportedType(
            f"column {column.name} has type {column.type}{dimensions}, which Debezium does not carry exactly:"
            " change its type, or exclude the column in flows.py"
        )
    return codec


def text_codec(column: Column) -> Codec:
    """Say how any column comes when its owner is read directly: as PostgreSQL's text."""
    return Codec("text", "{x}::{type}")


def outbox_codec(column: Column) -> Codec:
    """Say how this column comes in a message m of an outbox; raises UnsupportedType."""
    if column.base_name == "jsonb" and not column.is_array:
        return Codec("", "case when {name} = any(m.json_nulls) then 'null'::jsonb else {x} end")
    return image_codec(column)


def image_codec(column: Column) -> Codec:
    """Say how this column comes in a row image that a site's trigger has made; raises UnsupportedType."""
    if column.base_name == "json" or (column.base_name == "jsonb" and column.is_array):
        raise UnsupportedType(
            f"column {column.name} has type {column.type}, of which an image does not keep everything (how"
            " it is spelt, JSON nulls): change its type to jsonb, or exclude the column in flows.py"
        )
    if column.base_name == "money":
        raise UnsupportedType(
            f"column {column.name} has type {column.type}, whose text is another where lc_monetary is: change"
            " its type to numeric, or exclude the column in flows.py"
        )
    if column.base_name == "hstore" and not column.is_array:
        return _SCALARS["hstore"]
    return Codec()


def hides_unchanged(column: Column) -> bool:
    """Say whether the log cannot tell an unchanged TOAST value of this column.

    Measured: Debezium has a placeholder for few types of arrays. For others it sends NULL with a
    warning, or stops. Such a table needs REPLICA IDENTITY FULL.
    """
    told = column.base_name in _TOLD_ARRAYS and column.base_kind != "e" and not column.domain
    return column.is_array and column.toastable and not told


def wire_column(column: Column, codec: Codec) -> sql.Composed:
    """The column's definition for json_to_recordset."""
    wire = sql.SQL(codec.wire) if codec.wire else type_name(column)
    return sql.SQL("{} {}").format(identifier(column.name), wire)


def value(column: Column, codec: Codec) -> sql.Composed:
    """The expression for the column's value, from the record r."""
    x = sql.SQL("r.{}").format(identifier(column.name))
    return sql.SQL(codec.value).format(x=x, type=type_name(column), name=literal(column.name))


def _scalar(column: Column) -> Codec | None:
    if column.base_kind == "e":
        return Codec()
    if column.base_name == "numeric" and column.constrained:
        return Codec()  # a numeric with a scale holds no infinity, and NaN reads as it comes
    if column.base_name in _PLAIN:
        return Codec()
    return _SCALARS.get(column.base_name)


def _array(column: Column) -> Codec | None:
    if column.dimensions > 1:
        return None
    if column.base_kind == "e" or column.base_name in _PLAIN_ARRAYS:
        return Codec()
    if column.base_name not in _CONVERTED_ARRAYS:
        return None
    element = _SCALARS[column.base_name]
    conversion = element.value.replace("{x}", "u.e").replace("::{type}", "::" + column.base_name)
    return Codec(element.wire + "[]", _EACH[0] + conversion + _EACH[1])


def type_name(column: Column) -> sql.SQL:
    """The column's type for a cast, from format_type() of the database, which quotes as needed."""
    return sql.SQL(column.cast_type.replace("%", "%%"))
