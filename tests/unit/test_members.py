"""JSON that nests deeper than its reader looks."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftstream.messages import members as module
from ftstream.messages.change import MalformedMessage
from ftstream.messages.edit import decode_edit, stamp_in
from ftstream.messages.members import _split, members
from ftstream.messages.toast import names, split
from ftstream.recover.history import HistoryEntry

DEPTH = 10_000
DEEP = b"[" * DEPTH + b'{"a":"]\\""}' + b"]" * DEPTH
ROW = b'{"id": "1", "doc": %s, "name": "x"}' % DEEP
EDIT = (
    b'{"id": "1", "op": "update", "row": %s, "site": "supabase", "version": 5, "author": "kim"}'
    % ROW
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def test_deep_values_are_kept_as_they_came() -> None:
    found = members(ROW)
    assert [*found] == ["id", "doc", "name"]
    assert bytes(found["doc"]) == DEEP
    assert split(ROW)[0] == found
    assert names(ROW) == {"id", "doc", "name"}


def test_deep_edit_is_read() -> None:
    change = decode_edit("supabase", "t", "topic", 0, 7, b"1", EDIT)
    assert (change.image, change.version, change.message) == (ROW, 5, EDIT)
    assert stamp_in(EDIT) is not None
    with pytest.raises(MalformedMessage, match="the key is that of another row"):
        decode_edit("supabase", "t", "topic", 0, 7, b"2", EDIT)


def test_history_shows_the_text_of_what_it_cannot_look_into() -> None:
    row = HistoryEntry("supabase", None, "update", "applied", None, image=ROW.decode()).row  # type: ignore[arg-type]
    assert row == {"id": "1", "doc": DEEP.decode(), "name": "x"}


@given(st.dictionaries(st.text(), anything, max_size=4), st.sampled_from([None, 1]))
def test_members_are_split_as_the_reader_does(
    document: dict[str, object], indent: int | None
) -> None:
    encoded = json.dumps(document, indent=indent).encode()
    found = {
        module._decode_name(name): json.loads(value) for name, value in _split(encoded) if name
    }
    assert found == document


@pytest.mark.parametrize("broken", [ROW[:-1], b"[" * DEPTH, b'{"a"' + b"[" * DEPTH, EDIT[:900]])
def test_what_does_not_end_is_malformed(broken: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        members(broken)
