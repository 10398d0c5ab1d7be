"""Unchanged TOAST values: finding Debezium's placeholders in a row image, and merging around them.

PostgreSQL's log leaves a large value out of an update that did not touch it, and Debezium puts a
placeholder there, whose form depends on the column's type. It must never be taken for data.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection

import msgspec

from ftstream.messages.members import Members, members

Columns = Members

PLACEHOLDER = b"\0ftstream: unchanged value"
"""What Debezium is told to put there (unavailable.value.placeholder).

It begins with a character that no text of PostgreSQL can hold: nobody can have typed it, and were it
ever taken for data, PostgreSQL would refuse it.
"""

_TEXT = PLACEHOLDER.decode()
_HEX = PLACEHOLDER.hex()
_UUID = str(uuid.UUID(bytes=hashlib.md5(PLACEHOLDER, usedforsecurity=False).digest(), version=3))

_encode = msgspec.json.encode

UNAVAILABLE: frozenset[bytes] = frozenset(
    _encode(form)
    for form in (
        _TEXT,  # text, json, bytea, numeric, ranges, domains over them: all but what follows
        [_TEXT],  # text[], json[] and the like
        _HEX,  # bytea, where the placeholder is set as text and not in hex
        _encode({_TEXT: _TEXT}).decode(),  # hstore, as hstore.handling.mode=json writes it
        list(PLACEHOLDER),  # int[], bigint[], date[]: the code points
        [_UUID],  # uuid[]: java.util.UUID.nameUUIDFromBytes
    )
)
"""The JSON values that stand for "not in the log"."""

_SIGNS = (
    PLACEHOLDER.lstrip(b"\0"),
    _HEX.encode(),
    _encode(list(PLACEHOLDER))[1:-1],
    _UUID.encode(),
)

UNAVAILABLE_FIELD = "ftstream_unavailable"
"""In a patch: the names of the columns whose value stays as it is in the target."""


KEY_FIELD = "ftstream_key"
"""In an image of columns among which the key is not: the key."""


def may_be_partial(image: bytes) -> bool:
    """Say whether a placeholder may be in the image: a fast search that `split` confirms or refutes."""
    return any(sign in image for sign in _SIGNS)


def split(image: bytes) -> tuple[Columns, frozenset[str]]:
    """The columns that the image holds, and the names of those it does not."""
    columns = members(image)
    missing = frozenset(name for name, raw in columns.items() if bytes(raw) in UNAVAILABLE)
    return {name: raw for name, raw in columns.items() if name not in missing}, missing


def join(columns: Columns) -> bytes:
    """The image of these columns."""
    return _encode(columns)


def patch(columns: Columns, missing: frozenset[str]) -> bytes:
    """The image of these columns, with the names of those to leave alone beside them."""
    return _encode({**columns, UNAVAILABLE_FIELD: sorted(missing)})


def only(image: str, names: Collection[str]) -> Columns:
    """These columns of an image, as far as it has them."""
    columns = members(image.encode())
    return {name: columns[name] for name in names if name in columns}


def merged(image: str, more: str) -> str:
    """The columns of two images as one."""
    return join(members(image.encode()) | members(more.encode())).decode()


def keyed(image: str, entity_id: str) -> bytes:
    """The image with the key of its row beside it."""
    return join(members(image.encode()) | {KEY_FIELD: msgspec.Raw(_encode(entity_id))})


def names(image: bytes) -> frozenset[str]:
    """The names of the columns that an image has, those it holds no value of among them."""
    return frozenset(members(image))
