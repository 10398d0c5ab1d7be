"""Each type travels in one way, or is refused by name; names and types go into SQL as they are.

That the values arrive as they are is shown on real databases: tests/system/test_types.py.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftstream.postgres.catalog import Column
from ftstream.postgres.codec import (
    Codec,
    UnsupportedType,
    debezium_codec,
    hides_unchanged,
    text_codec,
    value,
    wire_column,
)


def column(
    base_name: str,
    *,
    name: str = "c",
    type: str = "",
    base_kind: str = "b",
    is_array: bool = False,
    constrained: bool = False,
    dimensions: int = 0,
    domain: bool = False,
) -> Column:
    type = type or base_name + "[]" * is_array
    return Column(
        name=name,
        type=type,
        cast_type=type,
        base_name=base_name,
        base_kind=base_kind,
        is_array=is_array,
        constrained=constrained,
        generated=False,
        toastable=True,
        dimensions=dimensions,
        domain=domain,
    )


def array(
    base_name: str, *, base_kind: str = "b", dimensions: int = 1, domain: bool = False
) -> Column:
    return column(
        base_name, base_kind=base_kind, is_array=True, dimensions=dimensions, domain=domain
    )


REFUSED = [
    *(column(t) for t in ("money", "bit", "varbit", "timetz", "point", "box", "pg_lsn", "tsquery")),
    column("int4multirange", base_kind="m"),
    column("float_range", base_kind="r"),
    column("pair", base_kind="c"),
    *(
        array(t)
        for t in ("time", "timetz", "timestamp", "timestamptz", "interval", "xml", "hstore")
    ),
    array("chips", base_kind="d"),
    array("int4", dimensions=2),
    array("suit", base_kind="e", dimensions=2),
]


@pytest.mark.parametrize("refused", REFUSED, ids=lambda c: f"{c.type} {c.dimensions}")
def test_a_type_that_debezium_changes_is_refused(refused: Column) -> None:
    with pytest.raises(
        UnsupportedType, match=r"column c has type .*exclude the column in flows.py"
    ):
        debezium_codec(refused)


@pytest.mark.parametrize("refused", REFUSED, ids=lambda c: f"{c.type} {c.dimensions}")
def test_any_type_can_be_read_from_its_owner(refused: Column) -> None:
    assert text_codec(refused) == Codec("text", "{x}::{type}")


@pytest.mark.parametrize(
    ("hiding", "hides"),
    [
        *((array(t), False) for t in ("text", "varchar", "bpchar", "int4", "int8")),
        *((array(t), False) for t in ("uuid", "json", "jsonb", "date")),
        *((array(t), True) for t in ("int2", "numeric", "float4", "float8", "bool", "bytea")),
        (array("suit", base_kind="e"), True),
        (array("text", base_kind="e"), True),
        (array("text", domain=True), True),
        (column("text"), False),
        (column("jsonb", domain=True), False),
        (column("numeric"), False),
        (column("hstore"), False),
    ],
    ids=lambda case: (
        f"{case.type} {case.base_kind} {case.domain}" if isinstance(case, Column) else ""
    ),
)
def test_arrays_whose_unchanged_values_the_log_cannot_tell_are_known(
    hiding: Column, hides: bool
) -> None:
    assert hides_unchanged(hiding) is hides


def test_an_enum_named_like_a_type_travels_as_an_enum() -> None:
    assert debezium_codec(column("date", base_kind="e")) == Codec()


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("timestamp", "9223372036825200000"),
        ("timestamp", "-9223372036832400000"),
        ("date", "-2147472692"),
    ],
)
def test_infinity_of_records_written_before_debezium_3_7_is_known(type_: str, value: str) -> None:
    """They may be in Kafka for as long as it keeps them; test_types.py has those of today."""
    assert value in debezium_codec(column(type_)).value


def test_a_numeric_with_a_scale_needs_no_mapping_of_infinity() -> None:
    assert debezium_codec(column("numeric", constrained=True)) == Codec()
    assert "POSITIVE_INFINITY" in debezium_codec(column("numeric")).value


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(names)
def test_any_column_name_is_quoted_and_its_percent_signs_are_no_parameters(name: str) -> None:
    named = column("text", name=name)
    quoted = '"' + name.replace('"', '""').replace("%", "%%") + '"'
    assert wire_column(named, debezium_codec(named)).as_string() == f"{quoted} text"
    assert value(named, debezium_codec(named)).as_string() == f"r.{quoted}"


def test_percent_signs_of_a_type_are_no_parameters() -> None:
    suit = column("100%", type='"100%"', base_kind="e")
    assert wire_column(suit, debezium_codec(suit)).as_string() == '"c" "100%%"'
