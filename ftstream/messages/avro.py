"""How a row becomes an Avro message, and a message a change: single-object encoding.

https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding: two bytes, the fingerprint of the
writer's schema, the record.

A message is read with the schema that wrote it, and is not resolved to the newest one: that would put NULL
into each column that was added since, of which the message says nothing and which must stay as it is in the
target, and could not read what was written before an incompatible change. Values become text all the same,
of which the target's column makes what it holds.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any, assert_never

import fastavro
import msgspec

from ftstream.messages.avro_schema import OPERATIONS, AvroKind, TableSchema
from ftstream.messages.change import Change, MalformedMessage, Operation, checked_key

Value = bool | int | float | str | bytes | None

_MAGIC = b"\xc3\x01"
_HEAD = len(_MAGIC) + 8

_RANGES = {AvroKind.INT: range(-(2**31), 2**31), AvroKind.LONG: range(-(2**63), 2**63)}
_TYPES: Mapping[AvroKind, type] = {
    AvroKind.BOOLEAN: bool,
    AvroKind.INT: int,
    AvroKind.LONG: int,
    AvroKind.DOUBLE: float,
    AvroKind.BYTES: bytes,
    AvroKind.STRING: str,
}
_LATEST = 2**53
"""Microseconds: the year 2255, as of every time in a topic."""


class ValueRefused(Exception):
    """A value that its field cannot hold; the message names table, row and column."""


def encode(
    schema: TableSchema,
    operation: Operation,
    entity_id: str,
    read_at: int,
    row: Mapping[str, Value] | None,
) -> bytes:
    """A message: `row` has a value for each column of the schema, and is None for a delete.

    `read_at`: when the snapshot was taken in which the row was found so, in microseconds since 1970.
    Raises ValueRefused.
    """
    if operation not in OPERATIONS or (row is None) is not (operation is Operation.DELETE):
        raise ValueRefused(f"{schema.table} {entity_id}: an {operation} with such a row")
    if not 0 <= read_at <= _LATEST:
        raise ValueRefused(f"{schema.table} {entity_id}: read_at is {read_at}")
    if fault := _text_fault(entity_id):
        raise ValueRefused(f"{schema.table} {entity_id!r}: the id {fault}")
    fields = None if row is None else _fields(schema, entity_id, row)
    record = {"op": operation.value, "id": entity_id, "read_at": read_at, "row": fields}
    return _written(schema, record)


def decode(
    schemas: Mapping[bytes, TableSchema],
    table: str,
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
) -> Change:
    """The change that a message of this table holds; `schemas` by fingerprint.

    Its image has each value as PostgreSQL's text, as a JSON string or null. Raises MalformedMessage.
    """
    value = value or b""
    schema = _schema_of(schemas, table, value)
    record = _read(schema, value)
    operation = Operation(record["op"])
    row: dict[str, Value] | None = record["row"]
    if (row is None) is not (operation is Operation.DELETE):
        raise MalformedMessage(
            f"an {operation} without its row" if row is None else "a delete with a row"
        )
    if not 0 <= record["read_at"] <= _LATEST:
        raise MalformedMessage("a time that no clock shows")
    image = None if row is None else _image(schema, record["id"], row)
    # fastavro also reads what nobody writes: numbers in more bytes than they need, a branch or a symbol
    # counted from the end.
    if _written(schema, record) != value:
        raise MalformedMessage(f"not a record of {table} as a writer would have it")
    entity_id = checked_key(key, image)
    if record["id"] != entity_id:
        raise MalformedMessage("the key is that of another row")
    return Change(
        table,
        entity_id,
        operation,
        image,
        False,
        topic,
        partition,
        offset,
        source_position=None,
        source_time=record["read_at"],
        message=value,
    )


def _schema_of(schemas: Mapping[bytes, TableSchema], table: str, value: bytes) -> TableSchema:
    if len(value) < _HEAD or not value.startswith(_MAGIC):
        raise MalformedMessage("not an Avro message: it does not begin with C3 01 and a schema")
    fingerprint = value[len(_MAGIC) : _HEAD]
    schema = schemas.get(fingerprint)
    if schema is None:
        raise MalformedMessage(
            f"written with a schema that is not kept here: fingerprint {fingerprint.hex()}; give this worker"
            " the schema files of the one that wrote it (connectors/schemas, or schemas.folder), and retry:"
            " ftstream dead retry --all"
        )
    if schema.table != table:
        raise MalformedMessage(f"a change of table {schema.table!r} among those of {table}")
    return schema


def _written(schema: TableSchema, record: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    out.write(_MAGIC + schema.fingerprint)
    if (row := record["row"]) is not None:
        # Named, so that fastavro need not try which of the union's types the row is.
        record = {**record, "row": (schema.row_type, row)}
    fastavro.schemaless_writer(out, schema.parsed, record, strict=True)
    return out.getvalue()


def _read(schema: TableSchema, value: bytes) -> dict[str, Any]:
    """The record. A length that a message declares allocates nothing: only what is there is read."""
    body = io.BytesIO(value)
    body.seek(_HEAD)
    try:
        record = fastavro.schemaless_reader(body, schema.parsed, None)
    except EOFError as error:
        raise MalformedMessage("the message is cut short") from error
    except LookupError as error:
        raise MalformedMessage(
            "the message ends in the middle of a number, or counts to an operation or a type that there"
            " is not"
        ) from error
    except (ValueError, OverflowError) as error:
        raise MalformedMessage(f"not a record of {schema.table}: {error}") from error
    if (rest := len(value) - body.tell()) > 0:
        raise MalformedMessage(f"{rest} bytes after the end of the record")
    assert isinstance(record, dict)
    return record


def _fields(schema: TableSchema, entity_id: str, row: Mapping[str, Value]) -> dict[str, Value]:
    """The row by Avro's names. Raises ValueRefused."""
    about = f"{schema.table} {entity_id}"
    if unknown := row.keys() - {field.column for field in schema.fields}:
        raise ValueRefused(f"{about}: the schema has no {', '.join(sorted(unknown))}")
    fields: dict[str, Value] = {}
    for field, name in zip(schema.fields, schema.names, strict=True):
        if field.column not in row:
            raise ValueRefused(f"{about}: {field.column} is missing")
        value = fields[name] = row[field.column]
        if fault := _fault(value, field.kind):
            raise ValueRefused(f"{about}: {field.column} {fault}")
    return fields


def _fault(value: Value, kind: AvroKind) -> str:
    """Why the value cannot travel so, or nothing: fastavro writes True and 1.5 as 1, and 2^31 into an int."""
    if value is None:
        return ""
    if type(value) is not _TYPES[kind]:
        return f"is of type {type(value).__name__}, which is no {kind}"
    if isinstance(value, str):
        return _text_fault(value)
    if isinstance(value, int) and kind in _RANGES and value not in _RANGES[kind]:
        return f"is {value}, which no {kind} can hold"
    return ""


def _text_fault(value: str) -> str:
    if "\0" in value:
        return "has a character that PostgreSQL cannot hold (U+0000)"
    try:
        if not value.isascii():
            value.encode()
    except UnicodeEncodeError as error:
        return f"is no Unicode text: {error.reason}"
    return ""


def _image(schema: TableSchema, entity_id: str, row: Mapping[str, Value]) -> bytes:
    image: dict[str, str | None] = {}
    for field, name in zip(schema.fields, schema.names, strict=True):
        value = row[name]
        if fault := _fault(value, field.kind):
            raise MalformedMessage(f"{schema.table} {entity_id}: {field.column} {fault}")
        image[field.column] = _text(value)
    return msgspec.json.encode(image)


def _text(value: Value) -> str | None:
    """The value as PostgreSQL reads it, whatever the session's settings are."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        case float():
            return repr(value)  # the shortest form that reads as the same number
        case bytes():
            return f"\\x{value.hex()}"
        case _ as never:
            assert_never(never)
