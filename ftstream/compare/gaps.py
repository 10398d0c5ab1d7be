"""Gaps: times in which the capture of a table was broken, kept until both sites have been compared.

What was written meanwhile is in no topic: it is found by comparing, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from psycopg import AsyncConnection

from ftstream.apply.statements import UNNOTED
from ftstream.flows import Table
from ftstream.postgres.connection import Json
from ftstream.postgres.queries import Queries, statement

_QUERIES = Queries.load(__package__, "gaps.sql")


@dataclass(frozen=True, slots=True)
class Gap:
    """One of a site; `until` None: it lasts. `table` is qualified."""

    id: int
    flow: str
    table: str
    reason: str
    since: datetime
    until: datetime | None
    settled: bool = False
    """Whether all is committed that was written in it."""

    def __str__(self) -> str:
        until = "now" if self.until is None else _shown(self.until)
        return f"{self.table}, from {_shown(self.since)} to {until}: {self.reason}"


async def gaps(connection: AsyncConnection) -> list[Gap]:
    """Return those of a site, the oldest first. Raises psycopg.Error."""
    cursor = await connection.execute(statement(_QUERIES["gaps"]))
    return [
        Gap(number, flow, table, reason, _at(since), None if until is None else _at(until), settled)
        for number, flow, table, reason, since, until, settled in await cursor.fetchall()
    ]


async def seen(connection: AsyncConnection) -> dict[str, str]:
    """Return the fingerprint that was seen of each table, by its qualified name. Raises psycopg.Error."""
    cursor = await connection.execute(statement(_QUERIES["seen"]))
    return dict(await cursor.fetchall())


async def see(connection: AsyncConnection, fingerprints: Mapping[str, str]) -> None:
    """Note that the capture of these tables is well. Raises psycopg.Error."""
    rows = [{"name": name, "fingerprint": each} for name, each in fingerprints.items()]
    await connection.execute(statement(_QUERIES["see"]), {"seen": Json.of(rows)})


async def close(connection: AsyncConnection, tables: Iterable[str]) -> None:
    """Note that the gaps of these are over; what ended them must be committed. Raises psycopg.Error."""
    await connection.execute(statement(_QUERIES["close"]), {"tables": list(tables)})


async def note(
    connection: AsyncConnection, flow: str, table: str, reason: str, *, over: bool
) -> None:
    """Note that a gap has begun, or is over already. Raises psycopg.Error."""
    values = {"flow": flow, "table": table, "reason": reason, "over": over}
    await connection.execute(statement(_QUERIES["open"]), values)


async def settled(connection: AsyncConnection, tables: Iterable[Table]) -> list[Gap]:
    """Return the gaps of these tables that a comparison which begins now covers. Raises psycopg.Error."""
    names = {table.qualified for table in tables}
    return [gap for gap in await gaps(connection) if gap.table in names and gap.settled]


async def kept(connection: AsyncConnection, gap: Gap) -> int:
    """Return how many rows were overwritten in it whose words nobody has told. Raises psycopg.Error."""
    values = {"gap": gap.id, "table": gap.table.partition(".")[2], "reason": UNNOTED}
    row = await (await connection.execute(statement(_QUERIES["kept"]), values)).fetchone()
    return int(row[0]) if row else 0


async def compared(connection: AsyncConnection, closed: Iterable[Gap]) -> None:
    """Both sites were compared since these were settled, and are equal. Raises psycopg.Error."""
    await connection.execute(statement(_QUERIES["compared"]), {"ids": [gap.id for gap in closed]})


def _at(seconds: float) -> datetime:
    """Without DateStyle, which the role may have set to what psycopg does not read."""
    return datetime.fromtimestamp(seconds, UTC)


def _shown(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
