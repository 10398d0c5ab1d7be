"""What wakes the publishers, kept on Supabase for the crew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from psycopg import AsyncConnection
from psycopg.rows import class_row

from ftstream.flows import Site
from ftstream.postgres.connection import SESSION, Json, open_site
from ftstream.postgres.queries import Queries, statement
from ftstream.settings import Settings
from ftstream.supabase.wake_up import WakeUps

_QUERIES = Queries.load(__package__, "wake_ups.sql")

NOTE_SECONDS = 5.0
"""How often a worker says that it is there."""

SEEN_SECONDS = 3 * NOTE_SECONDS
"""After which one that has said nothing is not there any more."""


@dataclass(frozen=True, slots=True)
class WorkerWakeUp:
    """What a worker has said of itself; `seen_at` is the database's time."""

    worker: str
    way: str
    since: datetime
    reason: str
    seen_at: datetime
    halted: Mapping[str, str]
    """Flows that it does not carry any more, with the reasons."""


async def note(
    settings: Settings, worker: str, state: WakeUps, halted: Mapping[str, str] | None = None
) -> None:
    """Say what wakes this worker, and which flows it does not carry any more. Raises psycopg.Error."""
    values = {
        "worker": worker,
        "way": state.way.value,
        "since": state.since,
        "reason": state.reason,
        "halted": Json.of(halted or {}),
    }
    async with await open_site(settings, Site.SUPABASE) as connection:
        await connection.execute(statement(_QUERIES["note"]), values)


async def forget(settings: Settings, worker: str) -> None:
    """Say that this worker ends. Raises psycopg.Error."""
    async with await open_site(settings, Site.SUPABASE) as connection:
        await connection.execute(statement(_QUERIES["forget"]), {"worker": worker})


async def seen(connection: AsyncConnection, seconds: float = SEEN_SECONDS) -> list[WorkerWakeUp]:
    """The workers seen in the last seconds. Raises psycopg.Error."""
    async with (
        connection.transaction(),
        connection.cursor(row_factory=class_row(WorkerWakeUp)) as cursor,
    ):
        await cursor.execute(statement(SESSION["exact_text"]))
        await cursor.execute(statement(_QUERIES["seen"]), {"seconds": seconds})
        return await cursor.fetchall()
