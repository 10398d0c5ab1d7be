"""How each column of a table goes into an Avro record, and the reading of rows for it.

Any type can travel: what Avro does not hold exactly is PostgreSQL's own text, read with the settings of
`exact_text`, and read back by the target's column with the same.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import LiteralString

from psycopg import AsyncConnection, sql

from ftstream.flows import Flow, Table
from ftstream.messages.avro import Value
from ftstream.messages.avro_schema import AvroKind, Field, TableSchema
from ftstream.postgres.catalog import Column, KeyMissing
from ftstream.postgres.codec import type_name
from ftstream.postgres.connection import SESSION
from ftstream.postgres.queries import Queries, identifier, statement

_QUERIES = Queries.load(__package__, "avro_rows.sql")

FIRST_ROWS, MOST_ROWS = 16, 512
MOST_BYTES = 4 * 2**20
"""Read at once: ever more rows, as long as they come to no more bytes."""

# Not float4: its shortest text is exact, as a double it would show digits that it does not have.
_KINDS = {
    "bool": AvroKind.BOOLEAN,
    "int2": AvroKind.INT,
    "int4": AvroKind.INT,
    "int8": AvroKind.LONG,
    "float8": AvroKind.DOUBLE,
    "bytea": AvroKind.BYTES,
}


def table_schema(flow: Flow, table: Table, columns: Sequence[Column]) -> TableSchema:
    """The schema of this table's messages as the table is now; generated columns do not travel.

    Raises KeyMissing.
    """
    fields = tuple(Field(c.name, _kind(c)) for c in columns if not c.generated)
    if table.key not in {field.column for field in fields}:
        raise KeyMissing(f"{table.qualified}.{table.key} is not a plain column of External")
    return TableSchema(flow.name, table.name, fields)


async def read_rows(
    connection: AsyncConnection, table: Table, columns: Sequence[Column], ids: Iterable[str]
) -> AsyncGenerator[tuple[str, dict[str, Value]]]:
    """Id and values, as `messages.avro.encode` takes them, of those that exist, in no order.

    Only so many are in memory at a time as MOST_BYTES says, or one.
    """
    plain = [column for column in columns if not column.generated]
    key = next(column for column in plain if column.name == table.key)
    query = statement(_QUERIES["rows"]).format(
        table=identifier(table.schema, table.name),
        key=identifier(table.key),
        key_type=type_name(key),
        values=sql.SQL(", ").join(map(_expression, plain)),
    )
    names = [column.name for column in plain]
    async with connection.transaction():
        await connection.execute(statement(SESSION["exact_text"]))
        await connection.execute(statement(SESSION["own_names"]))
        async with connection.cursor(name="ftstream_rows") as cursor:
            await cursor.execute(query, {"ids": list(ids)})
            number = FIRST_ROWS
            while rows := await cursor.fetchmany(number):
                number = _next_number(rows)
                for entity_id, *values in rows:
                    yield entity_id, dict(zip(names, values, strict=True))


def _next_number(rows: Sequence[Sequence[Value]]) -> int:
    """Say how many rows like these to read next."""
    held = sum(len(value) for row in rows for value in row if isinstance(value, str | bytes))
    fitting = MOST_BYTES * len(rows) // max(held, 1)
    return max(1, min(MOST_ROWS, 2 * len(rows), fitting))


def _kind(column: Column) -> AvroKind:
    if column.is_array or column.base_kind != "b":
        return AvroKind.STRING
    return _KINDS.get(column.base_name, AvroKind.STRING)


def _expression(column: Column) -> sql.Composed:
    return sql.SQL(_value(column)).format(x=sql.SQL("t.{}").format(identifier(column.name)))


def _value(column: Column) -> LiteralString:
    if _kind(column) is not AvroKind.STRING:
        return "{x}"
    if column.base_name == "bpchar" and not column.is_array:
        # A cast to text takes spaces from the end, which a column without a length keeps.
        return "case when {x} is not null then concat({x}) end"
    return "{x}::text"
