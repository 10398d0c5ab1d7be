"""A captured change, and how a Debezium event becomes one."""

from __future__ import annotations

import enum
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from ftstream.kafka.partition import Partition
from ftstream.messages.members import members
from ftstream.messages.toast import may_be_partial

Entity = tuple[str, str]
"""(table, id)"""


class Stamp(NamedTuple):
    """When an entity was written, in microseconds since 1970 by the writer's clock, and on which site.

    The greater one stays: of the same version on both sites that of Supabase, as the names sort.
    """

    version: int
    site: str


class Refusal(NamedTuple):
    """Why a site is to take the row as the other site has it: its write `over` cannot stand there.

    `theirs` is the row's last write at the site that refuses, `because` says what was in the way.
    """

    over: Stamp
    theirs: Stamp
    because: str


class Operation(enum.StrEnum):
    """What happened to the row; `snapshot` is an insert or update as a snapshot sees it.

    `repair` is not of the log: it asks for the row to be read from its owner.
    """

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    SNAPSHOT = "snapshot"
    TRUNCATE = "truncate"
    REPAIR = "repair"


_OPERATIONS = {
    "c": Operation.INSERT,
    "u": Operation.UPDATE,
    "d": Operation.DELETE,
    "r": Operation.SNAPSHOT,
    "t": Operation.TRUNCATE,
    "repair": Operation.REPAIR,
}
_WITHOUT_ROW = (Operation.DELETE, Operation.TRUNCATE, Operation.REPAIR)

_NO_KEY = frozenset(("00000000-0000-0000-0000-000000000000", "0", ""))
"""What Debezium sends for a key that the log does not hold; any of them may be a real one, too."""
_NO_VALUE = (None, "", 0, "00000000-0000-0000-0000-000000000000", "1970-01-01T00:00:00Z")
"""The same of other columns: null, or where they may not be null the first value of their type."""

LONGEST_KEY = 1_000
"""Bytes; PostgreSQL's indexes hold a little more."""

REPAIR_REQUEST = b'{"op":"repair","source":{}}'
"""The value of a record that asks for a repair; its key is the row's id."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """One captured insert, update or delete of one entity (a row, known by table and id).

    `image` is the row as JSON, in Debezium's encoding, or None where there is none. `partial` says
    that the log did not hold every value: the image has placeholders (unchanged TOAST).
    `source_position` is the write-ahead log position, `source_time` the commit time, in microseconds.
    `message` is the record's value as it came, kept if the change has to wait. A change from an outbox
    has the `version` of its write, its `site` and its `author`; its image is PostgreSQL's own JSON. One that
    `yields` is refused where it would wait for a row that was refused itself. A `refusal` is a write that
    `site` is to make, in this version, unless it has written the row since. `instead` is what the log holds
    of a row that was deleted, in place of its key: the change then asks for a repair.
    """

    table: str
    entity_id: str
    operation: Operation
    image: bytes | None
    partial: bool
    topic: str
    partition: int
    offset: int
    source_position: int | None
    source_time: int | None
    source_transaction: int | None = None
    message: bytes = b""
    version: int = 0
    site: str = ""
    author: str = ""
    yields: bool = False
    refusal: Refusal | None = None
    instead: str = ""

    @property
    def at(self) -> Partition:
        return Partition(self.topic, self.partition)

    @property
    def entity(self) -> Entity:
        return self.table, self.entity_id

    @property
    def stamp(self) -> Stamp:
        """When and where it was written; of a change from an outbox."""
        return Stamp(self.version, self.site)


class MalformedMessage(Exception):
    """A record that is not a Debezium event of this flow."""


# What a topic holds is not to be trusted: numbers that the target cannot hold would stop the flow.
_Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Microseconds = Annotated[int, Meta(ge=0, le=2**53)]


class _Source(msgspec.Struct, gc=False):
    table: str | None = None
    lsn: _Number | None = None
    txId: _Number | None = None
    ts_us: _Microseconds | None = None


class _Envelope(msgspec.Struct, gc=False):
    op: str
    source: _Source
    before: msgspec.Raw = msgspec.Raw(b"null")
    after: msgspec.Raw = msgspec.Raw(b"null")


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def decode(
    table: str, topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None
) -> Change | None:
    """The change a Debezium record holds; None for a tombstone, which repeats the delete before it.

    Raises MalformedMessage when it is not an event of this table, or lacks its key.
    """
    if value is None:
        return None
    try:
        if not value.isascii():
            value.decode()  # msgspec looks at what it decodes only
        envelope = _decode_envelope(value)
        operation = _OPERATIONS[envelope.op]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"not a change event: {error}") from error
    except KeyError as error:
        raise MalformedMessage(f"not a change event: unknown operation {error}") from error
    source = envelope.source
    if source.table is not None and source.table != table:
        raise MalformedMessage(f"a change of table {source.table!r} among those of {table}")
    image = None if operation in _WITHOUT_ROW else bytes(envelope.after)
    keyless = key is None and operation is Operation.TRUNCATE
    entity_id = "" if keyless else checked_key(key, image)
    instead = ""
    if operation is Operation.DELETE and entity_id in _NO_KEY:
        # The replica identity may be an index without the key. A row of this id must not be deleted for
        # another one: its owner is asked whether it is gone.
        operation, instead = Operation.REPAIR, _held_instead(envelope.before, entity_id)
    return Change(
        table,
        entity_id,
        operation,
        image,
        image is not None and may_be_partial(image),
        topic,
        partition,
        offset,
        source.lsn,
        source.ts_us,
        source.txId,
        value,
        instead=instead,
    )


def _held_instead(before: msgspec.Raw, entity_id: str) -> str:
    """The columns that the log has of a row that was deleted; none, if its key is all that it has."""
    try:
        row = msgspec.json.decode(before)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedMessage(f"not a change event: {error}") from error
    if not isinstance(row, dict):
        return ""
    held = {k: v for k, v in row.items() if v not in _NO_VALUE and str(v) != entity_id}
    return ", ".join(f"{name} = {value}"[:100] for name, value in held.items())


class _Key(msgspec.Struct, gc=False):
    id: str | int


_decode_key = msgspec.json.Decoder(_Key).decode


def checked_key(key: bytes | None, image: bytes | None) -> str:
    """The entity's id. Raises MalformedMessage unless the image, if any, is that of the row it names.

    Order, parking and deletes go by the key, the row that is written by the image.
    """
    if key is None:
        raise MalformedMessage("a change without a key")
    try:
        entity_id = key.decode()
    except UnicodeDecodeError as error:
        raise MalformedMessage(f"not a change event: {error}") from error
    if "\0" in entity_id or len(key) > LONGEST_KEY:
        raise MalformedMessage("a key that PostgreSQL cannot hold")
    if image is not None:
        _check_row(image, entity_id)
    return entity_id


def _check_row(image: bytes, entity_id: str) -> None:
    try:
        found = _id_in(image)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedMessage(f"a change without its row: {error}") from error
    if str(found) != entity_id:
        raise MalformedMessage("the key is that of another row")


def _id_in(image: bytes) -> str | int:
    try:
        return _decode_key(image).id
    except RecursionError:
        key = {name: raw for name, raw in members(image).items() if name == "id"}
        return _decode_key(msgspec.json.encode(key)).id


HEARTBEAT_KEY = b"ftstream"
"""Under which an outbox carries heartbeats; a row of that id is no heartbeat."""


class _HeartbeatSource(msgspec.Struct, gc=False):
    ts_ms: _Microseconds


class _Heartbeat(msgspec.Struct, gc=False):
    op: str
    source: _HeartbeatSource


_decode_heartbeat = msgspec.json.Decoder(_Heartbeat).decode


def heartbeat_time(value: bytes | None) -> float | None:
    """Say when a heartbeat was written at the source, in seconds since 1970; None for anything else."""
    try:
        beat = _decode_heartbeat(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return beat.source.ts_ms / 1000 if beat.op == "m" else None
