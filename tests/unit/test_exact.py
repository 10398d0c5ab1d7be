"""Which columns need a look at their values: those alike, and those that hold every value, have none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ftstream.postgres.catalog import Column
from ftstream.postgres.codec import text_codec, value
from ftstream.postgres.exact import differ, inexact
from ftstream.postgres.exact import value as looked_at
from tests.unit.test_codec import array, column


def numeric(precision: int, scale: int) -> Column:
    packed = (precision << 16 | scale & 0x7FF) + 4
    kind = f"numeric({precision},{scale})"
    return replace(column("numeric", type=kind), modifier=packed, base_type=kind)


def sized(base_name: str, modifier: int) -> Column:
    return replace(column(base_name), modifier=modifier, base_type=f"{base_name}({modifier})")


ALIKE = [
    column("text"),
    sized("bpchar", 7),
    sized("bit", 7),
    column("timestamp"),
    array("int4"),
    column("x", base_kind="e"),
]
LOSING = [
    numeric(5, 2),
    sized("varchar", 7),
    sized("timestamp", 3),
    sized("time", 0),
    sized("interval", 3),
    column("float4"),
    column("float8"),
    column("date"),
    column("time"),
]
HOLDING = [
    (column("int4"), column("int8")),
    (column("int8"), column("numeric")),
    (column("float4"), column("float8")),
    (numeric(5, 2), numeric(9, 4)),
    (numeric(5, -2), numeric(9, 0)),
    (numeric(5, 2), column("numeric")),
    (sized("varchar", 7), sized("varchar", 14)),
    (sized("varchar", 7), column("text")),
    (sized("bpchar", 7), sized("bpchar", 9)),
    (sized("timestamp", 3), sized("timestamp", 6)),
    (sized("timestamptz", 3), column("timestamptz")),
    (column("date"), column("timestamp")),
    (column("mood", base_kind="e"), column("text")),
]
ROUNDING = [
    (numeric(9, 4), numeric(5, 2)),
    (numeric(9, 2), numeric(9, 4)),  # fewer digits before the point
    (numeric(5, 0), numeric(5, -2)),
    (column("numeric"), numeric(9, 4)),
    (column("int8"), column("float8")),
    (column("int8"), numeric(9, 0)),
    (column("float8"), column("float4")),
    (column("text"), sized("varchar", 7)),
    (sized("bpchar", 7), column("text")),  # it may hold blanks that are none
    (column("timestamp"), sized("timestamp", 3)),
    (column("timestamptz"), column("date")),
    (column("json"), column("jsonb")),
    (column("interval"), sized("interval", 3)),
    (array("float8"), array("float4")),
]


@pytest.mark.parametrize("each", ALIKE, ids=lambda c: c.type)
def test_columns_that_are_alike_are_written_as_ever(each: Column) -> None:
    assert not differ(each, each) and not inexact(each, each)
    assert looked_at("t", each, each, text_codec) == value(each, text_codec(each))


@pytest.mark.parametrize("each", LOSING, ids=lambda c: c.base_type or c.type)
def test_column_that_can_lose_something_is_looked_at_where_it_is_alike_too(each: Column) -> None:
    """The source's may be altered before the catalogs are read again."""
    assert not differ(each, each) and not inexact(each, each)
    assert "ftstream.inexact('t.c'" in looked_at("t", each, each, text_codec).as_string(None)


@pytest.mark.parametrize(("here", "there"), HOLDING, ids=lambda c: c.base_type or c.type)
def test_column_that_holds_every_value_is_compared_as_equal(here: Column, there: Column) -> None:
    assert differ(here, there) and not inexact(here, there)


@pytest.mark.parametrize(("here", "there"), ROUNDING, ids=lambda c: c.base_type or c.type)
def test_column_that_may_round_or_cut_is_looked_at(here: Column, there: Column) -> None:
    assert inexact(here, there)
    text = looked_at("t", here, there, text_codec).as_string(None)
    assert "ftstream.inexact('t.c'" in text


def test_labels_of_enums_are_never_rounded() -> None:
    one, other = column("one", base_kind="e"), column("other", base_kind="e")
    assert not differ(one, other)
