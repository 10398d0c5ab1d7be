"""A JSON object's members as they are spelt, however deep their values nest.

msgspec passes over a value by recursion, and gives up at about a thousand levels; PostgreSQL takes 14,000
(max_stack_depth). What is in a deep value nobody here needs to know: PostgreSQL reads it, as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

Members = dict[str, msgspec.Raw]

_decode_members = msgspec.json.Decoder(Members).decode
_decode_name = msgspec.json.Decoder(str).decode

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]', re.DOTALL)


def members(document: bytes) -> Members:
    """The object's members. Raises msgspec.DecodeError; a deep value is not looked into."""
    try:
        return _decode_members(document)
    except RecursionError:
        return {_decode_name(name): msgspec.Raw(value) for name, value in _split(document)}


def _split(document: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and value of each member, in a document that begins as an object does."""
    depth, name, begin = 0, b"", 0
    for token in _TOKEN.finditer(document):
        match token.group():
            case b"{" | b"[":
                depth += 1
                begin = token.end() if depth == 1 else begin
                continue
            case b":" if depth == 1:
                name, begin = document[begin : token.start()].strip(), token.end()
            case b"," if depth == 1:
                yield name, document[begin : token.start()].strip()
                begin = token.end()
            case b"}" | b"]":
                depth -= 1
                if depth == 0:
                    yield name, document[begin : token.start()].strip()
                    return
    raise msgspec.DecodeError("JSON that does not end")
