"""Refuses changes that rows of the target are in the way of, or parks them: last_write/refusal.py decides."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import assert_never

import psycopg
from psycopg import AsyncConnection

from ftstream import notification
from ftstream.apply.merge import Batch, FromParked
from ftstream.apply.parents import Missing, decode_missing
from ftstream.apply.schema import Schema
from ftstream.apply.sites import ApplyFailed, Sites
from ftstream.apply.statements import ADVANCE, PARENTS, WON
from ftstream.apply.transaction import Transactions
from ftstream.failures import REFERRED_TO, Failure, Policy
from ftstream.flows import Flow
from ftstream.last_write.refusal import InTheWay, Refuse, Wait, decide, refusing
from ftstream.messages import toast
from ftstream.messages.change import Change, Entity, Stamp
from ftstream.messages.edit import LONGEST_REASON
from ftstream.notification import Notify
from ftstream.outcomes import Outcome
from ftstream.postgres.connection import Json
from ftstream.postgres.queries import statement

MOST_REFUSALS = 50
"""Of one row in ten minutes: two programs that fight over a value are a person's to part."""

MOST_ASKED = 10_000
"""Writes that the other site was asked to have yield, which are remembered."""
MOST_NAMED = 5
"""Rows that a message names."""

_KEY = re.compile(r"^Key (\(.*\)=\(.*\)) already exists", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Obstacles:
    """What is in a change's way: rows of the target, or rows that it refers to and that are not there.

    `nulls` are the columns that refer to such rows, where the row can do without: then the other site is told
    to take the change as it is, but for them.
    """

    because: str
    rows: frozenset[Entity] = frozenset()
    nulls: tuple[str, ...] = ()


def orphaned(missing: Collection[Missing]) -> Obstacles:
    """Name what a row refers to that is not there, and that either site may write."""
    because = "; ".join(each.because for each in missing)
    nulls = tuple(name for each in missing for name in each.nulls)
    spared = all(each.nulls and each.within for each in missing)
    rows = frozenset(each.parent_entity for each in missing)
    return Obstacles(because, rows, nulls if spared else ())


class Refusals:
    """Of one flow and target."""

    def __init__(
        self, flow: Flow, sites: Sites, schema: Schema, transactions: Transactions, notify: Notify
    ) -> None:
        self._flow = flow
        self._notify = notify
        self._sites = sites
        self._schema = schema
        self._transactions = transactions
        # Which writes the other site was asked to have yield: once is enough, unless a worker restarts.
        self._asked: set[tuple[Entity, Stamp]] = set()

    async def clashed(self, batch: Batch, change: Change, failure: Failure) -> None:
        """Judge a change that wants a unique value which another row has. Raises ApplyFailed if it waits."""

        async def find(target: AsyncConnection) -> Obstacles:
            holders = await self._holders(target, change)
            have = f"{named(holders)} {'has' if len(holders) == 1 else 'have'}"
            if not holders:
                have = "a row of a transaction that has not ended has"
            # Whatever else is in its way counts, too: it may be what decides.
            others = orphaned(await self._missing(target, change))
            return Obstacles(f"{have} its {_unique(failure)} there", holders | others.rows)

        await self._judge(batch, change, failure, find)

    async def orphaned(self, batch: Batch, change: Change, failure: Failure) -> None:
        """Judge a change that refers to rows of two-way flows which are not there; like `clashed`."""

        async def find(target: AsyncConnection) -> Obstacles:
            return orphaned(await self._missing(target, change))

        await self._judge(batch, change, failure, find)

    async def referred_to(
        self, batch: Batch, change: Change, failure: Failure, obstacles: Obstacles
    ) -> None:
        """Judge a delete of a row that others refer to; like `clashed`."""

        async def find(target: AsyncConnection) -> Obstacles:
            still = await self._referred_to(target, change)
            return obstacles if still else Obstacles(obstacles.because)

        await self._judge(batch, change, failure, find)

    async def refuse(self, batch: Batch, change: Change, because: str) -> None:
        """Refuse it, whoever wrote last what is in its way. Raises ApplyFailed."""
        async with self._transaction(change) as target:
            decision = refusing(change, self._sites.target_site.other)
            await self._refuse(target, batch, change, decision, Obstacles(because))

    async def _judge(
        self,
        batch: Batch,
        change: Change,
        failure: Failure,
        find: Callable[[AsyncConnection], Awaitable[Obstacles]],
    ) -> None:
        """Refuse the change; raises ApplyFailed if it waits, or if nothing is in its way any more."""
        site, asked = self._sites.target_site, set[tuple[Entity, Stamp]]()
        async with self._transaction(change) as target:
            obstacles = await find(target)
            rows = await self._look(target, obstacles)
            decision = decide(change, rows, here=site, there=site.other)
            match decision:
                case Wait(ask):
                    last = {row.entity: row.last for row in rows}
                    asked = {(entity, last[entity]) for entity in ask} - self._asked
                    await self._ask(target, [entity for entity, _ in asked])
                case Refuse():
                    if batch.fence != FromParked(judged=True) and await self._parked(
                        target, obstacles
                    ):
                        decision = Wait()  # for what is parked of them: together they may fit
                    else:
                        await self._refuse(target, batch, change, decision, obstacles)
                case _ as never:
                    assert_never(never)
        # Once it is committed: a request that was not would never be repeated.
        self._asked = (self._asked if len(self._asked) < MOST_ASKED else set()) | asked
        if isinstance(decision, Wait):
            raise _waits(change, obstacles, failure)

    @asynccontextmanager
    async def _transaction(self, change: Change) -> AsyncIterator[AsyncConnection]:
        """Open a transaction to judge in. A row that somebody holds has this change wait alone."""
        try:
            async with self._sites.exclusively():
                target = await self._sites.target()
                async with self._transactions.in_parts(target, "share"):
                    yield target
        except ApplyFailed as error:
            if error.failure.policy is Policy.WAIT and not error.entities:
                entity = change.entity
                raise ApplyFailed(error.failure, [entity]) from error
            raise

    async def _look(self, target: AsyncConnection, obstacles: Obstacles) -> list[InTheWay]:
        cursor = await target.execute(statement(ADVANCE["in_the_way"]), _listed(obstacles.rows))
        found = {
            (table, entity_id): InTheWay((table, entity_id), Stamp(version, site), reserved)
            for table, entity_id, version, site, reserved in await cursor.fetchall()
        }
        return [found.get(entity, InTheWay(entity)) for entity in sorted(obstacles.rows)]

    async def _parked(self, target: AsyncConnection, obstacles: Obstacles) -> bool:
        """Say whether changes of rows that are in the way are parked here themselves."""
        values = {"flow": self._flow.name, **_listed(obstacles.rows)}
        row = await (await target.execute(statement(WON["any_parked"]), values)).fetchone()
        return bool(row and row[0])

    async def _ask(self, target: AsyncConnection, entities: Collection[Entity]) -> None:
        for table, entity_id in entities:
            if table in self._schema.statements:
                qualified = self._flow.table(table).qualified
                values = {"target": qualified, "ids": [entity_id], "yields": True}
                await target.execute(statement(ADVANCE["tell_again"]), values)

    async def _referred_to(self, target: AsyncConnection, change: Change) -> bool:
        """Say whether something refers to the row still; what lets go of it holds for the look only."""
        values = {"table": self._flow.table(change.table).qualified, "ids": [change.entity_id]}
        try:
            async with target.transaction(force_rollback=True):
                await target.execute(statement(PARENTS["would_release"]), values)
        except psycopg.Error as error:
            if error.sqlstate != REFERRED_TO:
                raise
            return True
        return False

    async def _refuse(
        self,
        target: AsyncConnection,
        batch: Batch,
        change: Change,
        decision: Refuse,
        obstacles: Obstacles,
    ) -> None:
        because = f"{change.table} {change.entity_id}: {obstacles.because}"[:LONGEST_REASON]
        if await self._refused(target, change) >= MOST_REFUSALS:
            fight = notification.fight(self._flow.name, because, MOST_REFUSALS)
            self._notify(fight)
            entity = change.entity
            raise ApplyFailed(Failure(Policy.PARK, "23505", because, fight.message), [entity])
        values = {
            "target": self._flow.table(change.table).qualified,
            "id": change.entity_id,
            "over_version": decision.over.version,
            "over_site": decision.over.site,
            "version": decision.stamp.version,
            "because": because,
            "nulls": [] if change.refusal else [*obstacles.nulls],
            "message": change.message.decode(),
        }
        async with self._transactions.fenced(target, batch):
            await target.execute(statement(ADVANCE["refuse"]), values)
            for each in batch.changes:
                outcome = Outcome.REFUSED if each is change else Outcome.SUPERSEDED
                await target.execute(statement(ADVANCE["log_refusal"]), _logged(each, outcome))

    async def _missing(self, target: AsyncConnection, change: Change) -> list[Missing]:
        """Find what it refers to that is not here, and that may come and go on both sites."""
        values = {
            "target": self._flow.table(change.table).qualified,
            "image": (change.image or b"{}").decode(),
        }
        cursor = await target.execute(statement(PARENTS["missing_parents"]), values)
        row = await cursor.fetchone()
        missing = decode_missing(row[0]) if row else ()
        return [each for each in missing if each.flow is not None and each.flow.owner is None]

    async def _holders(self, target: AsyncConnection, change: Change) -> frozenset[Entity]:
        """Find who holds what it wants, and lock them as a user's own write would."""
        statements = self._schema.statements[change.table]
        wanted = toast.only(bytes(change.image or b"{}").decode(), statements.blocking)
        images = {"images": Json.of([wanted])}

        async def blocking() -> list[str]:
            found = [
                await (await target.execute(q, images)).fetchall() for q in statements.blockers
            ]
            return sorted({row[0] for rows in found for row in rows})

        await target.execute(statements.lock, {"ids": await blocking()})
        # One may have moved while it was waited for.
        return frozenset((change.table, each) for each in await blocking())

    async def _refused(self, target: AsyncConnection, change: Change) -> int:
        values = {"table": change.table, "id": change.entity_id}
        row = await (await target.execute(statement(ADVANCE["refusals"]), values)).fetchone()
        return int(row[0]) if row else 0


def _logged(change: Change, outcome: Outcome) -> dict[str, object]:
    return {
        "outcome": outcome,
        "op": change.operation.value,
        "table": change.table,
        "id": change.entity_id,
        "topic": change.topic,
        "partition": change.partition,
        "offset": change.offset,
        "version": change.version,
        "change": change.message.decode(),
    }


def _waits(change: Change, obstacles: Obstacles, failure: Failure) -> ApplyFailed:
    entity = change.entity
    hint = f"{obstacles.because}; it waits until that changes"
    parked = replace(failure, policy=Policy.PARK, hint=hint)
    return ApplyFailed(parked, [entity], {entity: obstacles.rows})


def _listed(rows: Collection[Entity]) -> dict[str, Json]:
    return {"rows": Json.of([{"table": table, "id": entity_id} for table, entity_id in rows])}


def named(rows: Iterable[Entity]) -> str:
    """Name the rows, or the first of many."""
    listed = sorted(rows)
    more = f" and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
    return ", ".join(" ".join(row) for row in listed[:MOST_NAMED]) + more


def _unique(failure: Failure) -> str:
    """Name what two rows cannot both have, as PostgreSQL does."""
    found = _KEY.search(failure.detail)
    return found.group(1) if found else "unique value"
