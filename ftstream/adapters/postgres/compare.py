"""Comparison of a table on both sites, each read in one snapshot."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import AsyncConnection, sql

from ftstream.adapters.postgres.catalog import carried, read_columns
from ftstream.adapters.postgres.queries import Queries, statement
from ftstream.flows import Table

_QUERIES = Queries.load(__package__, "compare.sql")


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs in one table: ids that the target lacks, has too many, or has otherwise."""

    table: str
    rows: int
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    different: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        return not (self.missing or self.extra or self.different)


async def compare(source: AsyncConnection, target: AsyncConnection, table: Table) -> Difference:
    """Compare the columns that both sites have, as ROW(...)::text."""
    pairs = carried(await read_columns(source, table), await read_columns(target, table))
    parts = {
        "table": sql.Identifier(table.schema, table.name),
        "key": sql.Identifier(table.key),
        "columns": sql.SQL(", ").join(
            sql.Identifier(name) for name in sorted(column.name for column, _ in pairs)
        ),
    }
    async with source.transaction(), target.transaction():
        for connection in (source, target):
            await connection.execute("set transaction isolation level repeatable read, read only")
            await connection.execute(statement(_QUERIES["session"]))
        digest = statement(_QUERIES["digest"]).format(**parts)
        at_source = await (await source.execute(digest)).fetchone()
        at_target = await (await target.execute(digest)).fetchone()
        rows = at_source[0] if at_source else 0
        if at_source == at_target:
            return Difference(table.name, rows)
        each = statement(_QUERIES["row_digests"]).format(**parts)
        ours: dict[str, int] = dict(await (await source.execute(each)).fetchall())
        theirs: dict[str, int] = dict(await (await target.execute(each)).fetchall())
    return Difference(
        table.name,
        rows,
        missing=tuple(sorted(ours.keys() - theirs.keys())),
        extra=tuple(sorted(theirs.keys() - ours.keys())),
        different=tuple(sorted(k for k in ours.keys() & theirs.keys() if ours[k] != theirs[k])),
    )
