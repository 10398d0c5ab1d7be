"""Messages in Avro: what is refused before it is written, and whatever may come out of a topic."""

from __future__ import annotations

import io
import itertools
import json
import math
import tracemalloc
from collections.abc import Mapping
from typing import Any

import avro.io
import avro.schema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftstream.messages.avro import Value, ValueRefused, decode, encode
from ftstream.messages.avro_schema import AvroKind, Field, TableSchema
from ftstream.messages.change import Change, MalformedMessage, Operation

TABLE = "wsop_chip_counts"
ID = "6f1c8a5e-0000-4000-8000-000000000001"
SCHEMA = TableSchema(
    "wsop",
    TABLE,
    (
        Field("id", AvroKind.STRING),
        Field("yes", AvroKind.BOOLEAN),
        Field("rank", AvroKind.INT),
        Field("chip count", AvroKind.LONG),
        Field("ratio", AvroKind.DOUBLE),
        Field("raw", AvroKind.BYTES),
        Field("stack", AvroKind.STRING),
    ),
)
ROW: Mapping[str, Value] = {
    "id": ID,
    "yes": False,
    "rank": -(2**31),
    "chip count": 2**63 - 1,
    "ratio": 0.1,
    "raw": b"\x00\xff",
    "stack": '20.00 "é"',
}
AT = 1_795_514_400_123_456

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
rows = st.fixed_dictionaries(
    {
        "id": st.just(ID),
        "yes": st.none() | st.booleans(),
        "rank": st.none() | st.integers(-(2**31), 2**31 - 1),
        "chip count": st.none() | st.integers(-(2**63), 2**63 - 1),
        "ratio": st.none() | st.floats(),
        "raw": st.none() | st.binary(),
        "stack": st.none() | text,
    }
)


def message(
    row: Mapping[str, Value] | None = ROW, operation: Operation = Operation.UPDATE
) -> bytes:
    return encode(SCHEMA, operation, ID, AT, row)


def read(value: bytes | None, *, table: str = TABLE, key: bytes | None = ID.encode()) -> Change:
    return decode({SCHEMA.fingerprint: SCHEMA}, table, "wsop.t", 3, 7, key, value)


def test_a_row_becomes_the_image_that_postgresql_reads() -> None:
    change = read(message())
    assert change == Change(
        table=TABLE,
        entity_id=ID,
        operation=Operation.UPDATE,
        image=change.image,
        partial=False,
        topic="wsop.t",
        partition=3,
        offset=7,
        source_position=None,
        source_time=AT,
        message=message(),
    )
    assert json.loads(change.image or b"") == {
        "id": ID,
        "yes": "false",
        "rank": "-2147483648",
        "chip count": "9223372036854775807",
        "ratio": "0.1",
        "raw": "\\x00ff",
        "stack": '20.00 "é"',
    }


def test_a_delete_is_a_message_without_a_row() -> None:
    change = read(message(None, Operation.DELETE))
    assert (change.operation, change.image, change.source_time) == (Operation.DELETE, None, AT)


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (math.nan, "nan"),
        (-0.0, "-0.0"),
        (5e-324, "5e-324"),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_a_double_is_written_as_postgresql_reads_it(number: float, written: str) -> None:
    image = json.loads(read(message({**ROW, "ratio": number})).image or b"")
    assert image["ratio"] == written


@given(rows)
def test_every_row_comes_back(row: dict[str, Value]) -> None:
    image = json.loads(read(message(row)).image or b"")
    assert {name for name, value in image.items() if value is None} == {
        name for name, value in row.items() if value is None
    }
    for name in ("rank", "chip count"):
        assert row[name] is None or int(image[name]) == row[name]
    if row["ratio"] is not None:
        assert isinstance(row["ratio"], float)
        assert math.isnan(row["ratio"]) or float(image["ratio"]) == row["ratio"]
    assert image["stack"] == row["stack"]
    assert row["raw"] is None or bytes.fromhex(image["raw"].removeprefix("\\x")) == row["raw"]


@given(rows)
def test_another_reader_of_avro_reads_the_same(row: dict[str, Value]) -> None:
    value = message(row)
    assert value[:10] == b"\xc3\x01" + SCHEMA.fingerprint
    reader = avro.io.DatumReader(avro.schema.parse(SCHEMA.text))
    record: Any = reader.read(avro.io.BinaryDecoder(io.BytesIO(value[10:])))
    assert (record["op"], record["id"], record["read_at"]) == ("update", ID, AT)
    for field, name in zip(SCHEMA.fields, SCHEMA.names, strict=True):
        assert repr(record["row"][name]) == repr(row[field.column])


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("rank", True, "rank is of type bool, which is no int"),
        ("rank", 1.0, "rank is of type float, which is no int"),
        ("rank", 2**31, "rank is 2147483648, which no int can hold"),
        ("rank", -(2**31) - 1, "rank is -2147483649, which no int"),
        ("rank", "1", "rank is of type str"),
        ("chip count", 2**63, "chip count is 9223372036854775808, which no long"),
        ("chip count", 1.5, "chip count is of type float"),
        ("yes", 1, "yes is of type int, which is no boolean"),
        ("ratio", 1, "ratio is of type int, which is no double"),
        ("raw", "abc", "raw is of type str, which is no bytes"),
        ("raw", bytearray(b"abc"), "raw is of type bytearray"),
        ("stack", b"abc", "stack is of type bytes, which is no string"),
        ("stack", 20, "stack is of type int"),
        ("stack", "a\0b", "stack has a character that PostgreSQL cannot hold"),
        ("stack", "\ud800", "stack is no Unicode text"),
        ("nickname", None, "the schema has no nickname"),
    ],
)
def test_a_value_that_would_change_is_refused(column: str, value: Any, reason: str) -> None:
    with pytest.raises(ValueRefused, match=f"^{TABLE} {ID}: .*{reason}"):
        message({**ROW, column: value})


def test_a_column_that_is_missing_is_refused() -> None:
    with pytest.raises(ValueRefused, match=f"{TABLE} {ID}: rank is missing"):
        message({name: value for name, value in ROW.items() if name != "rank"})


@pytest.mark.parametrize(
    ("operation", "row"),
    [(Operation.DELETE, ROW), (Operation.UPDATE, None), (Operation.TRUNCATE, None)],
)
def test_an_operation_must_fit_its_row(
    operation: Operation, row: Mapping[str, Value] | None
) -> None:
    with pytest.raises(ValueRefused, match=str(operation)):
        message(row, operation)


@pytest.mark.parametrize("read_at", [-1, 2**53 + 1])
def test_a_time_that_no_clock_shows_is_refused(read_at: int) -> None:
    with pytest.raises(ValueRefused, match="read_at"):
        encode(SCHEMA, Operation.DELETE, ID, read_at, None)


OLD = TableSchema("wsop", TABLE, (Field("id", AvroKind.STRING), Field("stack", AvroKind.LONG)))


def test_an_old_message_says_nothing_of_newer_columns() -> None:
    """And its values are read although they travel as another type since."""
    old = encode(OLD, Operation.UPDATE, ID, AT, {"id": ID, "stack": 20})
    kept = {schema.fingerprint: schema for schema in (OLD, SCHEMA)}
    change = decode(kept, TABLE, "t", 0, 0, ID.encode(), old)
    assert json.loads(change.image or b"") == {"id": ID, "stack": "20"}


def test_an_unknown_schema_is_named_with_what_to_do() -> None:
    old = encode(OLD, Operation.DELETE, ID, AT, None)
    with pytest.raises(MalformedMessage, match=f"{OLD.fingerprint.hex()}; give this worker"):
        read(old)


def body(data: bytes) -> bytes:
    return b"\xc3\x01" + SCHEMA.fingerprint + data


HEAD = message()[: 10 + 1 + 1 + len(ID) + 8]
"""Up to where the row begins: operation, id and time."""


def test_the_head_is_where_it_is_taken_to_be() -> None:
    assert message(None, Operation.DELETE) == HEAD.replace(b"\x02H", b"\x04H", 1) + b"\x00"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "not an Avro message"),
        (b"", "not an Avro message"),
        (b'{"op":"u"}', "not an Avro message"),
        (b"\xc3\x01" + SCHEMA.fingerprint[:7], "not an Avro message"),
        (b"\xc3\x01" + b"\0" * 8, "a schema that is not kept here: fingerprint 0000000000000000"),
        (body(b""), "cut short"),
        (message()[:-1], "cut short"),
        (message() + b"\0", "1 bytes after the end"),
        (message() + message(), "bytes after the end"),
        (body(b"\x02" + b"\xfe" + b"\xff" * 8 + b"\x01abc"), "cut short"),  # 2^63 - 1 bytes
        (body(b"\x02\x01abc"), "cut short"),  # -1 bytes
        (body(b"\x02" + b"\x80" * 1_000_000), "in the middle of a number"),
        (
            body(b"\x06\x00\x00\x00"),
            "an operation or a type that there is not",
        ),  # the fourth of three operations
        (body(b"\x01\x00\x00\x00"), "as a writer would have it"),  # the last but none
        (body(b"\x02\x04\xff\xfe\x00\x00"), "not a record"),  # not UTF-8
        (HEAD + b"\x04", "an operation or a type that there is not"),  # the third of two types
        (HEAD + b"\x03", "an update without its row"),  # the second last of them
        (HEAD + b"\x00", "an update without its row"),
        (HEAD.replace(b"\x02H", b"\x04H", 1) + message()[len(HEAD) :], "a delete with a row"),
    ],
    ids=itertools.count(),
)
def test_what_is_no_message_is_refused_in_words(value: bytes | None, reason: str) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        read(value)


def with_field(name: str, data: bytes) -> bytes:
    """A message whose row holds nothing but its id and the bytes of one field."""
    parts = {"id": b"\x02" + b"H" + ID.encode(), name: b"\x02" + data}
    return HEAD + b"\x02" + b"".join(parts.get(f.column, b"\x00") for f in SCHEMA.fields)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("rank", b"\x80\x80\x80\x80\x20", "rank is 4294967296, which no int"),
        ("rank", b"\x82\x00", "as a writer would have it"),  # 1 in two bytes
        ("chip count", b"\xff" * 10 + b"\x01", "as a writer would have it"),
        ("yes", b"\x02", "as a writer would have it"),
        ("stack", b"\x02\x00", "stack has a character that PostgreSQL cannot hold"),
        ("stack", b"\x06\xed\xa0\x80", "not a record"),  # half of a pair
        ("ratio", b"\x00", "cut short"),
    ],
)
def test_a_field_that_no_writer_writes_is_refused(name: str, data: bytes, reason: str) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        read(with_field(name, data))


def test_a_declared_length_allocates_nothing() -> None:
    tracemalloc.start()
    try:
        for size in (b"\xfe\xff\xff\xff\x0f", b"\xfe" + b"\xff" * 8 + b"\x01"):
            with pytest.raises(MalformedMessage, match="cut short"):
                read(with_field("raw", size))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("key", "table", "reason"),
    [
        (None, TABLE, "without a key"),
        (b"other", TABLE, "the key is that of another row"),
        (b"\xff", TABLE, "not a change event"),
        (ID.encode(), "wsop_events", f"a change of table '{TABLE}' among those of wsop_events"),
    ],
)
@pytest.mark.parametrize("value", [message(), message(None, Operation.DELETE)], ids=["row", "none"])
def test_a_message_under_another_key_or_table_is_refused(
    key: bytes | None, table: str, reason: str, value: bytes
) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        read(value, table=table, key=key)


def test_the_row_must_be_the_one_that_the_message_names() -> None:
    with pytest.raises(MalformedMessage, match="another row"):
        read(message({**ROW, "id": "other"}))
    with pytest.raises(MalformedMessage, match="without its row"):
        read(message({**ROW, "id": None}))


@given(st.binary())
def test_whatever_a_body_is_it_is_read_or_refused(data: bytes) -> None:
    assert_read_or_refused(body(data))


@given(rows, st.data())
def test_a_message_that_was_tampered_with_is_read_or_refused(
    row: dict[str, Value], data: st.DataObject
) -> None:
    value = bytearray(message(row))
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(10, len(value) - 1))] = data.draw(st.integers(0, 255))
    assert_read_or_refused(bytes(value))


def assert_read_or_refused(value: bytes) -> None:
    try:
        change = read(value)
    except MalformedMessage:
        return
    assert change.entity_id == ID
    assert change.message == value
