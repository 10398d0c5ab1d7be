"""What wakes the publishers, kept on Supabase for the crew."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg import AsyncConnection
from psycopg.rows import class_row

from ftstream.postgres.connection import open_connection
from ftstream.postgres.queries import Queries, statement
from ftstream.supabase.wake_up import WakeUps

_QUERIES = Queries.load(__package__, "wake_ups.sql")


@dataclass(frozen=True, slots=True)
class WorkerWakeUp:
    """What a worker has said of itself; `seen_at` is the database's time."""

    worker: str
    way: str
    since: datetime
    reason: str
    seen_at: datetime


async def note(conninfo: str, worker: str, state: WakeUps) -> None:
    """Say what wakes this worker. Raises psycopg.Error."""
    values = {
        "worker": worker,
        "way": state.way.value,
        "since": state.since,
        "reason": state.reason,
    }
    async with await open_connection(conninfo) as connection:
        await connection.execute(statement(_QUERIES["note"]), values)


async def forget(conninfo: str, worker: str) -> None:
    """Say that this worker ends. Raises psycopg.Error."""
    async with await open_connection(conninfo) as connection:
        await connection.execute(statement(_QUERIES["forget"]), {"worker": worker})


async def seen(connection: AsyncConnection, seconds: float) -> list[WorkerWakeUp]:
    """The workers seen in the last seconds. Raises psycopg.Error."""
    async with connection.cursor(row_factory=class_row(WorkerWakeUp)) as cursor:
        await cursor.execute(statement(_QUERIES["seen"]), {"seconds": seconds})
        return await cursor.fetchall()
