"""The applied offsets: how far the target database is in each topic partition."""

from __future__ import annotations

from collections.abc import Iterable

from ftstream.apply.merge import Position
from ftstream.apply.parked_store import ABANDON
from ftstream.apply.sites import ApplyFailed, Sites
from ftstream.apply.statements import QUERIES
from ftstream.failures import Failure, Policy
from ftstream.kafka.partition import Partition
from ftstream.postgres.connection import Json
from ftstream.postgres.queries import statement

_MOVED = Failure(
    Policy.HALT, "", "the applied offset has moved meanwhile", "stop the worker, then try again"
)


class Offsets:
    """Reads them; applying moves them. Its methods may raise ApplyFailed."""

    def __init__(self, sites: Sites) -> None:
        self._sites = sites

    async def applied(self, partitions: Iterable[Partition]) -> dict[Partition, Position]:
        """Say how far the target is in each of these; 0 in one of which it knows nothing."""
        asked = {"partitions": Json.of([p._asdict() for p in partitions])}
        async with self._sites.exclusively():
            target = await self._sites.target()
            await target.execute(statement(QUERIES["ensure_offsets"]), asked)
            cursor = await target.execute(statement(QUERIES["applied_offsets"]), asked)
            return {Partition(*row[:2]): Position(*row[2:]) for row in await cursor.fetchall()}

    async def resume(
        self, partition: Partition, applied: int, resume: int, *, recreated: bool = False
    ) -> None:
        """Read on from another offset than where the target is.

        Of a topic that was `recreated`, what is parked is given up; sync_log notes each.
        """
        moved = {**partition._asdict(), "applied": applied, "resume": resume}
        async with self._sites.exclusively():
            target = await self._sites.target()
            async with target.transaction():
                done = await target.execute(statement(QUERIES["resume"]), moved)
                if done.rowcount != 1:
                    raise ApplyFailed(_MOVED)
                if recreated:
                    await target.execute(ABANDON, partition._asdict())
