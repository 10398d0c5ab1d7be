"""Changes that were parked, as the target database keeps them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection, sql

from ftstream.apply.merge import Batch
from ftstream.apply.parked import ParkedRecord
from ftstream.apply.sites import Sites
from ftstream.failures import Failure
from ftstream.flows import Flow
from ftstream.kafka.partition import Partition
from ftstream.messages.change import Change, Entity, Operation
from ftstream.outcomes import Outcome
from ftstream.postgres.connection import Json
from ftstream.postgres.queries import Queries, literal, statement

QUERIES = Queries.load(__package__, "parking.sql")


def give_up(which: str, outcome: Outcome) -> sql.Composed:
    """The statement that takes these parked changes out for good."""
    return statement(QUERIES["give_up"]).format(
        which=statement(QUERIES[which]), outcome=literal(outcome)
    )


SUPERSEDE = give_up("of_settled_rows", Outcome.SUPERSEDED)
DROP = give_up("of_these_ids", Outcome.DROPPED)
DROP_OLD = give_up("of_old_dead", Outcome.DROPPED)
ABANDON = give_up("of_partition", Outcome.DROPPED)

TAKE, DUE, PARKED_OF, POSTPONE = (
    statement(QUERIES[name]).format(tried=statement(QUERIES["tried"]))
    for name in ("take", "due", "parked_of", "postpone")
)

DUE_ROWS = 500
"""Rows whose parked changes are tried in one round."""
DUE_BYTES = 8 * 2**20
"""Of their records, all together; those of one row at least."""


@dataclass(frozen=True, slots=True)
class Parked:
    """One parked change as it came; `reread`: later ones may have gone by, so its owner is asked."""

    table: str
    entity_id: str
    reread: bool
    partition: Partition
    offset: int
    key: bytes | None
    message: bytes

    @property
    def entity(self) -> Entity:
        return self.table, self.entity_id


class ParkedChanges:
    """Reads and postpones a flow's parked changes. Every method may raise ApplyFailed."""

    def __init__(self, flow: Flow, sites: Sites) -> None:
        self._flow = flow
        self._sites = sites

    async def queued(self, partitions: Iterable[Partition]) -> set[Entity]:
        """The rows that have parked or dead changes in these partitions."""
        async with self._sites.exclusively():
            target = await self._sites.target()
            cursor = await target.execute(
                statement(QUERIES["queued"]), {"partitions": _partitions(partitions)}
            )
            return {(row[0], row[1]) for row in await cursor.fetchall()}

    async def due(self, partitions: Iterable[Partition]) -> list[Parked]:
        """The changes to be tried now, in the order of the log."""
        async with self._sites.exclusively():
            target = await self._sites.target()
            values = {
                "partitions": _partitions(partitions),
                "flow": self._flow.name,
                "rows": DUE_ROWS,
                "bytes": DUE_BYTES,
            }
            cursor = await target.execute(DUE, values, binary=True)
            return [*map(_parked, await cursor.fetchall())]

    async def waiting(self, entities: Collection[Entity]) -> set[Entity]:
        """Return those of these rows that have parked or dead changes."""
        async with self._sites.exclusively():
            target = await self._sites.target()
            asked = {"entities": _entities(entities)}
            cursor = await target.execute(statement(QUERIES["waiting"]), asked)
            return {(row[0], row[1]) for row in await cursor.fetchall()}

    async def of(self, entities: Collection[Entity]) -> list[Parked]:
        """The parked changes of these rows, those of other workers' partitions too, in the log's order."""
        async with self._sites.exclusively():
            target = await self._sites.target()
            values = {"flow": self._flow.name, "entities": _entities(entities)}
            cursor = await target.execute(PARKED_OF, values, binary=True)
            return [*map(_parked, await cursor.fetchall())]

    async def postpone(
        self,
        changes: Sequence[Parked],
        failure: Failure,
        *,
        counted: bool,
        dead_after: float,
        alone: bool = False,
    ) -> bool:
        """Note a try that failed; True if the changes have died of it.

        What is parked behind them is judged with them, unless they are `alone`.
        """
        async with self._sites.exclusively():
            target = await self._sites.target()
            values = {
                "records": _records((c.partition, c.offset) for c in changes),
                "entities": _entities([] if alone else {c.entity for c in changes}),
                "counted": counted,
                "dead_after": dead_after,
                **_words(failure),
            }
            cursor = await target.execute(POSTPONE, values)
            return any(row[0] for row in await cursor.fetchall())


def _parked(row: Sequence[Any]) -> Parked:
    table, entity_id, reread, topic, partition, *record = row
    return Parked(table, entity_id, reread, Partition(topic, partition), *record)


async def take(target: AsyncConnection, changes: Sequence[Change]) -> None:
    """Take these parked changes out; the transaction fails, unless all of them are there."""
    records = _records((change.at, change.offset) for change in changes)
    await target.execute(statement(QUERIES["lock_offsets"]), {"records": records})
    await target.execute(TAKE, {"records": records, "count": len(changes)})


async def write(target: AsyncConnection, flow: str, batch: Batch) -> None:
    """Write what a batch does to parked changes, in its transaction."""
    emptied = {c.table for c in batch.changes if c.operation is Operation.TRUNCATE}
    if emptied:
        await target.execute(statement(QUERIES["reread"]), {"tables": sorted(emptied)})
    if batch.settled:
        settled = _settling(batch)
        await target.execute(SUPERSEDE, {"entities": Json.of(settled)})
    for parked in batch.parked:
        if parked.whole:
            replaced = [{"table": parked.table, "id": parked.entity_id, "version": parked.version}]
            await target.execute(SUPERSEDE, {"entities": Json.of(replaced)})
        await target.execute(statement(QUERIES["park"]), {"flow": flow, **_row(parked)})
    behind = {record.entity for record in batch.parked if record.operation is not None}
    if behind:
        await target.execute(statement(QUERIES["revive"]), {"entities": _entities(behind)})


def _settling(batch: Batch) -> list[dict[str, object]]:
    """The rows that are settled, each with the greatest version that settles it; 0 in a flow without."""
    newest = dict.fromkeys(batch.settled, 0)
    for change in batch.changes:
        entity = change.entity
        if entity in newest:
            newest[entity] = max(newest[entity], change.version)
    return [{"table": t, "id": i, "version": v} for (t, i), v in newest.items()]


def _row(parked: ParkedRecord) -> dict[str, object]:
    return {
        "state": parked.state.value,
        "table": parked.table,
        "id": parked.entity_id,
        "op": parked.operation,
        **parked.at._asdict(),
        "offset": parked.offset,
        "key": parked.key,
        "message": parked.message,
        "position": parked.position,
        "time": parked.time,
        **_words(parked.failure),
    }


def _words(failure: Failure) -> dict[str, str]:
    return {"sqlstate": failure.sqlstate, "error": failure.message, "hint": failure.hint}


def _partitions(partitions: Iterable[Partition]) -> Json:
    return Json.of([partition._asdict() for partition in partitions])


def _records(records: Iterable[tuple[Partition, int]]) -> Json:
    return Json.of([partition._asdict() | {"offset": offset} for partition, offset in records])


def _entities(entities: Collection[Entity]) -> Json:
    return Json.of([{"table": table, "id": entity_id} for table, entity_id in entities])
