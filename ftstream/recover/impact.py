"""What was written in a time: which tables, by whom, how often, and which rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from psycopg import AsyncConnection
from psycopg.rows import kwargs_row

from ftstream.flows import Site, Table
from ftstream.postgres.queries import Queries, statement

_QUERIES = Queries.load(__package__, "impact.sql")


@dataclass(frozen=True, slots=True)
class Impact:
    """Changes of one table that have one author, operation and outcome in common, written on `written_on`.

    `author` is empty where nobody notes it: External's own tables. `ids`: of the rows written last.
    """

    written_on: Site
    table_name: str
    author: str
    operation: str
    outcome: str
    changes: int
    rows: int
    first: datetime
    last: datetime
    ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` on, before `until`; aware times."""

    since: datetime
    until: datetime


async def impact(
    connection: AsyncConnection, at: Site, tables: Sequence[Table], period: Period, ids: int
) -> list[Impact]:
    """Return what a site has received of these tables that was written then. Raises psycopg.Error."""
    values = {
        "tables": [table.name for table in tables],
        "since": period.since,
        "until": period.until,
        "ids": ids,
    }
    async with connection.cursor(row_factory=kwargs_row(partial(Impact, at.other))) as cursor:
        await cursor.execute(statement(_QUERIES["impact"]), values)
        return await cursor.fetchall()
