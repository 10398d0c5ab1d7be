"""What a batch of changes does to each entity: many changes of one row become one."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import msgspec

from ftstream.core import unavailable
from ftstream.core.change import Change, Operation, Partition
from ftstream.core.unavailable import Columns

Entity = tuple[str, str]
"""(table, id)"""


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
    """The row is as its owner holds it: PostgreSQL's text of every column, as a JSON object."""

    texts: str


@dataclass(frozen=True, slots=True)
class Delete:
    """The row is gone."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The row was to be read from its owner, who does not have it any more."""


@dataclass(frozen=True, slots=True)
class Displace:
    """The row holds a unique value that another takes, and its owner does not have it: kept aside."""


Effect = Upsert | Patch | Reread | Read | Gone | Displace | Delete


class Outcome(enum.StrEnum):
    """What became of a change, as sync_log tells it."""

    APPLIED = "applied"
    MERGED = "merged"  # its values went in with a later change of the same batch
    REREAD = "reread"  # applied as its owner held the row at that moment, later changes included
    SUPERSEDED = "superseded"  # its owner has deleted the row since: a later change says so
    RECORDED = "recorded"  # a TRUNCATE: never repeated blindly


class LogRow(msgspec.Struct, frozen=True, gc=False):
    """One row of ftstream.sync_log; the database adds the time and the lag."""

    table: str
    id: str
    op: Operation
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
    if change.image is None:
        return Delete()
    if not change.partial:
        return Upsert(change.image)
    columns, missing = unavailable.split(change.image)
    if not missing:
        return Upsert(change.image)
    match effect:
        case None:
            return Patch(columns, missing)
        case Upsert(image):
            return Upsert(unavailable.join(unavailable.split(image)[0] | columns))
        case Patch(older, still_missing):
            return Patch(older | columns, missing & still_missing)
        case Delete() | Reread() | Read() | Gone() | Displace():
            return Reread()
        case _ as never:
            assert_never(never)


def effects(changes: Iterable[Change]) -> dict[Entity, Effect]:
    """What the changes, in order, come to for each entity."""
    result: dict[Entity, Effect] = {}
    for change in changes:
        if change.operation is not Operation.TRUNCATE:
            entity = (change.table, change.entity_id)
            result[entity] = fold(result.get(entity), change)
    return result


def log_rows(changes: Sequence[Change], rows: Mapping[Entity, Effect]) -> list[LogRow]:
    """One sync_log row per change: the last of each entity had the effect, those before it merged."""
    last = {(change.table, change.entity_id): change.offset for change in changes}
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


def _outcome(change: Change, last: Mapping[Entity, int], rows: Mapping[Entity, Effect]) -> Outcome:
    entity = (change.table, change.entity_id)
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
    """The records of one partition that a batch holds: from `expected` up to, not including, `next`."""

    partition: Partition
    expected: int
    next: int
    position: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes to apply in one transaction, and the offsets that it moves."""

    changes: tuple[Change, ...]
    spans: tuple[Span, ...]
    heartbeat: float | None = None
    """The newest heartbeat among the records, in seconds since 1970."""

    def after(self, applied: Mapping[Partition, int]) -> Batch:
        """What is left of the batch once the target has applied up to these offsets."""
        return Batch(
            tuple(c for c in self.changes if c.offset >= applied[Partition(c.topic, c.partition)]),
            tuple(
                replace(span, expected=max(span.expected, applied[span.partition]))
                for span in self.spans
                if span.next > applied[span.partition]
            ),
            self.heartbeat,
        )
