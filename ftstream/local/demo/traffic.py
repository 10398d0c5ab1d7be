"""Performs a seeded play on External's database at a settable rate, as an importer would."""

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection, AsyncCursor

from ftstream.local.demo.operations import PlayKind, PlayStatement, PlayTransaction
from ftstream.local.demo.script import Script
from ftstream.postgres.queries import Queries, statement

QUERIES: Final = Queries.load("ftstream.local.demo", "traffic.sql")


class SeedUsedError(Exception):
    """This seed has played here before: its rows are still there. Choose another seed."""

    def __init__(self, seed: int) -> None:
        super().__init__(f"seed {seed}: {self.__doc__}")


@dataclass(frozen=True, slots=True)
class TrafficStats:
    """What one run did: operations by kind, row changes (cascades included), seconds."""

    operations: Mapping[PlayKind, int]
    changes: int
    seconds: float


class Traffic:
    """One writer; its operations depend on the seed alone.

    rate: row changes per second, kept on average; math.inf writes as fast as it can.
    A run after a run goes on where the last one stopped. If the connection is lost the error is
    raised, and the next run begins with the operation that was under way, which may be repeated.
    """

    def __init__(self, seed: int, dsn: str, rate: float, *, large_every: int = 20) -> None:
        if not rate > 0:
            raise ValueError(f"rate must be above 0 row changes per second, not {rate}")
        self._seed = seed
        self._dsn = dsn
        self._rate = rate
        self._script = Script(seed, large_every=large_every)
        self._next: PlayTransaction | None = None
        self._fresh = True

    async def run(
        self,
        stop: asyncio.Event | None = None,
        seconds: float | None = None,
        max_changes: int | None = None,
    ) -> TrafficStats:
        """Write until stopped, out of time, or `max_changes` are reached, whichever is first.

        The operation under way is always finished, so changes may pass the limit by a few rows.
        Raises SeedUsedError, psycopg.Error.
        """
        async with await AsyncConnection.connect(self._dsn, autocommit=True) as conn:
            if self._fresh:
                await self._begin(conn)
            return await self._write(conn, stop or asyncio.Event(), seconds, max_changes)

    async def _begin(self, conn: AsyncConnection[Any]) -> None:
        """Look at the first session: if it is here, so is all else this seed would write."""
        self._next = self._next or next(self._script)
        cursor = await conn.execute(statement(QUERIES["seed_was_used"]), _first_session(self._next))
        if await cursor.fetchone() == (True,):
            raise SeedUsedError(self._seed)
        self._fresh = False

    async def _write(
        self,
        conn: AsyncConnection[Any],
        stop: asyncio.Event,
        seconds: float | None,
        max_changes: int | None,
    ) -> TrafficStats:
        now = asyncio.get_running_loop().time
        started = now()
        deadline = math.inf if seconds is None else started + seconds
        limit = math.inf if max_changes is None else max_changes
        done: Counter[PlayKind] = Counter()
        changes = 0
        while changes < limit and now() < deadline and not stop.is_set():
            kind, changed = await self._perform_next(conn)
            done[kind] += 1
            changes += changed
            if changes < limit:
                await _wait_until(min(started + changes / self._rate, deadline), stop)
        return TrafficStats(dict(done), changes, now() - started)

    async def _perform_next(self, conn: AsyncConnection[Any]) -> tuple[PlayKind, int]:
        """Perform the next operation; it stays the next one until it is committed."""
        operation = self._next or next(self._script)
        self._next = operation
        changed = 0
        async with conn.transaction(), conn.cursor() as cursor:
            for step in operation.steps:
                changed += await _run(cursor, step)
        self._next = None
        return operation.kind, changed


async def _run(cursor: AsyncCursor[Any], step: PlayStatement) -> int:
    """Run a step and return how many rows it changed."""
    if len(step.rows) == 1:
        await cursor.execute(statement(QUERIES[step.query]), step.rows[0])
    else:
        await cursor.executemany(statement(QUERIES[step.query]), step.rows)
    if cursor.description is None:
        return cursor.rowcount
    counted = await cursor.fetchone()
    return int(counted[0]) if counted else 0


async def _wait_until(moment: float, stop: asyncio.Event) -> None:
    """Sleep until a moment of the loop's clock, or until told to stop."""
    remaining = moment - asyncio.get_running_loop().time()
    if remaining > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), remaining)


def _first_session(operation: PlayTransaction) -> Mapping[str, Any]:
    rows = (row for step in operation.steps for row in step.rows)
    return next({"session_id": row["session_id"]} for row in rows if "session_id" in row)
