"""Refuses changes that rows of the target are in the way of, or has them wait: core/refusal.py decides."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from psycopg import AsyncConnection

from ftstream.adapters.postgres.connection import Json
from ftstream.adapters.postgres.parents import Missing, decode_missing
from ftstream.adapters.postgres.queries import statement
from ftstream.adapters.postgres.schema import Schema
from ftstream.adapters.postgres.sites import ApplyFailed, Sites
from ftstream.adapters.postgres.statements import QUERIES, REGISTER
from ftstream.adapters.postgres.transaction import Transactions
from ftstream.core import notification, unavailable
from ftstream.core.change import Change, Stamp
from ftstream.core.failures import Failure, Policy
from ftstream.core.notification import Notification
from ftstream.core.plan import Batch, Entity, aside_row
from ftstream.core.refusal import InTheWay, Refuse, Wait, decide
from ftstream.core.register import stamp_of
from ftstream.flows import Flow

MOST_REFUSALS = 50
"""Of one row in ten minutes: two programs that fight over a value are a person's to part."""

Tell = Callable[[Notification], None]


_KEY = re.compile(r"^Key (\(.*\)=\(.*\)) already exists", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Obstacles:
    """What is in a change's way: rows of the target, and rows that are `missing` there.

    `nulls` are the columns that refer to what is missing, where the row could do without; a row that could
    is told the other site without them.
    """

    because: str
    rows: frozenset[Entity] = frozenset()
    missing: frozenset[Entity] = frozenset()
    nulls: tuple[str, ...] = ()

    @property
    def entities(self) -> frozenset[Entity]:
        return self.rows | self.missing


def orphaned(missing: Collection[Missing]) -> Obstacles:
    """What is in the way of a row that refers to rows of two-way flows which are not there."""
    because = "; ".join(each.because for each in missing)
    nulls = tuple(name for each in missing for name in each.by)
    spared = all(each.optional and each.within for each in missing)
    entities = frozenset(each.parent_entity for each in missing)
    return Obstacles(because, missing=entities, nulls=nulls if spared else ())


class Refusals:
    """Of one flow and target."""

    def __init__(
        self, flow: Flow, sites: Sites, schema: Schema, transactions: Transactions, tell: Tell
    ) -> None:
        self._flow = flow
        self._tell = tell
        self._sites = sites
        self._schema = schema
        self._transactions = transactions
        # Which writes the other site was asked to have yield: once is enough, unless a worker starts anew.
        self._asked: set[tuple[Entity, Stamp]] = set()

    async def clashed(self, batch: Batch, change: Change, failure: Failure) -> None:
        """Judge a change that wants a unique value which another row has. Raises ApplyFailed if it waits."""
        async with self._sites.exclusively():
            target = await self._sites.target()
            async with target.transaction():
                await self._transactions.open(target, "share")
                holders = await self._holders(target, change)
                have = named(holders) or "a row of a transaction that has not ended"
                because = f"{have} has its {_unique(failure)} there"
                # Whatever else is in its way counts, too: it may be what decides.
                others = orphaned(await self._missing(target, change))
                obstacles = replace(others, because=because, rows=holders, nulls=())
                waiting = await self._judge(target, batch, change, obstacles)
        if waiting:
            raise _waits(change, obstacles, failure)

    async def judge(
        self, batch: Batch, change: Change, obstacles: Obstacles, failure: Failure
    ) -> None:
        """Refuse a change, or raise ApplyFailed: it waits for what is in its way."""
        async with self._sites.exclusively():
            target = await self._sites.target()
            async with target.transaction():
                await self._transactions.open(target, "share")
                waiting = await self._judge(target, batch, change, obstacles)
        if waiting:
            raise _waits(change, obstacles, failure)

    async def refuse(self, batch: Batch, change: Change, because: str) -> None:
        """Refuse it, whoever wrote last what is in its way. Raises ApplyFailed."""
        async with self._sites.exclusively():
            target = await self._sites.target()
            async with target.transaction():
                await self._transactions.open(target, "share")
                stamp = stamp_of(change)
                decision = Refuse(stamp, Stamp(stamp.version + 1, stamp.site))
                await self._refuse(target, batch, change, decision, Obstacles(because))

    async def _judge(
        self, target: AsyncConnection, batch: Batch, change: Change, obstacles: Obstacles
    ) -> bool:
        """Whether the change waits; else it is refused."""
        rows = await self._look(target, obstacles)
        site = self._sites.target_site
        match decide(change, rows, here=site, there=site.other, tie=self._flow.tie):
            case Wait(ask):
                await self._ask(target, ask, {row.entity: row.last for row in rows})
                return True
            case Refuse() as decision:
                await self._refuse(target, batch, change, decision, obstacles)
                return False

    async def _look(self, target: AsyncConnection, obstacles: Obstacles) -> list[InTheWay]:
        asked = [{"table": table, "id": entity_id} for table, entity_id in obstacles.entities]
        cursor = await target.execute(statement(REGISTER["in_the_way"]), {"rows": Json.of(asked)})
        found = {
            (table, entity_id): InTheWay((table, entity_id), Stamp(version, site), reserved)
            for table, entity_id, version, site, reserved in await cursor.fetchall()
        }
        return [found.get(entity, InTheWay(entity)) for entity in sorted(obstacles.entities)]

    async def _ask(
        self, target: AsyncConnection, entities: Collection[Entity], last: Mapping[Entity, Stamp]
    ) -> None:
        for table, entity_id in entities:
            write = ((table, entity_id), last[table, entity_id])
            if write not in self._asked and table in self._schema.statements:
                self._asked.add(write)
                qualified = self._flow.table(table).qualified
                values = {"target": qualified, "ids": [entity_id], "yields": True}
                await target.execute(statement(REGISTER["tell_again"]), values)

    async def _refuse(
        self,
        target: AsyncConnection,
        batch: Batch,
        change: Change,
        decision: Refuse,
        obstacles: Obstacles,
    ) -> None:
        if await self._refused(target, change) >= MOST_REFUSALS:
            fight = notification.fight(
                self._flow.name, f"{change.table} {change.entity_id}: {obstacles.because}"
            )
            self._tell(fight)
            raise ApplyFailed(Failure(Policy.PARK, "23505", obstacles.because, fight.message))
        await self._transactions.advance(target, batch)
        values = {
            "target": self._flow.table(change.table).qualified,
            "id": change.entity_id,
            "over_version": decision.over.version,
            "over_site": decision.over.site,
            "version": decision.stamp.version,
            "because": f"{change.table} {change.entity_id}: {obstacles.because}",
            "nulls": [] if change.refusal else [*obstacles.nulls],
            "message": change.message.decode(),
        }
        await target.execute(statement(REGISTER["refuse"]), values)
        for each in batch.changes:
            await target.execute(statement(REGISTER["log_refusal"]), _logged(each))
        if entries := [*map(aside_row, batch.aside)]:
            await target.execute(statement(QUERIES["log"]), {"rows": Json.of(entries)})

    async def _missing(self, target: AsyncConnection, change: Change) -> list[Missing]:
        """What it refers to that is not here, and that may come and go on both sites."""
        values = {
            "target": self._flow.table(change.table).qualified,
            "image": (change.image or b"{}").decode(),
        }
        cursor = await target.execute(statement(REGISTER["missing_parents"]), values)
        row = await cursor.fetchone()
        missing = decode_missing(row[0]) if row else ()
        return [each for each in missing if each.flow is not None and each.flow.owner is None]

    async def _holders(self, target: AsyncConnection, change: Change) -> frozenset[Entity]:
        """Who holds what it wants, locked as a user's own write would lock them."""
        statements = self._schema.statements[change.table]
        wanted = unavailable.only(bytes(change.image or b"{}").decode(), statements.blocking)
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
        row = await (await target.execute(statement(REGISTER["refusals"]), values)).fetchone()
        return int(row[0]) if row else 0


def _logged(change: Change) -> dict[str, object]:
    return {
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
    entity = (change.table, change.entity_id)
    hint = f"{obstacles.because}; it waits until that changes"
    parked = replace(failure, policy=Policy.PARK, hint=hint)
    return ApplyFailed(parked, [entity], {entity: obstacles.entities})


def named(rows: Iterable[Entity]) -> str:
    """The rows in words."""
    return ", ".join(" ".join(row) for row in sorted(rows))


def _unique(failure: Failure) -> str:
    """What two rows cannot both have, as PostgreSQL names it."""
    found = _KEY.search(failure.detail)
    return found.group(1) if found else "unique value"
