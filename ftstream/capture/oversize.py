"""Rows that are too large for Kafka: finds them, and says what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg import AsyncConnection, sql

from ftstream.flows import Table
from ftstream.postgres.catalog import Column, read_columns
from ftstream.postgres.queries import Queries, identifier, statement

_QUERIES = Queries.load(__package__, "oversize.sql")

MOST_NAMED = 20

CAUSE = "RecordTooLargeException"
"""In the trace of a task that has met one; it names neither row nor table."""


@dataclass(frozen=True, slots=True)
class LargeRow:
    """A row, and the bytes that its values take in a record."""

    table: str
    id: str
    bytes: int

    def __str__(self) -> str:
        return f"{self.table} {self.id} ({self.bytes:,} bytes)"


def told(rows: Sequence[LargeRow], limit: int, flow: str) -> str:
    """Return which rows hold up a flow, and the way on."""
    named = "; ".join(map(str, rows)) or (
        "none as External holds it now. It was shortened or deleted since, and the log has it as it was, or"
        " an update carries it twice (REPLICA IDENTITY FULL)"
    )
    return (
        f"a row is too large for Kafka, which takes {limit:,} bytes: {named}. To carry on:"
        f" ftstream connectors apply {flow} --pass-too-large"
    )


async def too_large(connection: AsyncConnection, table: Table, limit: int) -> list[LargeRow]:
    """The largest rows of a table whose values take more bytes than a record, 20 at most.

    What a row is stored in is read from its header, so that only rows which may be too large are read whole:
    no compression of PostgreSQL's gains more than 1 : 256. Raises TableMissing, psycopg.Error.
    """
    columns = [c for c in await read_columns(connection, table) if c.toastable and not c.generated]
    if not columns:
        return []
    query = statement(_QUERIES["too_large"]).format(
        table=identifier(table.schema, table.name),
        key=identifier(table.key),
        stored=_sum("pg_column_size(t.{})", columns),
        written=sql.SQL(" + ").join(map(_written, columns)),
    )
    cursor = await connection.execute(query, {"bytes": limit, "limit": MOST_NAMED})
    return [LargeRow(table.name, row[0], row[1]) for row in await cursor.fetchall()]


_HEXADECIMAL: LiteralString = "2 * octet_length({})::bigint + 5"
_TEXT: LiteralString = """case
    when pg_column_size({0}) > %(bytes)s * 8 then pg_column_size({0})
    when octet_length({0}::text) > %(bytes)s * 8 then octet_length({0}::text)
    else octet_length(to_json({0}::text)::text) end::bigint"""
"""Of the largest a bound below: as JSON, in which a byte may take six, they would pass PostgreSQL's 1 GB."""


def _written(column: Column) -> sql.Composed:
    """The bytes of a value as a JSON string."""
    hexadecimal = column.base_name == "bytea" and not column.is_array
    size = sql.SQL(_HEXADECIMAL if hexadecimal else _TEXT)
    value = sql.SQL("t.{}").format(identifier(column.name))
    return sql.SQL("coalesce({}, 0)").format(size.format(value))


def _sum(size: str, columns: Iterable[Column]) -> sql.Composed:
    sizes = (sql.SQL(size).format(identifier(column.name)) for column in columns)
    return sql.SQL(" + ").join(sql.SQL("coalesce({}, 0)").format(each) for each in sizes)
