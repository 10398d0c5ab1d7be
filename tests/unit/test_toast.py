"""Placeholders of unchanged large values are found in every form, and data is never taken for one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftstream.messages import toast

encode = msgspec.json.encode

FORMS = {
    "text": rb'"\u0000ftstream: unchanged value"',
    "text[]": rb'["\u0000ftstream: unchanged value"]',
    "hex": b'"00667473747265616d3a20756e6368616e6765642076616c7565"',
    "hstore": rb'"{\"\\u0000ftstream: unchanged value\":\"\\u0000ftstream: unchanged value\"}"',
    "int[]": b"[0,102,116,115,116,114,101,97,109,58,32,117,110,99,104,97,110,103,101,100,"
    b"32,118,97,108,117,101]",
    "uuid[]": b'["bf43d27a-c247-3c5b-aa59-a980e6da2de6"]',
}
"""As Debezium writes them, by type; in hex where it writes bytea so."""

# PostgreSQL's text holds any character but the one that the placeholder begins with.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
scalars = st.none() | st.booleans() | st.integers() | texts
values = scalars | st.lists(scalars) | st.dictionaries(texts, texts)
rows = st.dictionaries(texts, values)
holes = st.dictionaries(texts, st.sampled_from(sorted(FORMS.values())))


def image(columns: dict[str, bytes]) -> bytes:
    return encode({name: msgspec.Raw(raw) for name, raw in columns.items()})


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_the_placeholder_is_found(form: bytes) -> None:
    row = image({"id": b"1", "large": form})
    assert toast.may_be_partial(row)
    assert toast.split(row) == ({"id": msgspec.Raw(b"1")}, frozenset({"large"}))


@given(rows)
def test_no_value_that_postgresql_can_hold_is_taken_for_a_placeholder(
    row: dict[str, object],
) -> None:
    assert toast.split(encode(row))[1] == frozenset()


@pytest.mark.parametrize(
    "typed",
    [
        "__debezium_unavailable_value",
        "ftstream: unchanged value",
        r"\u0000ftstream: unchanged value",
    ],
)
def test_a_placeholder_that_somebody_typed_is_data(typed: str) -> None:
    assert toast.split(encode({"name": typed, "names": [typed]}))[1] == frozenset()


@given(rows, holes)
def test_split_keeps_what_is_there_and_names_what_is_not(
    row: dict[str, object], missing: dict[str, bytes]
) -> None:
    there = {name: encode(v) for name, v in row.items() if name not in missing}
    row_image = image(there | missing)
    columns, names = toast.split(row_image)
    assert {name: bytes(raw) for name, raw in columns.items()} == there
    assert names == missing.keys()
    assert toast.may_be_partial(row_image) or not names


@pytest.mark.parametrize("number", [b"20.00", b"1e400", b"638000000000000001", b"-0.0"])
def test_numbers_keep_their_digits(number: bytes) -> None:
    columns, _ = toast.split(b'{"n":' + number + b"}")
    assert toast.join(columns) == b'{"n":' + number + b"}"


def test_a_patch_names_the_columns_to_leave_alone() -> None:
    patch = toast.patch({"id": msgspec.Raw(b"1")}, frozenset({"b", "a"}))
    assert msgspec.json.decode(patch) == {"id": 1, toast.UNAVAILABLE_FIELD: ["a", "b"]}
