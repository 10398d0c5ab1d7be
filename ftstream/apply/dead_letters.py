"""Parked and dead changes of one site, for a person who decides about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import AsyncConnection
from psycopg.rows import class_row

from ftstream.apply.parked_store import DROP, QUERIES
from ftstream.postgres.queries import statement


@dataclass(frozen=True, slots=True)
class Letter:
    """One record that was parked, without the record itself; `operation` None: it cannot be read."""

    id: int
    flow: str
    state: str
    table_name: str
    entity_id: str
    operation: str | None
    topic: str
    kafka_partition: int
    kafka_offset: int
    bytes: int
    sqlstate: str
    error: str
    hint: str
    source_position: int | None
    source_time: datetime | None
    parked_at: datetime
    attempts: int
    next_attempt_at: datetime


async def letters(
    connection: AsyncConnection,
    *,
    flow: str | None = None,
    state: str | None = None,
    ids: Sequence[int] | None = None,
    limit: int | None = None,
) -> list[Letter]:
    """Return those that fit, the oldest first. Raises psycopg.Error, as all here do."""
    async with connection.cursor(row_factory=class_row(Letter)) as cursor:
        await cursor.execute(
            statement(QUERIES["list"]), {"flow": flow, "state": state, "ids": ids, "limit": limit}
        )
        return await cursor.fetchall()


async def record(connection: AsyncConnection, letter: int) -> tuple[bytes | None, bytes]:
    """Key and value of the record, byte for byte."""
    cursor = await connection.execute(statement(QUERIES["record"]), {"id": letter}, binary=True)
    ((key, message),) = await cursor.fetchall()
    return key, message


async def retry(connection: AsyncConnection, ids: Sequence[int]) -> int:
    """Have these tried again; how many there were."""
    return (await connection.execute(statement(QUERIES["retry"]), {"ids": ids})).rowcount


async def drop(connection: AsyncConnection, ids: Sequence[int]) -> int:
    """Give these up, logged in sync_log; how many there were."""
    return (await connection.execute(DROP, {"ids": ids})).rowcount
