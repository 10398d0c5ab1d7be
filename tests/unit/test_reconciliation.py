"""Which row stays where two filled databases meet, and that both sites then agree on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from ftstream.compare.decision import Clash, Held, clashes, decide
from ftstream.messages.change import Stamp

E, S = "external", "supabase"
TIME = st.integers(0, 5)
STAMP = st.builds(Stamp, st.integers(1, 5), st.sampled_from([E, S]))
HELD = st.builds(Held, st.booleans(), TIME, st.none() | STAMP, st.booleans())


def ruled(held: Mapping[str, Held], **rule: Any) -> tuple[str, int | None] | None:
    decision = decide("1", held, **rule)
    return None if decision is None else (decision.winner, decision.version)


def old(written: int) -> Held:
    return Held(True, written)


def test_row_that_says_it_was_written_later_stays() -> None:
    assert ruled({E: old(9), S: old(5)}) == (E, 9)
    assert ruled({E: old(5), S: old(9)}) == (S, 9)
    assert ruled({E: old(5), S: old(5)}) == (S, 6)


def test_preferred_site_wins_over_older_and_newer() -> None:
    assert ruled({E: old(5), S: old(9)}, prefer=E) == (E, 10)
    assert ruled({E: old(9), S: old(5)}, prefer=E) == (E, 9)
    # What was written since ftstream came is no longer a matter of preference.
    assert ruled({E: old(5), S: Held(True, 3, Stamp(20, S))}, prefer=E) == (S, None)


def test_row_of_one_site_goes_to_the_other() -> None:
    assert ruled({E: old(5), S: Held()}) == (E, 5)
    assert ruled({E: Held(), S: old(0)}) == (S, 1)
    assert ruled({E: Held(), S: Held()}) is None


def test_deleted_row_stays_deleted() -> None:
    gone = Held(False, 0, Stamp(20, E), deleted=True)
    assert ruled({E: gone, S: Held(True, 3, Stamp(10, S))}) == (E, None)
    assert ruled({E: gone, S: old(5)}) == (E, None)


def test_row_that_a_site_has_lost_without_a_write_comes_back() -> None:
    both = Stamp(7, E)
    assert ruled({E: Held(False, 0, both), S: Held(True, 3, both)}) == (S, None)
    assert ruled({E: Held(True, 3, both), S: Held(True, 3, both)}) == (E, None)


def test_owner_takes_no_notice_of_times() -> None:
    assert ruled({S: old(5), E: old(9)}, owner=S) == (S, 10)
    assert ruled({S: Held(), E: old(9)}, owner=S) == (S, 10)
    known = Held(True, 5, Stamp(7, S))
    assert ruled({S: known, E: Held(True, 5, Stamp(6, S))}, owner=S) == (S, None)
    assert ruled({S: known, E: Held(True, 5, Stamp(8, S))}, owner=S) == (S, 9)


def test_version_lies_above_the_horizon_of_a_site_that_does_not_know_the_row() -> None:
    assert ruled({E: old(5), S: old(3)}, horizon=8) == (E, 9)
    assert ruled({E: old(50), S: old(3)}, horizon=8) == (E, 50)
    assert ruled({E: Held(True, 0, Stamp(5, E)), S: Held()}, horizon=8) == (E, 9)
    assert ruled({E: Held(True, 0, Stamp(5, E)), S: Held(True, 0, Stamp(4, E))}, horizon=8) == (
        E,
        None,
    )


@given(HELD, HELD, st.none() | st.sampled_from([E, S]), st.none() | st.just(S), st.integers(0, 7))
def test_what_is_handed_over_ends_with_the_winner_on_both_sites(
    external: Held, supabase: Held, prefer: str | None, owner: str | None, horizon: int
) -> None:
    held = {E: external, S: supabase}
    decision = decide("1", held, prefer=prefer, owner=owner, horizon=horizon)
    assume(decision is not None)
    assert decision is not None
    before = held[decision.winner].last
    assert decision.unknown is (before is None)
    # As ftstream.hand_over_again() does.
    if before is None:
        told = Stamp(decision.version or 1, decision.winner)
    elif decision.version is None and before.site == decision.winner:
        told = before
    else:
        told = Stamp(max(decision.version or 0, before.version + 1), decision.winner)
    there = held[S if decision.winner == E else E].last
    if there is None:
        assert told.version > horizon
    else:
        assert told == there or told > there


def test_rows_of_one_value_under_two_ids_clash() -> None:
    found = clashes(("code",), {E: {"1": "a", "2": "b"}, S: {"3": "a", "4": "c"}})
    assert list(found) == [Clash(("code",), "a", ((E, "1"), (S, "3")))]


def test_row_that_was_refused_is_told_in_a_version_that_counts_again() -> None:
    """Its refusal is lost: the other site waits for it, and takes no older write."""
    wrote, refused = Held(True, 5, Stamp(7, E)), Held(False, 0, Stamp(0, S), True, reserved=8)
    assert ruled({E: wrote, S: refused}) == (E, 8)
    assert ruled({E: Held(True, 5, Stamp(8, E)), S: refused}) == (E, None)
