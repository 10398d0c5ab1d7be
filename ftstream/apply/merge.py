"""What a batch of changes does to each entity: many changes of one row become one."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, assert_never

import msgspec

from ftstream.apply.parked import ParkedRecord, park
from ftstream.failures import Failure
from ftstream.kafka.partition import Partition
from ftstream.messages import toast
from ftstream.messages.change import Change, Entity, Operation
from ftstream.messages.toast import Columns
from ftstream.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class Upsert:
    """The row is this image, whole."""

    image: bytes


@dataclass(frozen=True, slots=True)
class Patch:
    """The row is these columns; the missing ones stay as they are in the target."""

    columns: Columns
    missing: frozenset[str]


@dataclass(frozen=True, slots=True)
class Reread:
    """The row is, but only its owner knows all of it (a partial image with no row to complete it)."""


@dataclass(frozen=True, slots=True)
class Read:
    """The row is as its owner holds it: PostgreSQL's text of every column, as a JSON object.

    `kept`: with what the target held in columns that it has alone.
    """

    texts: str
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """The row is gone."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The row was to be read from its owner, who does not have it any more."""


@dataclass(frozen=True, slots=True)
class Displace:
    """The row holds a unique value that another takes, and its owner does not have it: displaced."""


Effect = Upsert | Patch | Reread | Read | Gone | Displace | Delete


class LogRow(msgspec.Struct, frozen=True, gc=False):
    """One row of ftstream.sync_log; the database adds the time and the lag."""

    table: str
    id: str
    op: Operation | None
    outcome: Outcome
    topic: str
    partition: int
    offset: int
    position: int | None
    time: int | None


def fold(effect: Effect | None, change: Change) -> Effect:
    """The effect of `change` after `effect`.

    Each column keeps its newest real value back to the last delete.
    """
    if change.operation is Operation.REPAIR:
        return Reread()
    if change.image is None:
        return Delete()
    if not change.partial:
        return Upsert(change.image)
    columns, missing = toast.split(change.image)
    if not missing:
        return Upsert(change.image)
    match effect:
        case None:
            return Patch(columns, missing)
        case Upsert(image):
            return Upsert(toast.join(toast.split(image)[0] | columns))
        case Patch(older, still_missing):
            return Patch(older | columns, missing & still_missing)
        case Delete() | Reread() | Read() | Gone() | Displace():
            return Reread()
        case _ as never:
            assert_never(never)


def effects(changes: Iterable[Change]) -> dict[Entity, Effect]:
    """Return what the changes, in order, come to for each entity."""
    result: dict[Entity, Effect] = {}
    for change in changes:
        if change.operation is not Operation.TRUNCATE:
            entity = change.entity
            result[entity] = fold(result.get(entity), change)
    return result


def log_rows(changes: Sequence[Change], rows: Mapping[Entity, Effect]) -> list[LogRow]:
    """One sync_log row per change: the last of each entity had the effect, those before it merged.

    Within an entity changes are in the order of the log.
    """
    last = {change.entity: change.offset for change in changes}
    return [
        LogRow(
            change.table,
            change.entity_id,
            change.operation,
            _outcome(change, last, rows),
            change.topic,
            change.partition,
            change.offset,
            change.source_position,
            change.source_time,
        )
        for change in changes
    ]


def parked_row(parked: ParkedRecord) -> LogRow:
    """The sync_log row of a record that is parked."""
    return LogRow(
        parked.table,
        parked.entity_id,
        parked.operation,
        Outcome(parked.state.value),
        parked.topic,
        parked.partition,
        parked.offset,
        parked.position,
        parked.time,
    )


def _outcome(change: Change, last: Mapping[Entity, int], rows: Mapping[Entity, Effect]) -> Outcome:
    entity = change.entity
    if change.operation is Operation.TRUNCATE:
        return Outcome.RECORDED
    if last[entity] != change.offset:
        return Outcome.MERGED
    match rows[entity]:
        case Read():
            return Outcome.REREAD
        case Gone():
            return Outcome.SUPERSEDED
        case _:
            return Outcome.APPLIED


@dataclass(frozen=True, slots=True)
class Span:
    """The records of one partition that a batch holds: from `expected` up to, not including, `next`.

    `digest` is that of the last of them (see `record_digest`); None where it is not known.
    """

    partition: Partition
    expected: int
    next: int
    position: int | None
    digest: int | None = None


class Position(NamedTuple):
    """Where the target is in one partition: the offset to read on from, and the record before it."""

    next: int
    digest: int | None


def record_digest(key: bytes | None, value: bytes | None) -> int:
    """Tells a record from the one that another topic of the same name has at its offset."""
    return zlib.crc32(value or b"", zlib.crc32(key or b""))


@dataclass(frozen=True, slots=True)
class FromLog:
    """Records of the log: the applied offsets move over them, unless another worker has moved them."""

    spans: tuple[Span, ...] = ()

    def after(self, applied: Mapping[Partition, int]) -> FromLog:
        """Return the records that are left once the target has applied up to these offsets."""
        return FromLog(
            tuple(
                replace(span, expected=max(span.expected, applied[span.partition]))
                for span in self.spans
                if span.next > applied[span.partition]
            )
        )

    def cut(self, at: Mapping[Partition, int]) -> tuple[FromLog, FromLog]:
        """Return the records before these offsets, and those from there on."""
        before = (
            replace(span, next=at[span.partition], digest=None) if span.partition in at else span
            for span in self.spans
            if at.get(span.partition) != span.expected
        )
        behind = (
            replace(span, expected=at[span.partition])
            for span in self.spans
            if span.partition in at
        )
        return FromLog(tuple(before)), FromLog(tuple(behind))


@dataclass(frozen=True, slots=True)
class FromParked:
    """Changes that were parked: they are taken from there, unless another worker has taken them."""

    judged: bool = False
    """Trying its change with others that are parked does not help: what is in its way decides."""


Fence = FromLog | FromParked
"""What has each change take effect once: the transaction aborts where another worker was there before."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes to apply in one transaction, and the fence that it stands behind."""

    changes: tuple[Change, ...]
    fence: Fence
    heartbeat: float | None = None
    """The newest heartbeat among the records, in seconds since 1970."""
    parked: tuple[ParkedRecord, ...] = ()
    """Records that it parks, or that are dead."""
    settled: frozenset[Entity] = frozenset()
    """Rows whose parked changes are superseded by what the batch does to them."""

    @property
    def entities(self) -> frozenset[Entity]:
        return frozenset(change.entity for change in self.changes)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The records that the offsets move over; of parked changes, none."""
        return self.fence.spans if isinstance(self.fence, FromLog) else ()

    @property
    def _from_log(self) -> FromLog:
        assert isinstance(self.fence, FromLog)  # parked changes are divided by whoever tries them
        return self.fence

    @property
    def begins(self) -> dict[Partition, int]:
        """How far the target has applied each partition; a batch of parked changes says nothing."""
        return {span.partition: span.expected for span in self.spans}

    def after(self, applied: Mapping[Partition, int]) -> Batch:
        """Return what is left of the batch once the target has applied up to these offsets."""
        return replace(
            self,
            settled=frozenset(),
            changes=tuple(c for c in self.changes if c.offset >= applied[c.at]),
            parked=tuple(each for each in self.parked if each.offset >= applied[each.at]),
            fence=self._from_log.after(applied),
        )

    def halves(self) -> tuple[Batch, Batch]:
        """The batch as two, to be applied one after the other."""
        middle = len(self.changes) // 2
        first, second = self.changes[:middle], self.changes[middle:]
        cut: dict[Partition, int] = {}
        for change in second:
            cut.setdefault(change.at, change.offset)
        before, behind = self._from_log.cut(cut)

        def early(record: ParkedRecord) -> bool:
            return record.offset < cut.get(record.at, record.offset + 1)

        return (
            replace(
                self,
                settled=frozenset(),
                changes=first,
                parked=tuple(record for record in self.parked if early(record)),
                fence=before,
            ),
            replace(
                self,
                settled=frozenset(),
                changes=second,
                parked=tuple(record for record in self.parked if not early(record)),
                fence=behind,
            ),
        )

    def parking(self, rows: Mapping[Entity, Failure]) -> Batch:
        """The batch with the changes of these rows parked, each for its failure."""
        kept = tuple(c for c in self.changes if c.entity not in rows)
        parked = (park(c, rows[c.entity]) for c in self.changes if c.entity in rows)
        return replace(self, changes=kept, parked=(*self.parked, *parked)).settling(self.settled)

    def settling(self, entities: frozenset[Entity]) -> Batch:
        """The batch as one that supersedes these rows' parked changes, as far as it has the rows."""
        return replace(self, settled=entities & self.entities)
