"""What a row was before a time, and when nobody can tell."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ftstream.messages.change import Stamp
from ftstream.recover.history import (
    ABSENT,
    HistoryEntry,
    Restoration,
    RowState,
    moment,
    restoration,
    version_of,
)
from ftstream.recover.reversal import Action, Intent, Live, ReversalPlan


def entry(
    version: int,
    author: str = "kim",
    at: str = "supabase",
    operation: str = "update",
    outcome: str = "applied",
) -> HistoryEntry:
    image = None if operation == "delete" else f'{{"n": {version}}}'
    site = "external" if at == "supabase" else "supabase"
    when = datetime(2026, 11, 24, tzinfo=UTC)
    stamp = Stamp(version, site)
    return HistoryEntry(at, when, operation, outcome, when, stamp, author, image)


def restored(
    *entries: HistoryEntry, since: int, author: str | None = None
) -> RowState | str | None:
    found = restoration("x", entries, since, author)
    return None if found is None else found.state or found.reason


def test_last_state_before_the_time_is_found_whoever_wrote_since() -> None:
    first, *later = entry(1), entry(2, "lee"), entry(3, at="external")
    assert restored(first, *later, since=2) == first.state
    assert restored(first, *later, since=4) is None


def test_row_whose_first_write_inserted_it_was_not_there() -> None:
    assert restored(entry(1, operation="insert"), entry(2), since=1) == ABSENT


def test_row_of_which_nothing_older_is_known_is_left() -> None:
    reason = restored(entry(1), entry(2), since=1)
    assert isinstance(reason, str) and "never received" in reason


def test_only_what_an_author_wrote_last_is_taken_back() -> None:
    """What lee wrote between stays, although kim wrote before it, too, since then."""
    a, b, c, d = entry(1), entry(2), entry(3, "lee"), entry(4)
    assert restored(a, b, c, d, since=2, author="kim") == c.state
    assert restored(a, b, c, since=2, author="kim") == "lee has changed it since"
    assert restored(a, b, c, since=4, author="kim") is None
    assert restored(a, b, c, since=2, author="park") is None


def test_several_writes_of_an_author_are_taken_back_together_but_none_before_the_time() -> None:
    a, b, c, d = (entry(n) for n in (1, 2, 3, 4))
    assert restored(a, b, c, d, since=3, author="kim") == b.state


def test_refused_write_never_was() -> None:
    a, b = entry(1), entry(2, outcome="refused")
    assert restored(a, b, entry(3, "ftstream", at="external"), since=3) == a.state


def test_write_that_no_log_has_yet_makes_the_state_unknown() -> None:
    found = restoration("x", [entry(1), entry(2)], 2, last=[Stamp(3, "supabase")])
    assert found is not None and found.state is None and "is in no log" in found.reason
    known = restoration("x", [entry(1), entry(2)], 2, last=[Stamp(2, "external")])
    assert known == Restoration("x", entry(1).state)


def test_log_of_the_other_site_must_reach_back_to_the_state_too() -> None:
    """A later write than the one found may have been in it."""
    writes = [entry(10), entry(20)]
    found = restoration("x", writes, 20, reaches={"supabase": 5, "external": 11})
    assert found is not None and found.state is None
    assert "the log of external reaches back to 1970-01-01 00:00 UTC" in found.reason
    whole = restoration("x", writes, 20, reaches={"supabase": 15, "external": 10})
    assert whole == Restoration("x", writes[0].state)


def test_row_was_not_there_only_if_the_logs_reach_back_to_the_time() -> None:
    inserted = [entry(10, operation="insert")]
    assert restoration("x", inserted, 8, reaches={"supabase": 8}) == Restoration("x", ABSENT)
    found = restoration("x", inserted, 8, reaches={"supabase": 9})
    assert found is not None and found.state is None


@pytest.mark.parametrize("version", [1_795_514_400_123_457, 4_102_444_800_999_999, 1])
def test_version_tells_its_time_to_the_microsecond(version: int) -> None:
    assert version_of(moment(version)) == version


ROW = RowState('{"body": "a"}')


@pytest.mark.parametrize(
    ("present", "state", "columns", "action"),
    [
        (True, ROW, ("body",), Action.UPDATE),
        (True, ROW, ("body", "updated_at"), Action.UPDATE),
        (True, ROW, ("updated_at",), Action.NOTHING),  # a trigger's doing
        (True, ROW, (), Action.NOTHING),
        (True, ABSENT, ("body",), Action.DELETE),
        (False, ROW, ("body",), Action.INSERT),
        (False, ABSENT, (), Action.NOTHING),
    ],
)
def test_what_is_done_to_a_row(
    present: bool, state: RowState, columns: tuple[str, ...], action: Action
) -> None:
    intent = Intent("x", state, Live(present, None), dict.fromkeys(columns, ("a", "b")))
    assert intent.action is action
    assert ReversalPlan((intent,)).writes == (() if action is Action.NOTHING else (intent,))
