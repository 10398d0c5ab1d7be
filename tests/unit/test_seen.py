"""What was seen of an entity names a change as lost only if its own record is applied."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftstream.apply.merge import Batch, FromLog, FromParked, Span
from ftstream.kafka.partition import Partition
from ftstream.last_write.rule import newest
from ftstream.last_write.seen import (
    SeenWrite,
    decode,
    encode,
    has_lost,
    key_of,
    losers,
    nothing_seen,
)
from ftstream.messages.change import Change, Entity, Operation

TOPIC = "external.notes"
APPLIED = {Partition(TOPIC, 0): 10}


def change(version: int, offset: int = 10, site: str = "external", key: str = "1") -> Change:
    return Change(
        "notes",
        key,
        Operation.UPDATE,
        b'{"id":"1"}',
        False,
        TOPIC,
        0,
        offset,
        None,
        None,
        version=version,
        site=site,
    )


def seen(version: int, offset: int = 9, site: str = "external", partition: int = 0) -> SeenWrite:
    return SeenWrite(version, site, TOPIC, partition, offset)


@pytest.mark.parametrize(
    ("found", "lost"),
    [
        (None, False),
        (seen(6), True),
        (seen(5), False),  # the same write: it may be the last one
        (seen(4), False),
        (seen(6, offset=10), False),  # of this batch, or of a later one: it is not applied
        (seen(6, offset=99), False),
        (seen(6, partition=1), False),  # nobody knows how far that is applied
        (seen(5, site="supabase"), True),
        (seen(4, site="supabase"), False),
    ],
)
def test_greater_write_that_is_applied_makes_a_loser(found: SeenWrite | None, lost: bool) -> None:
    assert has_lost(change(5), found, APPLIED) is lost


def test_tie_is_supabase_s() -> None:
    assert has_lost(change(5), seen(5, site="supabase"), APPLIED)
    assert not has_lost(change(5, site="supabase"), seen(5), APPLIED)


def test_entity_is_lost_only_if_its_newest_change_is() -> None:
    changes = (change(5, 10), change(7, 11), change(5, 12, key="2"))
    batch = Batch(changes, FromLog((Span(Partition(TOPIC, 0), 10, 13, None),)))
    known = {("notes", "1"): seen(6), ("notes", "2"): seen(6)}
    assert losers(batch.begins, newest(changes), known.get) == {("notes", "2")}


def test_parked_changes_that_are_tried_again_are_never_passed_by() -> None:
    """Their records are behind the applied offset, whatever became of the greater write."""
    batch = Batch((change(5, 3),), FromParked())
    known = {("notes", "1"): seen(6)}
    assert not losers(batch.begins, newest(batch.changes), known.get)


def test_flow_without_an_account_has_seen_nothing() -> None:
    assert nothing_seen(("notes", "1")) is None


@given(st.integers(1, 9 * 10**15), st.text(), st.text(), st.integers(0, 9), st.integers(0, 2**62))
def test_what_is_written_is_read_again(
    version: int, site: str, topic: str, partition: int, offset: int
) -> None:
    one = SeenWrite(version, site, topic, partition, offset)
    assert decode(encode(one)) == one


@given(st.binary())
def test_what_somebody_else_has_written_is_nothing_or_a_write(value: bytes) -> None:
    found = decode(value)
    assert found is None or isinstance(found, SeenWrite)


@given(st.tuples(ENTITY := st.text(st.characters(codec="utf-8", exclude_characters="\0")), ENTITY))
def test_entities_have_keys_of_their_own(entity: Entity) -> None:
    table, key = key_of(entity).decode().split("\0")
    assert (table, key) == entity
