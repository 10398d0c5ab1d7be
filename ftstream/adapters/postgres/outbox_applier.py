"""Applies what sites have written to their outboxes: the last write of each entity stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from psycopg import AsyncConnection, sql

from ftstream.adapters.postgres.catalogs import Catalogs
from ftstream.adapters.postgres.connection import Json
from ftstream.adapters.postgres.misfit import Misfits
from ftstream.adapters.postgres.parents import Parents
from ftstream.adapters.postgres.queries import literal, statement
from ftstream.adapters.postgres.refusal import Refusals
from ftstream.adapters.postgres.rows import locked
from ftstream.adapters.postgres.schema import Schema, newest_shapes
from ftstream.adapters.postgres.sites import ApplyFailed, Sites
from ftstream.adapters.postgres.statements import QUERIES, REGISTER, Shape
from ftstream.adapters.postgres.transaction import Transactions, own_names
from ftstream.core import notification, unavailable
from ftstream.core.change import Change
from ftstream.core.failures import PARENT_MISSING, REFERRED_TO, Failure, Policy
from ftstream.core.notification import Notification
from ftstream.core.plan import Batch, Entity, Outcome, aside_row, effects
from ftstream.core.register import newest
from ftstream.flows import Flow
from ftstream.settings import Apply

Tell = Callable[[Notification], None]

Outcomes = Mapping[Outcome, tuple[int, int]]
"""How often each outcome came to be, and the least lag in milliseconds."""


class OutboxApplier:
    """Writes the changes of a flow captured by outbox to one target site."""

    def __init__(
        self, flow: Flow, sites: Sites, schema: Schema, settings: Apply, tell: Tell
    ) -> None:
        self._flow = flow
        self._sites = sites
        self._schema = schema
        self._settings = settings
        self._tell = tell
        self._catalogs = Catalogs(sites, schema)
        self._transactions = Transactions(flow.name, settings)
        self._misfits = Misfits(sites, self._transactions)
        self._refusals = Refusals(flow, sites, schema, self._transactions)
        self._parents = Parents(sites, self._transactions)
        self._carried = [table.qualified for table in flow.tables]
        self._advance = statement(REGISTER["advance_last_write"]).format(tie=literal(flow.tie))

    async def prepare(self, sites: Sites | None = None) -> bool:
        """Read both catalogs, through these connections or its own; True if a table has changed.

        Raises ApplyFailed.
        """
        return await self._catalogs.read(sites)

    async def apply(self, batch: Batch) -> None:
        """Apply the batch, whole or not at all. Raises ApplyFailed."""
        try:
            await self._catalogs.attempt(newest_shapes(batch), partial(self._attempt, batch))
        except ApplyFailed as error:
            rows = effects(batch.changes)
            failure = await self._misfits.named(error.failure, self._schema.statements, rows)
            raise ApplyFailed(failure, error.entities) from error

    async def _attempt(self, batch: Batch, shapes: Mapping[str, Shape]) -> None:
        writes = newest(batch.changes, self._flow.tie)
        try:
            async with self._sites.exclusively():
                outcomes = await self._write(batch, writes, shapes)
        except ApplyFailed as error:
            outcomes = await self._otherwise(batch, writes, shapes, error)
        self._look_at_clocks(outcomes)

    async def _otherwise(
        self,
        batch: Batch,
        writes: Mapping[Entity, Change],
        shapes: Mapping[str, Shape],
        error: ApplyFailed,
    ) -> Outcomes:
        """What to do where the batch cannot be applied as it is. Raises ApplyFailed."""
        failure = error.failure
        if failure.policy is Policy.WAIT:
            raise await self._waiting(failure, writes) from error
        if failure.policy is Policy.REREAD:  # a unique value has moved
            return await self._clashed(batch, writes, shapes, error)
        if failure.sqlstate == PARENT_MISSING:
            await self._parents.carry(failure)
            await self._attempt(batch, shapes)
            return {}
        if failure.sqlstate == REFERRED_TO:
            await self._refuse_deletes(batch, writes, error)
            return {}
        raise error

    async def _refuse_deletes(
        self, batch: Batch, writes: Mapping[Entity, Change], error: ApplyFailed
    ) -> None:
        """A row that something refers to stays; the other site, if it may write too, gets it back."""
        if len(writes) > 1:
            raise ApplyFailed(replace(error.failure, policy=Policy.DIVIDE)) from error
        if self._flow.owner is not None:
            raise error
        await self._refusals.refuse(batch, next(iter(writes.values())), error.failure)

    async def _clashed(
        self,
        batch: Batch,
        writes: Mapping[Entity, Change],
        shapes: Mapping[str, Shape],
        error: ApplyFailed,
    ) -> Outcomes:
        """Have the rows change their unique values all at once; what is in one row's way, judge."""
        try:
            async with self._sites.exclusively():
                return await self._write(batch, writes, shapes, moving=True)
        except ApplyFailed as again:
            if again.failure.policy is not Policy.REREAD:
                raise
        if len(writes) > 1:
            raise ApplyFailed(replace(error.failure, policy=Policy.DIVIDE)) from error
        await self._refusals.judge(batch, next(iter(writes.values())), error.failure)
        return {}

    async def _write(
        self,
        batch: Batch,
        writes: Mapping[Entity, Change],
        shapes: Mapping[str, Shape],
        *,
        moving: bool = False,
    ) -> Outcomes:
        """In one round trip, unless unique values move: then rows go before they come."""
        target = await self._sites.target()
        logged: Any = None
        async with nullcontext() if moving else target.pipeline():
            await target.execute("begin")
            await self._transactions.open(target, "share")
            await self._transactions.advance(target, batch)
            if writes:
                await self._write_rows(target, writes, shapes, moving)
                rows = {"changes": Json.of([*_logged(batch, writes)])}
                logged = await target.execute(statement(REGISTER["log_writes"]), rows)
            if entries := [*map(aside_row, batch.aside)]:
                await target.execute(statement(QUERIES["log"]), {"rows": Json.of(entries)})
            await target.execute("commit")
        if logged is None:
            return {}
        return {Outcome(name): (count, lag) for name, count, lag in await logged.fetchall()}

    async def _write_rows(
        self,
        target: AsyncConnection,
        writes: Mapping[Entity, Change],
        shapes: Mapping[str, Shape],
        moving: bool,
    ) -> None:
        tables = {name: _of_table(name, writes) for name in self._schema.statements}
        tables = {name: changes for name, changes in tables.items() if changes}
        for name, changes in tables.items():
            ids = {"ids": [change.entity_id for change in changes]}
            await target.execute(self._schema.statements[name].lock, ids)
        stamps = {"writes": Json.of([_stamp(change) for change in writes.values()])}
        await target.execute(self._advance, stamps)
        alone = await self._alone(target, tables) if moving else {}
        for name, changes in tables.items():
            deletes = [change.message for change in changes if moving or change.image is None]
            if deletes:
                query = self._schema.statements[name].delete_won
                await self._release(target, name, changes)
                await target.execute(query, {"messages": Json.array(deletes)})
        for name, changes in tables.items():
            for query, messages in self._upserts(name, changes, shapes.get(name)):
                await target.execute(query, {"messages": Json.array(messages)})
        for name, images in alone.items():
            if restore := self._schema.statements[name].restore_alone:
                await target.execute(restore, {"images": Json.array(images)})

        for name, changes in tables.items():
            if messages := [change.message for change in changes if change.image is not None]:
                rows = {**self._named(name), "messages": Json.array(messages)}
                await target.execute(statement(REGISTER["require_parents"]), rows)

    async def _release(self, target: AsyncConnection, name: str, changes: list[Change]) -> None:
        """Foreign keys are not looked after while ftstream applies: see migration 008."""
        if gone := [change.message for change in changes if change.image is None]:
            rows = {**self._named(name), "messages": Json.array(gone), "carried": self._carried}
            await target.execute(statement(REGISTER["release_children"]), rows)

    def _named(self, name: str) -> dict[str, str]:
        return {"name": name, "table": self._flow.table(name).qualified}

    async def _alone(
        self, target: AsyncConnection, tables: Mapping[str, list[Change]]
    ) -> dict[str, list[bytes]]:
        """What the target alone holds of rows that are deleted and inserted again."""
        found = {}
        for name, changes in tables.items():
            if query := self._schema.statements[name].read_alone:
                ids = {"ids": [change.entity_id for change in changes]}
                rows = await (await target.execute(query, ids)).fetchall()
                found[name] = [unavailable.keyed(image, entity_id) for entity_id, image in rows]
        return found

    def _upserts(
        self, name: str, changes: list[Change], shape: Shape | None
    ) -> Iterator[tuple[sql.Composed, list[bytes]]]:
        by_shape: dict[Shape, list[bytes]] = {}
        for change in changes:
            if change.image is not None:
                key = shape or unavailable.names(change.image)
                by_shape.setdefault(key, []).append(change.message)
        for each, messages in by_shape.items():
            yield self._schema.statements[name].won(each), messages

    async def _waiting(self, failure: Failure, writes: Mapping[Entity, Change]) -> ApplyFailed:
        """The failure with those of these that wait for a user's transaction; none, if it is a table.

        A row that a user has inserted and not committed is not to be seen: it is found by applying its
        change alone.
        """
        async with self._sites.exclusively():
            target = await self._sites.target()
            async with own_names(target):
                await self._transactions.limit(target)
                if held := await locked(target, self._schema.statements, writes):
                    return ApplyFailed(failure, held)
                tables = [f"{t.schema}.{t.name}" for t in self._flow.tables]
                values = {"tables": [*tables, "ftstream.last_write"]}
                cursor = await target.execute(statement(REGISTER["table_locked"]), values)
                row = await cursor.fetchone()
        if row is not None and row[0]:
            return ApplyFailed(failure)
        if len(writes) > 1:
            return ApplyFailed(replace(failure, policy=Policy.DIVIDE))
        return ApplyFailed(failure, writes)

    def _look_at_clocks(self, outcomes: Outcomes) -> None:
        ahead = max((-lag for _, lag in outcomes.values()), default=0) / 1000
        if ahead > self._settings.clock_skew_seconds:
            self._tell(notification.clock_ahead(self._flow.name, ahead))


def _of_table(name: str, writes: Mapping[Entity, Change]) -> list[Change]:
    return [change for (table, _), change in writes.items() if table == name]


def _stamp(change: Change) -> dict[str, object]:
    return {
        "table": change.table,
        "id": change.entity_id,
        "op": change.operation,
        "version": change.version,
        "site": change.site,
    }


def _logged(batch: Batch, writes: Mapping[Entity, Change]) -> Iterator[dict[str, object]]:
    for change in batch.changes:
        yield _stamp(change) | {
            "newest": writes[change.table, change.entity_id] is change,
            "topic": change.topic,
            "partition": change.partition,
            "offset": change.offset,
            "change": msgspec.Raw(change.message),
        }
