"""How External's tables differ from the schemas that are kept for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from psycopg import AsyncConnection

from ftstream.capture.batch.avro_rows import table_schema
from ftstream.flows import Flow, Table
from ftstream.messages.avro_compatibility import ColumnDifference, differences
from ftstream.messages.avro_schema import TableSchema
from ftstream.messages.kept_schemas import KeptSchemas, Version
from ftstream.postgres.catalog import Column, read_columns


@dataclass(frozen=True, slots=True)
class Drift:
    """One table: its columns, and its schema as it is kept, if it is, and as the table has it now."""

    table: Table
    columns: Sequence[Column]
    kept: Version | None
    now: TableSchema
    differences: tuple[ColumnDifference, ...]

    @property
    def equal(self) -> bool:
        return self.kept is not None and not self.differences

    @property
    def breaks(self) -> tuple[str, ...]:
        """The incompatible differences, in words that name the column."""
        return tuple(str(each) for each in self.differences if not each.compatible)

    @property
    def compatible(self) -> bool:
        """Whether the flow may go on: every message can be read with either schema."""
        return self.kept is not None and not self.breaks

    @property
    def accepted(self) -> TableSchema:
        """The next version, marked with what it breaks."""
        return replace(self.now, breaks=self.breaks)


async def drifts(
    external: AsyncConnection, flow: Flow, kept: KeptSchemas, tables: Sequence[Table] | None = None
) -> list[Drift]:
    """Find those of these tables of the flow, or of all. Raises TableMissing, KeyMissing, SchemaFileError."""
    found = []
    for table in flow.tables if tables is None else tables:
        columns = await read_columns(external, table)
        now = table_schema(flow, table, columns)
        newest = kept.newest(table)
        before = newest.schema if newest else replace(now, fields=())
        found.append(Drift(table, columns, newest, now, differences(before, now)))
    return found
