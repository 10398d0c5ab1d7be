"""How a message that a trigger has written to an outbox becomes a change."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ftstream.messages.change import (
    Change,
    MalformedMessage,
    Operation,
    Refusal,
    Stamp,
    checked_key,
)
from ftstream.messages.members import members

LONGEST_REASON = 1_000
"""Characters of what is said of a refusal."""

# What a topic holds is not to be trusted: the year 2255 leaves room for every clock, and for what follows it.
_Version = Annotated[int, Meta(ge=1, le=9 * 10**15)]


_Site = Literal["external", "supabase"]


class _Write(msgspec.Struct, gc=False):
    version: Annotated[int, Meta(ge=0, le=9 * 10**15)]
    site: _Site


class _Refusal(msgspec.Struct, gc=False):
    over: _Write
    theirs: _Write
    because: Annotated[str, Meta(max_length=LONGEST_REASON)] = ""


class _Edit(msgspec.Struct, gc=False):
    id: str
    op: Literal["insert", "update", "delete"]
    site: _Site
    version: _Version
    author: str = ""
    row: msgspec.Raw = msgspec.Raw(b"null")
    json_nulls: list[str] | None = None
    yields: bool = False
    refusal: _Refusal | None = None


_decode_shallow = msgspec.json.Decoder(_Edit).decode


def _decode(value: bytes) -> _Edit:
    """The message, however deep its row nests."""
    try:
        return _decode_shallow(value)
    except RecursionError:
        rest = members(value)
        row = rest.pop("row", msgspec.Raw(b"null"))
        edit = _decode_shallow(msgspec.json.encode(rest))
        edit.row = row
        return edit


class _Stamped(msgspec.Struct, gc=False):
    id: str
    site: str
    version: _Version
    refusal: msgspec.Raw | None = None


_decode_stamp = msgspec.json.Decoder(_Stamped).decode


def stamp_in(value: bytes | None) -> tuple[str, Stamp] | None:
    """The id and the stamp of a write, without its row; None if it is none: see decode_edit.

    A refusal is none: whether it becomes one is not known until it is applied.
    """
    try:
        found = _decode_stamp(value or b"")
    except RecursionError:
        return _stamp_beside_the_row(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if found.refusal is not None:
        return None
    return found.id, Stamp(found.version, found.site)


def _stamp_beside_the_row(value: bytes) -> tuple[str, Stamp] | None:
    try:
        edit = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if edit.refusal else (edit.id, Stamp(edit.version, edit.site))


def decode_edit(
    site: str,
    table: str,
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
) -> Change:
    """The change that a message of this site's outbox holds. Raises MalformedMessage."""
    try:
        if not (value or b"").isascii():
            (value or b"").decode()  # msgspec looks at what it decodes only
        edit = _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"not a message of an outbox: {error}") from error
    operation = Operation(edit.op)
    deleted = operation is Operation.DELETE
    image = None if deleted else bytes(edit.row)
    entity_id = checked_key(key, image)
    if edit.id != entity_id:
        raise MalformedMessage("the key is that of another row")
    # A refusal is a write that this site has the other one make.
    if edit.site != site and edit.refusal is None:
        raise MalformedMessage(f"a write of site {edit.site!r} among those of {site}")
    if deleted and bytes(edit.row) != b"null":
        raise MalformedMessage("a delete with a row")
    return Change(
        table,
        entity_id,
        operation,
        image,
        False,
        topic,
        partition,
        offset,
        source_position=None,
        source_time=edit.version,
        message=value or b"",
        version=edit.version,
        site=edit.site,
        author=edit.author,
        yields=edit.yields,
        refusal=_refusal(edit, site),
    )


def _refusal(edit: _Edit, site: str) -> Refusal | None:
    """Raises MalformedMessage."""
    if edit.refusal is None:
        return None
    over = Stamp(edit.refusal.over.version, edit.refusal.over.site)
    if edit.site == site or over.version >= edit.version:
        raise MalformedMessage("a refusal that is no refusal of a write of the other site")
    theirs = Stamp(edit.refusal.theirs.version, edit.refusal.theirs.site)
    return Refusal(over, theirs, edit.refusal.because)
