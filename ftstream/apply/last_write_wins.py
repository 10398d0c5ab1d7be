"""Applies what sites have written to their outboxes: the last write of each entity stays."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import msgspec

from ftstream import metrics, notification
from ftstream.apply.merge import Batch
from ftstream.apply.parents import Parents, decode_missing, decode_referring, referred_to
from ftstream.apply.refuse import Obstacles, Refusals, named
from ftstream.apply.rows import locked
from ftstream.apply.schema import Schema
from ftstream.apply.sites import ApplyFailed, Sites
from ftstream.apply.statements import ADVANCE, WON, Shape
from ftstream.apply.transaction import Transactions, own_names
from ftstream.apply.won_rows import WonRows, Writes, stamp
from ftstream.failures import (
    FROM_THE_FUTURE,
    NEVER_MET,
    PARENT_MISSING,
    REFERRED_TO,
    Failure,
    Policy,
)
from ftstream.flows import Flow, Site
from ftstream.last_write.reconciled import unreconciled
from ftstream.last_write.rule import newest
from ftstream.last_write.seen import Look, losers, nothing_seen
from ftstream.messages.change import Change, Entity
from ftstream.notification import Notify
from ftstream.outcomes import Outcome
from ftstream.postgres.connection import Json
from ftstream.postgres.queries import statement

log = logging.getLogger(__name__)

FUTURE_SECONDS = 3600.0
"""How far a write may be ahead of both sites' clocks, and of the worker's."""

HANDED_OVER = "ftstream"
"""The author of what nobody has written: see ftstream.hand_over_again."""

Outcomes = Mapping[Outcome, tuple[int, int]]
"""How often each outcome came to be, and the least lag in milliseconds."""


class LastWriteWins:
    """The strategy of flows captured by outbox, at one target site."""

    def __init__(
        self,
        flow: Flow,
        sites: Sites,
        schema: Schema,
        transactions: Transactions,
        clock_skew: float,
        notify: Notify,
        look: Look = nothing_seen,
    ) -> None:
        """`clock_skew`: seconds a write may come from the future; `look`: see last_write/seen.py."""
        self._flow = flow
        self._look = look
        self._sites = sites
        self._schema = schema
        self._clock_skew = clock_skew
        self._notify = notify
        self._latest, self._looked_at = 0.0, time.monotonic()
        self._transactions = transactions
        self._refusals = Refusals(flow, sites, schema, transactions, notify)
        self._parents = Parents(sites, transactions)
        self._rows = WonRows(flow)

    async def begin(self, sites: Sites) -> None:
        """Raises ApplyFailed, as long as a site may hold rows that the other was never told of."""
        async with sites.exclusively():
            connections = {
                sites.target_site: await sites.target(),
                sites.target_site.other: await sites.source(),
            }
            for site in self._flow.sources:
                if names := await unreconciled(connections[site], self._flow.tables):
                    raise ApplyFailed(_apart(self._flow, site, names))

    async def apply(self, batch: Batch, shapes: Mapping[str, Shape]) -> None:
        """Apply the batch, whole or not at all. Raises ApplyFailed."""
        writes = Writes(batch, newest(batch.changes), shapes)
        await self._require_possible(writes)
        outcomes = await self._passing_by(writes)
        if outcomes is None:
            try:
                outcomes = await self._write(writes)
            except ApplyFailed as error:
                outcomes = await self._otherwise(writes, error)
        self._look_at(outcomes)

    async def _require_possible(self, writes: Writes) -> None:
        """Have writes wait that would win until a time that no clock of ours has: one was wrong, or lies."""
        # By the sites' clocks alone, as they were when they were last looked at: the worker's may be wrong.
        latest = self._latest + (time.monotonic() - self._looked_at) * 1_000_000
        limit = latest + FUTURE_SECONDS * 1_000_000
        ahead = [each for each in writes.newest.values() if _latest(each) > limit]
        if not ahead:
            return
        async with self._sites.exclusively():
            clocks = [
                await (await each.execute(statement(ADVANCE["clock"]))).fetchone()
                for each in (await self._sites.target(), await self._sites.source())
            ]
        latest = max(row[0] for row in clocks if row is not None)
        self._latest, self._looked_at = latest, time.monotonic()
        causes = {
            each.entity: _too_early(each, latest)
            for each in ahead
            if _latest(each) > latest + FUTURE_SECONDS * 1_000_000
        }
        if causes:
            seconds = max(map(_latest, ahead)) / 1_000_000 - latest / 1_000_000
            self._notify(notification.clock_ahead(self._flow.name, seconds))
            raise ApplyFailed(next(iter(causes.values())), causes, causes=causes)

    async def _passing_by(self, writes: Writes) -> Outcomes | None:
        """Apply the batch without locking what seems to have lost; None if nothing does, or not that way."""
        lost = losers(writes.batch.begins, writes.newest, self._look)
        if not lost:
            return None
        try:
            return await self._write(writes.passing_by(lost))
        except ApplyFailed as error:
            # Whatever it is, what follows is decided with the whole batch, as if nothing had been seen.
            log.debug("flow %s: once more, in full: %s", self._flow.name, error.failure.message)
            return None

    async def _otherwise(self, writes: Writes, error: ApplyFailed) -> Outcomes:
        """Return what to do where the batch cannot be applied as it is. Raises ApplyFailed."""
        failure = error.failure
        if failure.policy is Policy.WAIT:
            raise await self._waiting(failure, writes.newest) from error
        if failure.policy is Policy.REREAD:  # a unique value has moved
            return await self._clashed(writes, error)
        if failure.sqlstate == PARENT_MISSING:
            return await self._orphaned(writes, error)
        if failure.sqlstate == REFERRED_TO and self._flow.owner is None:
            await self._referred_to(writes, error)
            return {}
        raise error

    async def _clashed(self, writes: Writes, error: ApplyFailed) -> Outcomes:
        """Have the rows change their unique values all at once; what is in one row's way, judge."""
        try:
            return await self._write(writes, moving=True)
        except ApplyFailed as again:
            if again.failure.policy is not Policy.REREAD:
                return await self._otherwise(writes, again)
        await self._refusals.clashed(writes.batch, _single(writes, error), error.failure)
        return {}

    async def _orphaned(self, writes: Writes, error: ApplyFailed) -> Outcomes:
        """Bring what rows refer to, if no flow does; else they wait for it, or are refused.

        A row that this site owns, and does not have, was there when the other referred to it: it is deleted.
        """
        missing = decode_missing(error.failure.detail)
        owned = [each for each in missing if each.owner is self._sites.target_site]
        shared = [each for each in missing if each.flow is not None and each.owner is None]
        if self._flow.owner is None and owned:
            change = _single(writes, error)
            # Rows that are older than ftstream may refer to such as never came from here.
            if change.author != HANDED_OVER and await self._parents.come_from_here(owned):
                because = "; ".join(each.because for each in owned)
                await self._refusals.refuse(writes.batch, change, because)
                return {}
        elif self._flow.owner is None and shared and not any(each.owner for each in missing):
            change = _single(writes, error)
            failure = replace(error.failure, message="; ".join(each.message for each in shared))
            await self._refusals.orphaned(writes.batch, change, failure)
            return {}
        await self._parents.carry(error.failure)
        await self.apply(writes.batch, writes.shapes)
        return {}

    async def _referred_to(self, writes: Writes, error: ApplyFailed) -> None:
        """A row that something refers to stays: for good, if that is of no flow, or until it is known to."""
        change = _single(writes, error)
        referring = decode_referring(error.failure.detail)
        because = f"{named(each.child_entity for each in referring)} refers to it there"
        if all(each.flow is not None and each.flow.owner is None for each in referring):
            obstacles = Obstacles(because, frozenset(each.child_entity for each in referring))
            entity = change.entity
            failure = referred_to(error.failure, [entity]).causes.get(entity, error.failure)
            await self._refusals.referred_to(writes.batch, change, failure, obstacles)
        else:
            await self._refusals.refuse(writes.batch, change, because)

    async def _write(self, writes: Writes, *, moving: bool = False) -> Outcomes:
        """In one round trip, unless unique values move or rows are taken over."""
        batch, logged, taken = writes.batch, None, set[Entity]()
        reading = self._schema.reading
        async with self._sites.exclusively():
            target = await self._sites.target()
            transaction = (
                self._transactions.in_parts(target, "share")
                if moving or writes.refusals
                else self._transactions.in_one_trip(target)
            )
            checked = reading if writes.newest else None
            async with transaction, self._transactions.fenced(target, batch, checked):
                if writes.lost:
                    await self._rows.pass_by(target, writes.lost)
                if writes.newest:
                    taken = await self._rows.write(
                        target, reading.statements, writes, moving=moving
                    )
                if batch.changes:
                    rows = {"changes": Json.of([*_logged(writes, taken)])}
                    logged = await target.execute(statement(WON["log_writes"]), rows)
            found = await logged.fetchall() if logged is not None else []
        for change in (writes.newest[entity] for entity in taken):
            self._notify(notification.edit_refused(self._flow.name, change))
        return {Outcome(name): (count, lag) for name, count, lag in found}

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
                tables = [table.qualified for table in self._flow.tables]
                values = {"tables": [*tables, "ftstream.last_write"]}
                cursor = await target.execute(statement(WON["table_locked"]), values)
                row = await cursor.fetchone()
        if row is not None and row[0]:
            return ApplyFailed(failure)
        if len(writes) > 1:
            return ApplyFailed(replace(failure, policy=Policy.DIVIDE))
        return ApplyFailed(failure, writes)

    def _look_at(self, outcomes: Outcomes) -> None:
        counts = {outcome: changes for outcome, (changes, _) in outcomes.items()}
        metrics.count(self._flow.name, self._sites.target_site, counts)
        if refused := outcomes.get(Outcome.REFUSED):
            self._notify(notification.too_old(self._flow.name, refused[0]))
        ahead = max((-lag for _, lag in outcomes.values()), default=0) / 1000
        if ahead > self._clock_skew:
            self._notify(notification.clock_ahead(self._flow.name, ahead))


def _latest(change: Change) -> int:
    """The greatest version that applying it would note."""
    if change.refusal is None:
        return change.version
    return max(change.version, change.refusal.over.version, change.refusal.theirs.version)


def _too_early(change: Change, now: int) -> Failure:
    hours = (_latest(change) - now) / 3_600_000_000
    return Failure(
        Policy.PARK,
        FROM_THE_FUTURE,
        f"{change.table} {change.entity_id} was written {hours:,.0f} hours from now, by its version"
        f" {_latest(change)}: it would win over all that is written until then",
        f"a clock of {change.site} was wrong, or somebody who may write to the topic made it up: set the"
        " clock, write the row again there, and `ftstream dead drop` this",
    )


def _apart(flow: Flow, site: Site, tables: Sequence[str]) -> Failure:
    return Failure(
        Policy.RETRY,
        NEVER_MET,
        f"{site} may hold rows of {', '.join(tables)} that {site.other} was never told of",
        f"run `ftstream reconcile {flow.name}`",
    )


def _single(writes: Writes, error: ApplyFailed) -> Change:
    """The only write; of several, each is judged by itself: raises ApplyFailed."""
    if len(writes.newest) > 1:
        raise ApplyFailed(replace(error.failure, policy=Policy.DIVIDE)) from error
    return next(iter(writes.newest.values()))


def _logged(writes: Writes, taken: Collection[Entity]) -> Iterator[dict[str, object]]:
    for change in writes.batch.changes:
        entity = change.entity
        yield stamp(change) | {
            "newest": writes.newest.get(entity) is change,
            "lost": entity in writes.lost,
            "refusal": change.refusal is not None,
            "taken": entity in taken and writes.newest.get(entity) is change,
            "topic": change.topic,
            "partition": change.partition,
            "offset": change.offset,
            "change": msgspec.Raw(change.message),
        }
