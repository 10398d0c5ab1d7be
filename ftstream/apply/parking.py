"""The parked changes of one flow and target: which rows have some, and trying them again."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from itertools import groupby

import msgspec

from ftstream import notification
from ftstream.apply.applier import Applier
from ftstream.apply.intake import Decode
from ftstream.apply.merge import Batch, FromParked, Patch, Position, effects
from ftstream.apply.offsets import Offsets
from ftstream.apply.parked import MALFORMED, WAITS_BEHIND, ParkedState
from ftstream.apply.parked_store import Parked, ParkedChanges
from ftstream.apply.sites import ApplyFailed
from ftstream.failures import OF_ANOTHER, OF_ONE_TABLE, Failure, Policy
from ftstream.kafka.partition import Partition
from ftstream.messages.change import Change, Entity, MalformedMessage, Operation
from ftstream.notification import Notify

log = logging.getLogger(__name__)

ROUND_SECONDS = 1.0

GONE_ROUNDS = 60
"""After which it is looked again which rows still have changes waiting."""

Ends = Callable[[], Awaitable[Mapping[Partition, int] | None]]
"""Where all change topics of the flow end now, partitions of other workers included; None if Kafka
does not answer.
"""

_COUNTED = frozenset((Policy.PARK, Policy.DIVIDE, Policy.HALT))
"""Policies of failures that time alone does not fix."""

Decoded = tuple[Parked, Change]
"""A parked change as it is kept, and as it reads."""

Queue = list[Decoded]
"""Those of one row, in their order."""

MOST_TOGETHER = 100
"""Rows that need each other, and are tried together."""


class Parking:
    """Decides what waits behind a parked change, and tries parked changes until they are applied."""

    def __init__(
        self,
        flow: str,
        applier: Applier,
        offsets: Offsets,
        store: ParkedChanges,
        decode: Decode,
        ends: Ends,
        notify: Notify,
        dead_after: float,
    ) -> None:
        """`dead_after`: seconds of attempts that count, after which a change is dead."""
        self._flow = flow
        self._applier = applier
        self._offsets = offsets
        self._store = store
        self._decode = decode
        self._ends = ends
        self._notify = notify
        self._dead_after = dead_after
        self._partitions: tuple[Partition, ...] = ()
        # Rows that have parked or dead changes, each with a number that is new when one is added.
        self._queued: dict[Entity, int] = {}
        self._numbers = itertools.count()
        # The same, before the changes were read that are tried now.
        self._known: dict[Entity, int] = {}
        self._rounds = itertools.count(1)
        self._unfit: set[Entity] = set()
        # Where the topics ended when a row was first due.
        self._seen: dict[Entity, Mapping[Partition, int]] = {}

    @property
    def unfit(self) -> int:
        """Rows that this worker has parked for their values (not for their table), and that wait still."""
        return len(self._unfit & self._queued.keys())

    async def begin(self, partitions: Iterable[Partition]) -> None:
        """Try the changes of these partitions from now on. Raises ApplyFailed."""
        self._partitions = tuple(partitions)
        await self.learn(self._partitions)

    async def learn(self, partitions: Iterable[Partition]) -> None:
        """Learn which rows of these partitions have changes waiting. Raises ApplyFailed.

        What was known stays: batches may be in hand that were read before partitions moved.
        """
        for entity in await self._store.queued(partitions):
            self._queued[entity] = next(self._numbers)

    def forget(self) -> None:
        """Try nothing until partitions are assigned again."""
        self._partitions = ()

    def route(self, batch: Batch) -> Batch:
        """The batch with partial changes put behind the parked ones of their rows.

        A change that tells the whole row needs none before it: it settles them.
        """
        touched = batch.entities & self._queued.keys() if self._queued else ()
        if not touched:
            return batch
        mine = [c for c in batch.changes if c.entity in touched]
        behind = {e for e, effect in effects(mine).items() if isinstance(effect, Patch)}
        routed = batch.parking(dict.fromkeys(behind, WAITS_BEHIND)) if behind else batch
        return routed.settling(frozenset(touched) - behind)

    def applied(self, batch: Batch) -> None:
        """Take note of a batch that is in the database."""
        for entity in batch.settled:
            self._queued.pop(entity, None)
        self._unfit &= self._queued.keys()
        for parked in batch.parked:
            if parked.operation is not None:
                self._queued[parked.entity] = next(self._numbers)
                # A table of another shape parks all that comes for it, a stranger's foreign key all deletes;
                # the rest of the flow goes on.
                alone = parked.failure.sqlstate in (*OF_ONE_TABLE, OF_ANOTHER)
                if parked.failure.policy is Policy.PARK and not alone:
                    self._unfit.add(parked.entity)
        if unreadable := [parked for parked in batch.parked if parked.state is ParkedState.DEAD]:
            first = unreadable[0]
            self._died(len(unreadable), first.entity, first.failure)

    async def run(self) -> None:
        """Try what is due, once a second, until cancelled."""
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            if self._partitions:
                await self.try_due()

    async def try_due(self) -> None:
        """Try once what is due."""
        # A change that is parked from here on is not among those due.
        self._known = dict(self._queued)
        try:
            await self._forget_those_gone()
            due = _queues(await self._readable(await self._store.due(self._partitions)))
            if due:
                passed = await self._passed({queue[0][0].entity for queue in due})
                await self._try(due, passed)
        except ApplyFailed as error:
            # The writer meets the same trouble, and tells it.
            log.debug("flow %s: parked changes wait: %s", self._flow, error)

    async def _forget_those_gone(self) -> None:
        """Other workers apply rows of these partitions too, where rows of theirs need them."""
        if not self._known or next(self._rounds) % GONE_ROUNDS:
            return
        for entity in self._known.keys() - await self._store.waiting(self._known):
            if self._queued.get(entity) == self._known[entity]:
                self._queued.pop(entity, None)

    async def _readable(self, due: Sequence[Parked]) -> list[Decoded]:
        """Return those that are changes; the others, which somebody has had retried, are dead again."""
        readable: list[Decoded] = []
        for parked in due:
            try:
                readable.append((parked, self._decoded(parked)))
            except MalformedMessage as error:
                hint = "drop it, or fix what wrote it"
                failure = Failure(Policy.PARK, MALFORMED, str(error), hint)
                await self._store.postpone(
                    [parked], failure, counted=True, dead_after=0, alone=True
                )
                self._died(1, parked.entity, failure)
        return readable

    async def _passed(self, due: set[Entity]) -> set[Entity]:
        """Rows whose attempts count: all that was in Kafka when they were first due is applied.

        Until then something that they need may still be on its way in another partition.
        """
        now = await self._ends()
        if now is None:
            return set()
        applied = await self._offsets.applied(now)
        self._seen = {e: ends for e, ends in self._seen.items() if e in self._queued}
        for entity in due:
            self._seen.setdefault(entity, now)
        return {entity for entity in due if _reached(applied, self._seen[entity])}

    async def _try(self, queues: list[Queue], passed: set[Entity]) -> None:
        """Apply these rows' changes together; where that fails, in parts.

        Raises ApplyFailed where no row is to blame.
        """
        try:
            await self._apply(queues)
        except ApplyFailed as error:
            await self._divide(queues, error, passed)

    async def _apply(self, queues: Sequence[Queue], *, judged: bool = False) -> None:
        """All of it, or nothing; `judged`: see FromParked. Raises ApplyFailed."""
        changes = tuple(change for queue in queues for _, change in queue)
        await self._applier.apply(Batch(changes, FromParked(judged)))
        for entity in (queue[0][0].entity for queue in queues):
            if self._queued.get(entity) == self._known.get(entity):
                self._queued.pop(entity, None)
        log.warning("flow %s: %d parked changes are applied", self._flow, len(changes))

    async def _divide(self, queues: list[Queue], error: ApplyFailed, passed: set[Entity]) -> None:
        """Postpone the rows that are to blame, and try the others."""
        failure, named = error.failure, error.entities
        if failure.policy is Policy.FENCED and len(queues) == 1:
            return  # taken by another, or settled meanwhile
        if failure.policy in (Policy.RETRY, Policy.WAIT) and not named:
            raise error
        if named:
            blamed = [queue for queue in queues if queue[0][0].entity in named]
            rest = [queue for queue in queues if queue[0][0].entity not in named]
        else:
            blamed, rest = (queues, []) if len(queues) == 1 else ([], queues)
        needed = await self._parked_among(error.needs)
        for queue in blamed:
            entity = queue[0][0].entity
            needs = needed & set(error.needs.get(entity, ()))
            cause: Failure | None = error.causes.get(entity, failure)
            if needs:
                together = await self._together(queue, needs)
                cause = None if together else await self._judge(queue)
            if cause is not None:
                await self._postpone([parked for parked, _ in queue], cause, passed)
        if not blamed:
            middle = len(rest) // 2
            await self._try(rest[:middle], passed)
            await self._try(rest[middle:], passed)
        elif rest:
            await self._try(rest, passed)

    async def _parked_among(self, needs: Mapping[Entity, Collection[Entity]]) -> set[Entity]:
        """Return those of the needed rows that have parked changes, whoever tries them."""
        rows = {row for needed in needs.values() for row in needed}
        return {parked.entity for parked in await self._store.of(rows)} if rows else set()

    async def _together(self, queue: Queue, needs: set[Entity]) -> bool:
        """Apply a row together with parked ones that it needs, and what those need; whether it is.

        Two may wait for each other: the one for a unique value of the other, which, where it is to have
        another, refers to the first. The other may be of another worker's partition.
        """
        group, looked_at = [queue], {queue[0][0].entity}
        while wanted := needs - looked_at:
            looked_at |= wanted
            more = _queues(await self._readable(await self._store.of(wanted)))
            if not more or len(group) + len(more) > MOST_TOGETHER:
                return False
            try:
                await self._apply([*group, *more])
            except ApplyFailed as error:
                needs = _needs(error)
            else:
                return True
            for each in more:
                try:
                    await self._apply([each])
                except ApplyFailed as error:
                    needs |= _needs(error)
                    group.append(each)
        return False

    async def _judge(self, queue: Queue) -> Failure | None:
        """Have what is in a row's way decide, since no other parked row helps; why it waits, if it does."""
        try:
            await self._apply([queue], judged=True)
        except ApplyFailed as error:
            if error.failure.policy is Policy.RETRY:
                raise
            return error.causes.get(queue[0][0].entity, error.failure)
        return None

    async def _postpone(
        self, queue: Sequence[Parked], failure: Failure, passed: set[Entity]
    ) -> None:
        entity = queue[0].entity
        counted = failure.policy in _COUNTED and entity in passed
        if await self._store.postpone(queue, failure, counted=counted, dead_after=self._dead_after):
            self._died(len(queue), entity, failure)

    def _decoded(self, parked: Parked) -> Change:
        """The change that was parked. Raises MalformedMessage."""
        change = self._decode(
            parked.table, *parked.partition, parked.offset, parked.key, parked.message
        )
        if change is None:
            raise MalformedMessage("a record without a value")
        if not parked.reread or change.site:
            return change
        # Later changes of its row may be applied: what it says is old, and the owner knows what is true.
        return msgspec.structs.replace(
            change, operation=Operation.REPAIR, image=None, partial=False, source_transaction=None
        )

    def _died(self, changes: int, entity: Entity, failure: Failure) -> None:
        what = f"{' '.join(entity)}: {failure.message}"
        self._notify(notification.dead(self._flow, changes, what))


def _queues(changes: Sequence[Decoded]) -> list[Queue]:
    in_order = sorted(changes, key=_entity)  # a stable sort: within a row, that of the log
    return [list(of_row) for _, of_row in groupby(in_order, key=_entity)]


def _needs(error: ApplyFailed) -> set[Entity]:
    """Return what the rows that failed wait for. Raises the error if no row is to blame for it."""
    if error.failure.policy is Policy.RETRY:
        raise error
    return {row for needed in error.needs.values() for row in needed}


def _entity(decoded: Decoded) -> Entity:
    return decoded[0].entity


def _reached(applied: Mapping[Partition, Position], ends: Mapping[Partition, int]) -> bool:
    return all(p in applied and applied[p].next >= end for p, end in ends.items())
