"""Messages of an outbox: writes, and refusals, which are writes that the other site is to make."""

from __future__ import annotations

import json

import pytest

from ftstream.messages.change import Change, MalformedMessage, Operation, Refusal, Stamp
from ftstream.messages.edit import decode_edit, stamp_in

WRITE: dict[str, object] = {
    "id": "a",
    "op": "update",
    "site": "supabase",
    "version": 8,
    "row": {"id": "a"},
}
REFUSAL = {
    "over": {"version": 7, "site": "supabase"},
    "theirs": {"version": 0, "site": "external"},
    "because": "sheets b has its place there",
}


def message(**more: object) -> bytes:
    return json.dumps(WRITE | more).encode()


def decoded(value: bytes, site: str = "external") -> Change:
    return decode_edit(site, "sheets", f"{site}.sheets", 0, 1, b"a", value)


def test_refusal_is_a_write_that_the_other_site_is_to_make() -> None:
    change = decoded(message(refusal=REFUSAL))
    assert (change.site, change.version, change.operation) == ("supabase", 8, Operation.UPDATE)
    assert change.refusal == Refusal(
        Stamp(7, "supabase"), Stamp(0, "external"), "sheets b has its place there"
    )


def test_write_that_is_to_give_way_says_so() -> None:
    assert decoded(message(yields=True), "supabase").yields
    assert not decoded(message(), "supabase").yields


@pytest.mark.parametrize(
    ("site", "more"),
    [
        ("external", {}),
        ("supabase", {"refusal": REFUSAL}),
        ("external", {"refusal": REFUSAL | {"over": {"version": 8, "site": "supabase"}}}),
        ("external", {"refusal": REFUSAL | {"over": {"version": -1, "site": "supabase"}}}),
        ("external", {"refusal": {"over": None}}),
    ],
    ids=[
        "of the other site",
        "of its own write",
        "of no earlier write",
        "no version",
        "of nothing",
    ],
)
def test_what_is_no_write_of_the_topic_s_site_and_no_refusal_is_malformed(
    site: str, more: dict[str, object]
) -> None:
    with pytest.raises(MalformedMessage):
        decoded(message(**more), site)


def test_refusal_is_not_seen_as_a_write_before_it_is_one() -> None:
    assert stamp_in(message()) == ("a", Stamp(8, "supabase"))
    assert stamp_in(message(refusal=REFUSAL)) is None
