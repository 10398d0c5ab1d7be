"""Whether messages of one version of a table's schema can be read with another, both ways (FULL)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from ftstream.messages.avro_schema import AvroKind, Field, TableSchema

_Checker: Any = ReaderWriterCompatibilityChecker  # it has no types

# Avro reads bytes as a string and a string as bytes. Here a string is PostgreSQL's text of a value, which
# for bytea is hexadecimal: the same bytes would become another value.
_OTHER_MEANING = {AvroKind.BYTES, AvroKind.STRING}


@dataclass(frozen=True, slots=True)
class ColumnDifference:
    """A column that travels otherwise, or in one of two versions only."""

    column: str
    was: AvroKind | None
    now: AvroKind | None
    compatible: bool

    def __str__(self) -> str:
        if self.was is None:
            return f"{self.column}: new ({self.now})"
        if self.now is None:
            return f"{self.column}: removed (was {self.was})"
        return f"{self.column}: {self.was} became {self.now}"


def differences(before: TableSchema, after: TableSchema) -> tuple[ColumnDifference, ...]:
    """Return what differs between two versions, by column.

    Columns of one Kind do not differ, whatever their types in PostgreSQL: their values are text, of which
    the target's type makes what it holds, or refuses it.
    """
    if (before.flow, before.table) != (after.flow, after.table):
        raise ValueError(f"schemas of two tables: {before.table} and {after.table}")
    old = {field.column: field for field in before.fields}
    new = {field.column: field for field in after.fields}
    found: list[ColumnDifference] = []
    for column in sorted(old.keys() | new.keys()):
        was, now = old.get(column), new.get(column)
        if was != now:
            compatible = _full(_alone(before, was), _alone(before, now))
            kinds = (was.kind if was else None, now.kind if now else None)
            found.append(
                ColumnDifference(column, *kinds, compatible and set(kinds) != _OTHER_MEANING)
            )
    return tuple(found)


def unaccepted(versions: Sequence[TableSchema]) -> list[str]:
    """The incompatible differences between versions in their order, but those marked as accepted."""
    return [
        str(difference)
        for before, after in itertools.pairwise(versions)
        for difference in differences(before, after)
        if not difference.compatible and str(difference) not in after.breaks
    ]


def _alone(schema: TableSchema, field: Field | None) -> TableSchema:
    """The schema with this field only, so that what the checker finds is about it."""
    return replace(schema, fields=() if field is None else (field,))


def _full(one: TableSchema, other: TableSchema) -> bool:
    """Say whether a reader of each can read what the other has written.

    Checker and schemas are new each time: it remembers pairs by the identity of their objects.
    """
    first, second = (avro.schema.parse(json.dumps(each.document)) for each in (one, other))
    verdicts = (
        _Checker().get_compatibility(first, second),
        _Checker().get_compatibility(second, first),
    )
    return all(each.compatibility is SchemaCompatibilityType.compatible for each in verdicts)
