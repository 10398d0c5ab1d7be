"""Reads what a site has received of entities, and writes old states as new edits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import LiteralString

from psycopg import AsyncConnection, sql

from ftstream.adapters.postgres.catalog import read_columns
from ftstream.adapters.postgres.queries import Queries, identifier, statement
from ftstream.core.history import Entry
from ftstream.core.register import Stamp
from ftstream.flows import Site, Table

QUERIES = Queries.load(__package__, "history.sql")


async def entries(
    connection: AsyncConnection,
    at: Site,
    table: Table,
    *,
    entity_id: str | None = None,
    since: datetime | None = None,
) -> dict[str, list[Entry]]:
    """By entity: of this one, or of all that were written since a time. Raises psycopg.Error."""
    values = {"table": table.name, "id": entity_id, "since": since}
    cursor = await connection.execute(statement(QUERIES["entries"]), values)
    found: dict[str, list[Entry]] = {}
    for key, *columns in await cursor.fetchall():
        found.setdefault(key, []).append(_entry(at, *columns))
    return found


async def reaches(connection: AsyncConnection, table: Table) -> datetime | None:
    """The oldest entry of the table's log."""
    cursor = await connection.execute(statement(QUERIES["reaches"]), {"table": table.name})
    row = await cursor.fetchone()
    return row[0] if row else None


async def restore(
    connection: AsyncConnection, table: Table, entity_id: str, write: Entry, author: str
) -> None:
    """Write the row as that write left it, as an edit of this author. Raises psycopg.Error."""
    names = {"table": identifier(table.schema, table.name), "key": identifier(table.key)}
    await connection.execute(statement(QUERIES["author"]), {"author": author})
    if write.image is None:
        query = statement(QUERIES["remove"]).format(**names)
        await connection.execute(query, {"id": entity_id})
        return
    held = write.row or {}
    columns = [
        column.name
        for column in await read_columns(connection, table)
        if column.name in held and not column.generated
    ]
    query = statement(QUERIES["restore"]).format(
        **names,
        columns=_listed("{}", columns),
        values=sql.SQL(", ").join(_value(name, write) for name in columns),
        assignments=_listed("{0} = excluded.{0}", columns),
    )
    await connection.execute(query, {"image": write.image})


def _listed(form: LiteralString, columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join([sql.SQL(form).format(identifier(name)) for name in columns])


def _value(column: str, write: Entry) -> sql.Composed:
    if column in write.json_nulls:
        return sql.Composed([sql.SQL("'null'::jsonb")])
    return sql.SQL("r.{}").format(identifier(column))


def _entry(
    at: Site,
    logged_at: datetime,
    operation: str | None,
    outcome: str,
    source_time: datetime | None,
    version: int | None,
    site: str,
    author: str | None,
    image: str | None,
    json_nulls: Sequence[str],
) -> Entry:
    stamp = None if version is None else Stamp(version, site)
    return Entry(
        at.value,
        logged_at,
        operation,
        outcome,
        source_time,
        stamp,
        author or "",
        image,
        frozenset(json_nulls),
    )
