"""Changes that are not applied: parked until they can be applied, or dead until a person looks at them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ftstream.failures import Failure, Policy
from ftstream.kafka.partition import Partition
from ftstream.messages.change import Change, Entity, Operation


class ParkedState(enum.StrEnum):
    """What is to become of a change that was parked."""

    PARKED = "parked"  # tried again
    DEAD = "dead"  # its attempts are spent, or it cannot be read: kept for a person


@dataclass(frozen=True, slots=True)
class ParkedRecord:
    """A record that is not applied now: where it came from, the record as it came, and why.

    `operation` is None for one that cannot be read; `whole` says that it tells all of its row, so that
    those parked before it have nothing to add.
    """

    table: str
    entity_id: str
    operation: Operation | None
    topic: str
    partition: int
    offset: int
    key: bytes | None
    message: bytes
    position: int | None
    time: int | None
    state: ParkedState
    failure: Failure
    whole: bool
    version: int = 0
    """Of a change from an outbox."""

    @property
    def at(self) -> Partition:
        return Partition(self.topic, self.partition)

    @property
    def entity(self) -> Entity:
        return self.table, self.entity_id


MALFORMED = "FT003"
"""The SQLSTATE, as it were, of a record that is no change event."""
BEHIND = "FT004"
"""That of a change that waits for an earlier one of its row."""

WAITS_BEHIND = Failure(
    Policy.WAIT, BEHIND, "waits behind an earlier change of the row", "it follows that one"
)


def park(change: Change, failure: Failure) -> ParkedRecord:
    """The change, to be tried again."""
    return ParkedRecord(
        change.table,
        change.entity_id,
        change.operation,
        change.topic,
        change.partition,
        change.offset,
        change.entity_id.encode(),
        change.message,
        change.source_position,
        change.source_time,
        ParkedState.PARKED,
        failure,
        whole=not change.partial and change.operation is not Operation.TRUNCATE,
        version=change.version,
    )


def malformed(
    table: str, partition: Partition, offset: int, key: bytes | None, value: bytes, reason: str
) -> ParkedRecord:
    """A record that cannot be read: dead, whole as it is."""
    hint = "`ftstream dead show` has it; drop it, or retry it with a version that reads it"
    return ParkedRecord(
        table,
        "" if key is None else key.decode(errors="backslashreplace").replace("\0", r"\x00")[:200],
        None,
        *partition,
        offset,
        key,
        value,
        None,
        None,
        ParkedState.DEAD,
        Failure(Policy.PARK, MALFORMED, reason, hint, table),
        whole=False,
    )
