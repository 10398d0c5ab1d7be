"""Exact or parked: what a value of one column's type is in another's, and whether it is still the same.

A cast rounds, cuts or pads without a word. Where the sites' columns are of different types, a value is
read as the source's type, cast to the target's, and both are compared in a form in which equal values are
equal texts. Columns that are alike, or whose type at the target holds every value, have no such look, but
for types that can lose something: the source's column may be altered at any time, and no image tells. What
is found too strictly does no harm: the catalogs are read then, and the values looked at by what they say.

Pure: makes SQL of what the catalogs say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import LiteralString

from psycopg import sql

from ftstream.postgres import codec
from ftstream.postgres.catalog import Column
from ftstream.postgres.codec import CodecOf
from ftstream.postgres.queries import identifier, literal

_INTEGERS = ("int2", "int4", "int8")
_FLOATS = ("float4", "float8")
_NUMBERS = frozenset((*_INTEGERS, *_FLOATS, "numeric"))
_TIMES = frozenset(("date", "timestamp", "timestamptz"))
_TEXTS = frozenset(("text", "varchar", "bpchar"))
_FRACTIONS = frozenset(("timestamp", "timestamptz", "time", "timetz"))
_ROUNDING = _FRACTIONS | {"numeric", "interval", "varchar"}

_LOOK: LiteralString = """(select case when {before} is not distinct from {after} then s.w
    else ftstream.inexact({place}, {label}, {before})::{type} end
    from (select y.v, {cast} as w from (select {value} as v offset 0) y offset 0) s)"""
# Without a cast or a subquery where a value fits: these are most columns of most tables.
_SCALE: LiteralString = """case when scale({x}) > {scale} and {x} <> {x}::{kind}
    then ftstream.inexact({place}, {label}, {x}::text)::{type} else {x} end"""
_LENGTH: LiteralString = """case when octet_length({x}) > {length} and {x} <> {x}::{kind}
    then ftstream.inexact({place}, {label}, {x}::text)::{type} else {x} end"""
# As many digits as the type itself may be written with: Java does not always find the shortest.
_FLOAT: LiteralString = """case when {x}::numeric <> {x}::{here}::text::numeric
        and length(ltrim(translate(split_part(lower({x}), 'e', 1), '+-.', ''), '0')) > {digits}
    then ftstream.inexact({place}, {label}, {x})::{type} else {x}::{here}::{type} end"""
_SPELT: LiteralString = """case when {x} like {more} then ftstream.inexact({place}, {label}, {x})::{type}
    else {x}::{type} end"""
_MORE = {"date": "%:%", "time": "%-%"}
"""What the text of a value has that says more than the type holds: a time, a date. A zone is UTC always."""
_DIGITS = {"float4": 9, "float8": 17}
_EACH: LiteralString = """case when {x} is not null then concat(array_dims({x}),
    (select array_agg({element} order by u.n)::text from unnest({x}) with ordinality as u(e, n))) end"""


def differ(here: Column, there: Column) -> bool:
    """Say whether two sites' columns are of types that may hold different values.

    Not enums: a label that one of them lacks is an error, never another label.
    """
    if here.base_kind == there.base_kind == "e" and here.is_array == there.is_array:
        return False
    return _kind(here) != _kind(there)


def inexact(here: Column, there: Column) -> bool:
    """Say whether a value of the column `here` may be one that the column `there` does not hold exactly."""
    if not differ(here, there):
        return False
    return here.is_array or there.is_array or not _holds_all(here, there)


def wire_column(here: Column, there: Column, codec_of: CodecOf) -> sql.Composed:
    """The column's definition for json_to_recordset. Raises UnsupportedType."""
    column = _looked_at(here, there) or there
    carried = codec_of(here if column is there else column)
    if column is there and (_floats(here, there) or _spelt(there, carried)):
        return sql.SQL("{} text").format(identifier(there.name))
    if column is there and _quick(there):
        carried = replace(carried, wire="")
    return codec.wire_column(column, carried)


def value(table: str, here: Column, there: Column, codec_of: CodecOf) -> sql.Composed:
    """The column's value from a record of the wire; it fails if the target does not hold it exactly.

    Raises UnsupportedType.
    """
    column = _looked_at(here, there)
    if column is not None:
        read = codec.value(column, codec_of(column))
        return _look(table, column, there, read, (here, there))
    carried = codec_of(here)
    parts = {
        "x": sql.SQL("r.{}").format(identifier(there.name)),
        "place": literal(f"{table}.{there.name}"),
        "label": literal(there.type),
        "kind": sql.SQL(there.base_type.replace("%", "%%")),
        "type": codec.type_name(there),
    }
    if _floats(here, there):
        digits = sql.Literal(_DIGITS[here.base_name])
        return sql.SQL(_FLOAT).format(here=codec.type_name(here), digits=digits, **parts)
    if _quick(there):
        if there.base_name == "numeric":
            scale = sql.Literal(_numeric(there.modifier)[1])
            return sql.SQL(_SCALE).format(scale=scale, **parts)
        return sql.SQL(_LENGTH).format(length=sql.Literal(there.modifier - 4), **parts)
    read = codec.value(there, carried)
    if _spelt(there, carried):
        read = sql.SQL(_SPELT).format(more=literal(_MORE[there.base_name]), **parts)
    return _look(table, there, there, read, (here, there)) if _rounds(there) else read


def _look(
    table: str, column: Column, there: Column, read: sql.Composed, pair: tuple[Column, Column]
) -> sql.Composed:
    kind = sql.SQL(there.base_type.replace("%", "%%"))
    y, v, w = sql.SQL("y.v"), sql.SQL("s.v"), sql.SQL("s.w")
    return sql.SQL(_LOOK).format(
        before=comparable(v, *pair),
        after=comparable(w, *pair),
        place=literal(f"{table}.{there.name}"),
        label=literal(there.type),
        type=kind,
        cast=sql.SQL("{}::{}").format(_castable(y, column, there), kind),
        value=read,
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
    if here.base_name in _FLOATS and there.base_name in _NUMBERS - {*_FLOATS} and not here.is_array:
        # As it is written: a cast of a float to numeric takes the first six digits, or fifteen.
        return replace(here, base_name="numeric", cast_type="numeric")
    if here.base_name == "float4" and not here.is_array:
        return replace(here, base_name="float8", cast_type="double precision")
    if here.builtin:
        return here
    if here.base_kind == "e" or here.base_name == "citext":
        text = "text[]" if here.is_array else "text"
        return replace(here, base_name="text", base_kind="b", cast_type=text, modifier=-1)
    return None  # its type may not be there at the target


def _rounds(there: Column) -> bool:
    """Say whether assigning to it may lose something without an error, whatever the value's type was.

    Not char(n): the blanks that it cuts are no part of its value. bit(n) raises an error by itself.
    """
    return there.modifier >= 0 and there.base_name in _ROUNDING and there.builtin


def _quick(there: Column) -> bool:
    return _rounds(there) and not there.is_array and there.base_name in ("numeric", "varchar")


def _floats(here: Column, there: Column) -> bool:
    return (
        {here.base_name, there.base_name} <= set(_FLOATS) and not there.is_array and there.builtin
    )


def _spelt(there: Column, carried: codec.Codec) -> bool:
    """Say whether a value comes as a text, of which a cast takes what the type holds."""
    plain = there.builtin and not there.is_array
    return plain and there.base_name in _MORE and carried.wire in ("", "text")


def _holds_all(here: Column, there: Column) -> bool:
    pair = (here.base_name, there.base_name)
    if here.base_kind == "e":
        return there.builtin and there.base_name in ("text", "varchar") and there.modifier < 0
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
    """Say whether a numeric with one modifier holds those with the other."""
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
    """Return what can be cast to the target's type by an explicit cast, which never fails to round."""
    if here.is_array == there.is_array:
        pair = {here.base_name, there.base_name}
        whole = there.base_name in _INTEGERS
        if len(pair) == 1 or (pair <= _NUMBERS and not whole) or pair <= _TIMES or pair <= _TEXTS:
            return x
        if pair <= _NUMBERS and not here.is_array:
            # A fraction fails to read as an integer; NaN would be an error that halts.
            return sql.SQL("trim_scale({x}::text::numeric)::text").format(x=x)
    return sql.SQL("{}::text").format(x)
