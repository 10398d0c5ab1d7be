"""Transactions of ftstream's own at a target: what each begins with, and the offsets it moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from psycopg import AsyncConnection

from ftstream.apply import parked_store
from ftstream.apply.merge import Batch
from ftstream.apply.statements import QUERIES
from ftstream.postgres.connection import SESSION, Json
from ftstream.postgres.queries import statement
from ftstream.settings import ApplySettings


class Transactions:
    """Of one flow. Every method may raise psycopg.Error."""

    def __init__(self, flow: str, bounds: ApplySettings) -> None:
        self._flow = flow
        self._timeouts = {
            "statement_timeout": f"{bounds.statement_timeout_ms}ms",
            "lock_timeout": f"{bounds.lock_timeout_ms}ms",
        }

    async def open(self, target: AsyncConnection, company: Literal["share", "alone"]) -> None:
        """To write in, beside other workers of the flow or without them."""
        await self.limit(target)
        await target.execute(statement(SESSION["exact_text"]))
        await target.execute(statement(SESSION["own_names"]))
        await target.execute(statement(QUERIES["replica"]))
        await target.execute(statement(QUERIES[company]), {"flow": self._flow})

    async def limit(self, target: AsyncConnection) -> None:
        """Have the transaction wait for nobody for long."""
        await target.execute(statement(QUERIES["session"]), self._timeouts)

    async def advance(self, target: AsyncConnection, batch: Batch) -> None:
        """Move the applied offsets over the batch, and store the records that it parks."""
        offsets = [
            span.partition._asdict()
            | {"expected": span.expected, "next": span.next}
            | {"position": span.position, "digest": span.digest}
            for span in batch.spans
        ]
        if offsets:
            await target.execute(
                statement(QUERIES["advance_offsets"]),
                {"offsets": Json.of(offsets), "partitions": len(offsets)},
            )
        await parked_store.write(target, self._flow, batch)


@asynccontextmanager
async def own_names(connection: AsyncConnection) -> AsyncIterator[None]:
    """A transaction to look things up in."""
    async with connection.transaction():
        await connection.execute(statement(SESSION["own_names"]))
        yield
