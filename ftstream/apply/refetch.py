"""Rows as their owner holds them now, where the log's images do not do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from psycopg import AsyncConnection

from ftstream.apply.merge import Batch, Delete, Displace, Effect, Gone, Read, Reread
from ftstream.apply.sites import ApplyFailed
from ftstream.apply.statements import QUERIES, TableStatements
from ftstream.failures import Failure, Policy
from ftstream.messages import toast
from ftstream.messages.change import Entity
from ftstream.postgres.connection import SESSION, Json
from ftstream.postgres.queries import statement

_NOT_VISIBLE = Failure(
    Policy.RETRY,
    "not visible",
    "the source does not show a change yet that its log has told",
    "does it wait for a synchronous standby?",
)
STANDBY = Failure(
    Policy.HALT,
    "",
    "the source is a standby: it may not have the rows yet that its primary's log has told",
    "give the primary's address in the settings",
)


async def read_from_owner(
    source: AsyncConnection,
    target: AsyncConnection,
    tables: Mapping[str, TableStatements],
    batch: Batch,
    rows: Mapping[Entity, Effect],
) -> dict[Entity, Effect]:
    """Replace each Reread, and each row in the way of one, by what the owner holds now.

    All reads see one snapshot, in which unique values are unique, and which is not older than
    the changes that led here: else a row just inserted would be taken for one just deleted.
    """
    result = dict(rows)
    async with source.transaction():
        await source.execute("set transaction isolation level repeatable read, read only")
        await source.execute(statement(SESSION["exact_text"]))
        await source.execute(statement(SESSION["own_names"]))
        await _require_visible(source, batch, rows)
        for name, statements in tables.items():
            wanted = {k[1] for k, e in rows.items() if k[0] == name and isinstance(e, Reread)}
            while wanted:
                read = await _read_rows(source, statements, wanted)
                for entity in ((name, i) for i in wanted):
                    absent = Gone() if entity in rows else Displace()
                    result[entity] = read.get(entity[1], absent)
                blockers = await _blockers(target, statements, read.values())
                wanted = {i for i in blockers if not _settled(result.get((name, i)))}
    return result


async def _require_visible(
    source: AsyncConnection, batch: Batch, rows: Mapping[Entity, Effect]
) -> None:
    """Raises ApplyFailed unless the snapshot has the changes that led to the rereads."""
    transactions = {
        change.source_transaction: change.source_time
        for change in batch.changes
        if change.source_transaction is not None and isinstance(rows.get(change.entity), Reread)
    }
    values = {"transactions": list(transactions), "times": list(transactions.values())}
    cursor = await source.execute(statement(QUERIES["all_visible"]), values)
    row = await cursor.fetchone()
    assert row is not None  # the statement returns exactly one row
    visible, standby = row
    if standby:  # found again after a failover
        raise ApplyFailed(STANDBY)
    if not visible:
        raise ApplyFailed(_NOT_VISIBLE)


def _settled(effect: Effect | None) -> bool:
    """Say whether a row in the way makes room, or is as its owner holds it."""
    return isinstance(effect, Read | Gone | Displace | Delete)


async def _read_rows(
    source: AsyncConnection, statements: TableStatements, ids: set[str]
) -> dict[str, Read]:
    cursor = await source.execute(statements.read_rows, {"ids": sorted(ids)})
    return {row[0]: Read(row[1]) for row in await cursor.fetchall()}


async def _blockers(
    target: AsyncConnection, statements: TableStatements, read: Iterable[Read]
) -> set[str]:
    """Ids at the target that hold a unique value which one of these rows is about to take."""
    if not statements.blockers:
        return set()
    images = Json.of([toast.only(row.texts, statements.blocking) for row in read])
    found: set[str] = set()
    for blocker in statements.blockers:
        cursor = await target.execute(blocker, {"images": images})
        found |= {row[0] for row in await cursor.fetchall()}
    return found
