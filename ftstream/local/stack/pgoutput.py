"""Reads the messages of PostgreSQL's pgoutput (protocol version 1): which rows a transaction changed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
Values = dict[str, str | None]
Kind = Literal["INSERT", "UPDATE", "DELETE"]
_KINDS: dict[bytes, Kind] = {b"I": "INSERT", b"U": "UPDATE", b"D": "DELETE"}


@dataclass(frozen=True)
class LoggedColumn:
    """A column of a relation; `type` is the oid of its type."""

    name: str
    key: bool
    type: int


@dataclass(frozen=True)
class Relation:
    """A table as the log describes it before its first change."""

    schema: str
    table: str
    columns: tuple[LoggedColumn, ...]


@dataclass(frozen=True)
class RowChange:
    """One row: `record` as it is now, `old` as much of it as the log tells of before."""

    relation: Relation
    kind: Kind
    committed: datetime
    record: Values
    old: Values


class Decoder:
    """Follows one stream: relations are told once."""

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}
        self._committed = EPOCH

    def decode(self, message: bytes) -> RowChange | None:
        """The change that the message tells; None for all else, TRUNCATE too."""
        kind, body = message[:1], _Body(message[1:])
        match kind:
            case b"B":
                body.number("Q")
                self._committed = EPOCH + timedelta(microseconds=body.number("q"))
            case b"R":
                oid = body.number("I")
                self._relations[oid] = _relation(body)
            case b"I" | b"U" | b"D":
                relation = self._relations[body.number("I")]
                return self._change(relation, _KINDS[kind], body)
        return None

    def _change(self, relation: Relation, kind: Kind, body: _Body) -> RowChange:
        record: Values = {}
        old: Values = {}
        while part := body.take(1):
            values = dict(_values(relation, body))
            if part == b"N":
                record = values
            else:  # "K": the key alone, and nothing for the others; "O": all of it
                keys = {column.name for column in relation.columns if column.key}
                old = values if part == b"O" else {n: v for n, v in values.items() if n in keys}
        return RowChange(relation, kind, self._committed, record, old)


class _Body:
    """What is left of a message."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def take(self, size: int) -> bytes:
        self._at += size
        return self._content[self._at - size : self._at]

    def number(self, code: str) -> int:
        code = f">{code}"
        value: int = struct.unpack(code, self.take(struct.calcsize(code)))[0]
        return value

    def text(self) -> str:
        end = self._content.index(b"\0", self._at)
        value = self._content[self._at : end].decode()
        self._at = end + 1
        return value


def _relation(body: _Body) -> Relation:
    schema, table = body.text(), body.text()
    body.take(1)  # the replica identity
    return Relation(schema, table, tuple(_column(body) for _ in range(body.number("H"))))


def _column(body: _Body) -> LoggedColumn:
    key, name, kind = bool(body.take(1)[0] & 1), body.text(), body.number("I")
    body.take(4)  # the type's modifier
    return LoggedColumn(name, key, kind)


def _values(relation: Relation, body: _Body) -> Iterator[tuple[str, str | None]]:
    """Read a tuple; a large value that did not change is not in it."""
    for column in relation.columns[: body.number("H")]:
        match body.take(1):
            case b"t":
                yield column.name, body.take(body.number("I")).decode()
            case b"n":
                yield column.name, None
