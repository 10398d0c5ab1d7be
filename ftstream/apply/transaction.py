"""The transaction that every flow applies a batch in: the fence first, then the rows, then the log.

It holds what it has locked until it commits. Each of its statements waits for a lock for `lock_timeout_ms`
(300 ms), and runs for `statement_timeout_ms` (60 s) at most; PostgreSQL ends it when nothing comes for ten
seconds (apply.sql, `session`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal, assert_never

from psycopg import AsyncConnection

from ftstream.apply import parked_store
from ftstream.apply.merge import Batch, FromLog, FromParked, LogRow, Span, parked_row
from ftstream.apply.schema import Reading
from ftstream.apply.statements import QUERIES
from ftstream.postgres.connection import SESSION, Json
from ftstream.postgres.queries import statement
from ftstream.settings import ApplySettings


class Transactions:
    """Those of one flow at its target. Every method may raise psycopg.Error."""

    def __init__(self, flow: str, bounds: ApplySettings) -> None:
        self._flow = flow
        self._timeouts = {
            "statement_timeout": f"{bounds.statement_timeout_ms}ms",
            "lock_timeout": f"{bounds.lock_timeout_ms}ms",
        }

    @asynccontextmanager
    async def in_one_trip(self, target: AsyncConnection) -> AsyncIterator[None]:
        """Send the whole transaction at once, beside other workers of the flow: nothing is read in it."""
        async with target.pipeline():
            await target.execute("begin isolation level read committed")
            await self.open(target, "share")
            yield
            await target.execute("commit")

    @asynccontextmanager
    async def in_parts(
        self, target: AsyncConnection, company: Literal["share", "alone"]
    ) -> AsyncIterator[None]:
        """Have the transaction read what it depends on, beside other workers of the flow or without them."""
        async with target.transaction():
            await self.open(target, company)
            yield

    @asynccontextmanager
    async def fenced(
        self, target: AsyncConnection, batch: Batch, reading: Reading | None = None
    ) -> AsyncIterator[None]:
        """Write rows between the fence and what is logged of the records that are parked.

        Aborts where another worker was there, or a table is not any more as `reading` has it.
        """
        match batch.fence:
            case FromLog(spans):
                await _advance(target, spans)
            case FromParked():
                await parked_store.take(target, batch.changes)
            case _ as never:
                assert_never(never)
        await parked_store.write(target, self._flow, batch)
        yield
        if reading is not None:
            await target.execute(statement(QUERIES["unchanged"]), reading.fingerprint)
        await log_changes(target, [*map(parked_row, batch.parked)])

    async def open(self, target: AsyncConnection, company: Literal["share", "alone"]) -> None:
        """Begin to write, beside other workers of the flow or without them."""
        await self.limit(target)
        await target.execute(statement(SESSION["exact_text"]))
        await target.execute(statement(SESSION["own_names"]))
        await target.execute(statement(SESSION["triggers_off"]))
        await target.execute(statement(QUERIES[company]), {"flow": self._flow})

    async def name_turn(self, target: AsyncConnection) -> None:
        """Make what `open` locks."""
        await target.execute(statement(QUERIES["name_turn"]), {"flow": self._flow})

    async def limit(self, target: AsyncConnection) -> None:
        """Have the transaction wait for nobody for long."""
        await target.execute(statement(QUERIES["session"]), self._timeouts)


async def log_changes(target: AsyncConnection, rows: Sequence[LogRow]) -> None:
    """Write these rows of sync_log."""
    if rows:
        await target.execute(statement(QUERIES["log"]), {"rows": Json.of(rows)})


@asynccontextmanager
async def own_names(connection: AsyncConnection) -> AsyncIterator[None]:
    """A transaction to look things up in."""
    async with connection.transaction():
        await connection.execute(statement(SESSION["own_names"]))
        yield


async def _advance(target: AsyncConnection, spans: Sequence[Span]) -> None:
    """Move the applied offsets."""
    offsets = [
        span.partition._asdict()
        | {"expected": span.expected, "next": span.next}
        | {"position": span.position, "digest": span.digest}
        for span in spans
    ]
    if offsets:
        values = {"offsets": Json.of(offsets), "partitions": len(offsets)}
        await target.execute(statement(QUERIES["advance_offsets"]), values)
