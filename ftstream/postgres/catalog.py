"""What the databases' catalogs say of a table: its columns and unique keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import AsyncConnection
from psycopg.rows import class_row, tuple_row

from ftstream.flows import Table
from ftstream.postgres.queries import Queries, statement

_QUERIES = Queries.load(__package__, "catalog.sql")
_IDENTITIES = {"d": "default, and no primary key that holds it", "i": "using index", "n": "nothing"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `base_name` is its type under any domain, of its elements if it is an array.

    `type` is for people; `cast_type` is the base type without its modifier: a cast to varchar(3)
    would cut a longer value silently, an assignment refuses it. `base_type` has the modifier, which
    `modifier` is as PostgreSQL packs it, -1 for none. `dimensions` are those declared.
    `identity`: a row gets its value when it is inserted, and no update can assign another (GENERATED
    ALWAYS AS IDENTITY). `step`: by which the column's own sequence counts, 0 if it has none.
    """

    name: str
    type: str
    cast_type: str
    base_name: str
    base_kind: str
    is_array: bool
    constrained: bool
    generated: bool
    toastable: bool
    dimensions: int = 0
    domain: bool = False
    identity: bool = False
    step: int = 0
    base_type: str = ""
    modifier: int = -1
    builtin: bool = True


class KeyMissing(Exception):
    """A synced table lacks its key column, or a site makes it up; the message names it."""


class KeyNotLogged(Exception):
    """The log does not hold the keys of rows that are deleted; the message names table and way on."""


class TableMissing(Exception):
    """A synced table does not exist, or the role may not see it."""


async def read_columns(connection: AsyncConnection, table: Table) -> tuple[Column, ...]:
    """The table's columns in order, without the excluded; TableMissing if there are none."""
    columns = await read_all_columns(connection, table)
    return tuple(column for column in columns if column.name not in table.excluded)


async def read_all_columns(connection: AsyncConnection, table: Table) -> tuple[Column, ...]:
    """The same, with the excluded."""
    async with connection.cursor(row_factory=class_row(Column)) as cursor:
        await cursor.execute(statement(_QUERIES["columns"]), {"table": table.qualified})
        columns = await cursor.fetchall()
    if not columns:
        raise TableMissing(f"table {table.qualified} does not exist")
    return tuple(columns)


async def require_logged_key(connection: AsyncConnection, table: Table) -> None:
    """Raises KeyNotLogged unless the log says which row of the table was deleted."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        values = {"table": table.qualified, "key": table.key}
        await cursor.execute(statement(_QUERIES["keyless"]), values)
        for name, identity in await cursor.fetchall():
            raise KeyNotLogged(
                f"the log does not tell which row of {name} is deleted (replica identity"
                f" {_IDENTITIES[identity]}): ALTER TABLE {name} REPLICA IDENTITY DEFAULT, with"
                f" {table.key} as its primary key; if rows were deleted meanwhile, then also:"
                f" ftstream verify --table {table.name} --repair"
            )


async def read_fingerprint(
    connection: AsyncConnection, table: Table
) -> tuple[tuple[int, str], ...]:
    """Return what shows that the table's columns are as they were: see the statement."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(statement(_QUERIES["fingerprint"]), {"table": table.qualified})
        return tuple((row[0], row[1]) for row in await cursor.fetchall())


async def read_unique_keys(
    connection: AsyncConnection, table: Table
) -> tuple[tuple[str, ...], ...]:
    """The columns of each unique index besides the primary key's."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(statement(_QUERIES["unique_keys"]), {"table": table.qualified})
        return tuple(tuple(row[0]) for row in await cursor.fetchall())


def carried_key(table: Table, pairs: Sequence[tuple[Column, Column]]) -> tuple[Column, Column]:
    """The key at both sites. Raises KeyMissing."""
    for pair in pairs:
        if pair[0].name == table.key:
            return pair
    raise KeyMissing(f"{table.qualified}.{table.key} is not a plain column of both sites")


def carried(
    source: Sequence[Column], target: Sequence[Column]
) -> tuple[tuple[Column, Column], ...]:
    """The columns that both sites have, as pairs, generated ones left out."""
    at_source = {column.name: column for column in source if not column.generated}
    return tuple(
        (at_source[column.name], column)
        for column in target
        if column.name in at_source and not column.generated
    )
