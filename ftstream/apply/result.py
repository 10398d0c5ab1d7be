"""Every way in which applying a batch can end, matched in one place: the writer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from ftstream.apply.merge import Batch
from ftstream.apply.sites import ApplyFailed
from ftstream.failures import Failure, Policy
from ftstream.messages.change import Entity


@dataclass(frozen=True, slots=True)
class Applied:
    """All of it is in the database."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """Another worker has applied some of it, or the answer to a commit was lost."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Too much at once, or one of its rows, which halves tell apart, is to blame."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """These rows do not fit, each for a reason of its own; the others are not to blame."""

    rows: Mapping[Entity, Failure]


@dataclass(frozen=True, slots=True)
class Blocked:
    """Others hold these rows, or what they need; each waits alone."""

    rows: Mapping[Entity, Failure]


@dataclass(frozen=True, slots=True)
class Retry:
    """The world's fault, or a whole table that others hold: once more, as long as it takes."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Halt:
    """Schema or configuration: only a person can fix it."""

    failure: Failure


Result = Applied | Fenced | TooLarge | Rejected | Blocked | Retry | Halt


def result_of(error: ApplyFailed, batch: Batch) -> Result:
    """Say what an error means for a batch, of which nothing is applied."""
    failure = error.failure
    if failure.policy is Policy.HALT:
        return Halt(failure)
    if error.entities:
        return _of_rows(failure, {row: error.causes.get(row, failure) for row in error.entities})
    match failure.policy:
        case Policy.FENCED:
            return Fenced()
        case Policy.RETRY | Policy.REREAD | Policy.WAIT:
            return Retry(failure)
        case Policy.DIVIDE | Policy.PARK if len(batch.changes) > 1:
            return TooLarge()
        case Policy.DIVIDE | Policy.PARK if batch.changes:
            return _of_rows(failure, dict.fromkeys(batch.entities, failure))
        case Policy.DIVIDE:
            return Retry(failure)
        case Policy.PARK:  # it moves offsets only
            return Halt(failure)
        case _ as never:
            assert_never(never)


def _of_rows(failure: Failure, rows: Mapping[Entity, Failure]) -> Rejected | Blocked:
    return Rejected(rows) if failure.policy in (Policy.PARK, Policy.DIVIDE) else Blocked(rows)
