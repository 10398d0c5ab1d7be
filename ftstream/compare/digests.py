"""Digests of one table's ranges, rows and columns, computed inside the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from psycopg import AsyncConnection, sql

from ftstream.compare.comparison import (
    DifferenceKind,
    RangeDigest,
    differing_ranges,
    differing_rows,
)
from ftstream.flows import Table
from ftstream.postgres import exact
from ftstream.postgres.catalog import Column, carried_key
from ftstream.postgres.connection import SESSION
from ftstream.postgres.queries import Queries, identifier, statement

_QUERIES = Queries.load(__package__, "compare.sql")

T = TypeVar("T")

RANGE_ROWS = 10_000
"""Rows of a range: what is read, and held in memory, where a range differs."""

Pairs = Sequence[tuple[Column, Column]]
"""The columns that are compared, as each site has them."""


class Digests:
    """Reads one table on one site; both sites' numbers can be compared, given the same columns."""

    def __init__(self, connection: AsyncConnection, table: Table, pairs: Pairs) -> None:
        self._connection = connection
        ordered = sorted(pairs, key=lambda pair: pair[0].name)
        columns = [_compared(*pair) for pair in ordered]
        self.columns = tuple(column.name for column, _ in ordered)
        key, _ = carried_key(table, pairs)
        self._parts: dict[str, sql.Composable] = {
            "table": identifier(table.schema, table.name),
            "key": identifier(table.key),
            "key_type": sql.SQL(key.cast_type),  # from format_type()
            "columns": sql.SQL(", ").join(columns),
            "column_digests": sql.SQL(", ").join(
                sql.SQL('hashtextextended({}::text collate "C", 0)').format(column)
                for column in columns
            ),
        }

    async def bounds(self, step: int) -> list[str]:
        """Every `step`-th key of the table, in order."""
        return [row[0] for row in await self._rows("bounds", step=step)]

    async def merged(self, bounds: Iterable[str]) -> list[str]:
        """These keys in order, each once."""
        return [row[0] for row in await self._rows("merge_bounds", bounds=list(bounds))]

    async def ranges(self, bounds: Sequence[str]) -> Mapping[int, RangeDigest]:
        """Range 0 lies below the first bound, range n from the n-th bound on."""
        rows = await self._rows("range_digests", bounds=list(bounds))
        return {row[0]: RangeDigest(row[1], row[2]) for row in rows}

    async def range_rows(self, number: int, bounds: Sequence[str]) -> dict[str, int]:
        """Id to digest, of one of these ranges."""
        lower = bounds[number - 1] if number else None
        upper = bounds[number] if number < len(bounds) else None
        return dict(await self._rows("range_rows", lower=lower, upper=upper))

    async def rows(self, ids: Iterable[str]) -> dict[str, int]:
        """Id to digest, of those that exist."""
        return dict(await self._rows("rows", ids=list(ids)))

    async def column_digests(self, ids: Iterable[str]) -> dict[str, list[int | None]]:
        """Id to a digest of each column, in the order of `columns`; None for NULL."""
        return dict(await self._rows("column_digests", ids=list(ids)))

    async def _rows(self, query: str, **values: Any) -> list[Any]:
        built = statement(_QUERIES[query]).format(**self._parts)
        async with self._connection.transaction():
            await self._connection.execute(statement(SESSION["exact_text"]))
            return await (await self._connection.execute(built, values)).fetchall()


@dataclass(frozen=True, slots=True)
class Ranges:
    """The ranges of a table that are not equal on both sites, by number."""

    source: Digests
    target: Digests
    rows: int
    """Of the source, in all of its ranges."""
    held: int
    """Of the target."""
    bounds: Sequence[str]
    unequal: Sequence[int]

    async def differing(self, number: int) -> dict[str, DifferenceKind]:
        """The rows that differ in one of them; they may be in flight."""
        ours, theirs = await _both(
            self.source.range_rows(number, self.bounds), self.target.range_rows(number, self.bounds)
        )
        return differing_rows(ours, theirs)


@asynccontextmanager
async def snapshot(connection: AsyncConnection) -> AsyncIterator[None]:
    """Have what is read in this block be of one moment."""
    async with connection.transaction():
        await connection.execute(statement(_QUERIES["snapshot"]))
        await connection.execute(statement(_QUERIES["stay"]))
        yield


async def compare_ranges(source: Digests, target: Digests) -> Ranges:
    """Digest the table on both sites, each in one snapshot of the caller's."""
    found = await _both(source.bounds(RANGE_ROWS), target.bounds(RANGE_ROWS))
    bounds = await source.merged([key for side in found for key in side])
    ours, theirs = await _both(source.ranges(bounds), target.ranges(bounds))
    rows, held = (sum(each.rows for each in side.values()) for side in (ours, theirs))
    return Ranges(source, target, rows, held, bounds, differing_ranges(ours, theirs))


async def _both(ours: Awaitable[T], theirs: Awaitable[T]) -> tuple[T, T]:
    """Return what both sites answer; where one fails, the other is over, too, when it raises."""
    found = await asyncio.gather(ours, theirs, return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return found  # type: ignore[return-value]  # no exception is left


def _compared(here: Column, there: Column) -> sql.Composable:
    """The column as it is compared: where the sites' types differ, equal values must look alike."""
    column = sql.SQL("t.{}").format(identifier(here.name))
    return exact.comparable(column, here, there) if exact.differ(here, there) else column
