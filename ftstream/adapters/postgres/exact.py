"""Exact or parked: what a value of one column's type is in another's, and whether it is still the same.

A cast rounds, cuts or pads without a word. Where the sites' columns are of different types, a value is
read as the source's type, cast to the target's, and both are compared in a form in which equal values are
equal texts. Columns that are alike, or whose type at the target holds every value, have no such look.

Pure: makes SQL of what the catalogs say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import LiteralString

from psycopg import sql

from ftstream.adapters.postgres import codec
from ftstream.adapters.postgres.catalog import Column
from ftstream.adapters.postgres.codec import CodecOf
from ftstream.adapters.postgres.queries import literal

_INTEGERS = ("int2", "int4", "int8")
_FLOATS = ("float4", "float8")
_NUMBERS = frozenset((*_INTEGERS, *_FLOATS, "numeric"))
_TIMES = frozenset(("date", "timestamp", "timestamptz"))
_TEXTS = frozenset(("text", "varchar", "bpchar"))
_FRACTIONS = frozenset(("timestamp", "timestamptz", "time", "timetz"))

_LOOK: LiteralString = """(select case when {before} is not distinct from {after} then s.w
    else ftstream.inexact({place}, {label}, {before})::{type} end
    from (select y.v, {cast} as w from (select {value} as v offset 0) y offset 0) s)"""
_EACH: LiteralString = """case when {x} is not null then concat(array_dims({x}),
    (select array_agg({element} order by u.n)::text from unnest({x}) with ordinality as u(e, n))) end"""


def differ(here: Column, there: Column) -> bool:
    """Whether two sites' columns are of types that may hold different values.

    Not enums: a label that one of them lacks is an error, never another label.
    """
    if here.base_kind == there.base_kind == "e" and here.is_array == there.is_array:
        return False
    return _kind(here) != _kind(there)


def inexact(here: Column, there: Column) -> bool:
    """Whether a value of the column `here` may be one that the column `there` does not hold exactly."""
    if not differ(here, there):
        return False
    return here.is_array or there.is_array or not _holds_all(here, there)


def wire_column(here: Column, there: Column, codec_of: CodecOf) -> sql.Composed:
    """The column's definition for json_to_recordset. Raises UnsupportedType."""
    column = _looked_at(here, there) or there
    return codec.wire_column(column, codec_of(here if column is there else column))


def value(table: str, here: Column, there: Column, codec_of: CodecOf) -> sql.Composed:
    """The column's value from a record of the wire; it fails if the target does not hold it exactly.

    Raises UnsupportedType.
    """
    column = _looked_at(here, there)
    if column is None:
        return codec.value(there, codec_of(here))
    kind = sql.SQL(there.base_type.replace("%", "%%"))
    y, v, w = sql.SQL("y.v"), sql.SQL("s.v"), sql.SQL("s.w")
    return sql.SQL(_LOOK).format(
        before=comparable(v, here, there),
        after=comparable(w, here, there),
        place=literal(f"{table}.{there.name}"),
        label=literal(there.type),
        type=kind,
        cast=sql.SQL("{}::{}").format(_castable(y, column, there), kind),
        value=codec.value(column, codec_of(column)),
    )


def comparable(x: sql.Composable, here: Column, there: Column) -> sql.Composable:
    """A text of x, which is a value of either column: the same on both sites for the same value."""
    if not (here.is_array and there.is_array):
        return sql.SQL(_form(here, there)).format(x=x)
    element = sql.SQL(_form(here, there)).format(x=sql.SQL("u.e"))
    return sql.SQL(_EACH).format(x=x, element=element)


def _kind(column: Column) -> tuple[str, bool, int]:
    return column.base_name, column.is_array, column.modifier


def _looked_at(here: Column, there: Column) -> Column | None:
    """The column as which a value is read that is to be looked at; None if it is not."""
    if not inexact(here, there):
        return None
    if here.builtin:
        return here
    if here.base_kind == "e" or here.base_name == "citext":
        text = "text[]" if here.is_array else "text"
        return replace(here, base_name="text", base_kind="b", cast_type=text, modifier=-1)
    return None  # its type may not be there at the target


def _holds_all(here: Column, there: Column) -> bool:
    pair = (here.base_name, there.base_name)
    wider = there.modifier < 0 or 0 <= here.modifier <= there.modifier
    match pair:
        case (
            ("int2", "int4" | "int8")
            | ("int4", "int8")
            | ("float4", "float8")
            | ("date", "timestamp")
        ):
            return there.modifier < 0
        case ("int2" | "int4" | "int8", "numeric"):
            return there.modifier < 0
        case ("varchar", "varchar") | ("bpchar", "bpchar"):
            return wider
        case ("varchar" | "text", "text"):
            return True
        case ("numeric", "numeric"):
            return there.modifier < 0 or _digits_fit(here.modifier, there.modifier)
        case (a, b) if a == b and a in _FRACTIONS:
            return wider
    return False


def _digits_fit(here: int, there: int) -> bool:
    """Whether a numeric with one modifier holds those with the other."""
    if here < 0:
        return False
    (precision, scale), (precision_there, scale_there) = _numeric(here), _numeric(there)
    return scale_there >= scale and precision_there - scale_there >= precision - scale


def _numeric(modifier: int) -> tuple[int, int]:
    """Precision and scale, as PostgreSQL packs them; the scale has eleven bits and a sign."""
    packed = modifier - 4
    return packed >> 16, ((packed & 0x7FF) ^ 1024) - 1024


def _form(here: Column, there: Column) -> LiteralString:
    pair = {here.base_name, there.base_name}
    if pair <= set(_FLOATS):
        return "{x}::float8::text"
    if pair <= _NUMBERS:
        return "trim_scale({x}::text::numeric)::text"
    if len(pair) > 1 and pair <= _TIMES:
        return "{x}::timestamptz::text"
    return "{x}::text"


def _castable(x: sql.Composable, here: Column, there: Column) -> sql.Composable:
    """What can be cast to the target's type by an explicit cast, which never fails to round."""
    if here.is_array == there.is_array:
        pair = {here.base_name, there.base_name}
        whole = there.base_name in _INTEGERS
        if len(pair) == 1 or (pair <= _NUMBERS and not whole) or pair <= _TIMES or pair <= _TEXTS:
            return x
        if pair <= _NUMBERS and not here.is_array:
            # A fraction fails to read as an integer; NaN would be an error that halts.
            return sql.SQL("trim_scale({x}::text::numeric)::text").format(x=x)
    return sql.SQL("{}::text").format(x)
