"""The Avro schema of a table's messages, derived from its columns, and read back from its file.

A message is a record of the operation, the row's id, when the row was read, and the row:

    {op: insert | update | delete, id: string, read_at: long, row: null | {column: null | value, ...}}

A delete is a record like any other, without a row: Kafka's own way, a message without a value, could not
say when the row was found to be gone. The row is nested, so that no column clashes with the other fields.

Every field of the row may be null and is null by default, so that a new column, and one that is gone, are
compatible changes. Fields are in the order of their names: tables that differ in the order of their columns
alone have the same schema.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

NAMESPACE = "ftstream"

PRIMITIVE_TYPES = frozenset(
    ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
)

OPERATIONS = ("insert", "update", "delete")


class SchemaFileError(ValueError):
    """A schema file is not one that ftstream has written; the message says why."""


class AvroKind(enum.StrEnum):
    """How a column's value travels. All but these types travel as PostgreSQL's own text."""

    BOOLEAN = "boolean"
    INT = "int"
    LONG = "long"
    DOUBLE = "double"
    BYTES = "bytes"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class Field:
    """One column of a row."""

    column: str
    kind: AvroKind


@dataclass(frozen=True)
class TableSchema:
    """What a table's messages hold.

    `breaks`: the differences to the version before that somebody has accepted although a reader of one
    version cannot read messages of the other, in the words of `messages/avro_compatibility.py`.
    """

    flow: str
    table: str
    fields: tuple[Field, ...]
    breaks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(sorted(self.fields, key=lambda f: f.column)))

    @property
    def document(self) -> dict[str, Any]:
        """The schema as Avro has it; attributes that Avro does not know are passed over by readers."""
        name, namespace = _record_name(self.table), f"{NAMESPACE}.{self.flow}"
        inner = self.row_type.rpartition(".")[0]
        operation = {
            "type": "enum",
            "name": "operation",
            "namespace": inner,
            "symbols": list(OPERATIONS),
        }
        row = {
            "type": "record",
            "name": "row",
            "namespace": inner,
            "fields": [
                {"name": name, "type": ["null", field.kind.value], "default": None}
                for field, name in zip(self.fields, self.names, strict=True)
            ],
        }
        return {
            "type": "record",
            "name": name,
            "namespace": namespace,
            **({"breaks": list(self.breaks)} if self.breaks else {}),
            "fields": [
                {"name": "op", "type": operation},
                {"name": "id", "type": "string"},
                {"name": "read_at", "type": "long", "doc": "microseconds since 1970"},
                {"name": "row", "type": ["null", row], "default": None},
            ],
        }

    @property
    def text(self) -> str:
        """The contents of its file: a column a line, so that a comparison of versions shows columns."""
        text = json.dumps(self.document, indent=2, ensure_ascii=False) + "\n"
        return _COLUMN.sub(lambda found: _SPACE.sub(" ", found[0]), text)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The fields' names in Avro."""
        return tuple(avro_name(field.column) for field in self.fields)

    @cached_property
    def row_type(self) -> str:
        """The full name of the row's record."""
        return f"{NAMESPACE}.{self.flow}.{_record_name(self.table)}.row"

    @cached_property
    def parsed(self) -> Any:
        """For fastavro."""
        return fastavro.parse_schema(self.document)

    @cached_property
    def fingerprint(self) -> bytes:
        """CRC-64-AVRO of the parsing canonical form, little endian as it travels.

        It covers names, types and their order, which are all that reading takes, and nothing else:
        https://avro.apache.org/docs/1.12.0/specification/#schema-fingerprints
        """
        canonical = to_parsing_canonical_form(self.document)
        return bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))


def parse(text: str) -> TableSchema:
    """The schema in a file. Raises SchemaFileError unless it is as ftstream writes it."""
    try:
        document = json.loads(text)
        *_, row = document["fields"]
        found = TableSchema(
            flow=document["namespace"].removeprefix(f"{NAMESPACE}."),
            table=plain_name(document["name"]),
            fields=tuple(map(_field, row["type"][1]["fields"])),
            breaks=tuple(document.get("breaks", ())),
        )
        same = found.document == document and len(set(found.names)) == len(found.names)
    except json.JSONDecodeError as error:
        raise SchemaFileError(f"not JSON: {error}") from error
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise SchemaFileError(f"not a schema of a table: {error!r}") from error
    if not same:
        raise SchemaFileError("not as `ftstream schemas accept` writes it: was it edited?")
    return found


def _field(field: Any) -> Field:
    return Field(plain_name(field["name"]), AvroKind(field["type"][1]))


# Strings of JSON hold no line feed, so that only space between values is meant.
_COLUMN = re.compile(r'\{\n +"name": [^\n]*\n +"type": \[\n +"null",\n +"\w+"\n +\],[^}]*\}')
_SPACE = re.compile(r"\n +")

# Avro takes A-Z a-z 0-9 and _, PostgreSQL takes any character. An underscore that would be read as the
# beginning of such an escape is escaped itself.
_ESCAPED = re.compile(r"^[0-9]|[^A-Za-z0-9_]|_(?=u[0-9a-f])")
_ESCAPE = re.compile(r"_u([0-9a-f]{1,6})_")


def avro_name(name: str) -> str:
    """A column's or table's name as Avro allows it; most stay as they are."""
    return _ESCAPED.sub(lambda found: f"_u{ord(found[0]):x}_", name)


def _record_name(table: str) -> str:
    """A table's name for a record: Avro's own types keep theirs in every namespace."""
    name = avro_name(table)
    return f"_u{ord(name[0]):x}_{name[1:]}" if name in PRIMITIVE_TYPES else name


def plain_name(name: str) -> str:
    """The inverse of avro_name."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), name)


def by_fingerprint(schemas: Sequence[TableSchema]) -> dict[bytes, TableSchema]:
    """For a reader. Raises SchemaFileError if two schemas that differ have the same."""
    found: dict[bytes, TableSchema] = {}
    for schema in schemas:
        other = found.setdefault(schema.fingerprint, schema)
        if (other.flow, other.table, other.fields) != (schema.flow, schema.table, schema.fields):
            raise SchemaFileError(
                f"schemas of {other.table} and {schema.table} have the fingerprint"
                f" {schema.fingerprint.hex()} both"
            )
    return found
