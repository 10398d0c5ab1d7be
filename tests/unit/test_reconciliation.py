"""Which row stays where two filled databases meet, and that both sites then agree on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from ftstream.core.reconciliation import Clash, Held, clashes, decide
from ftstream.core.register import Stamp

E, S = "external", "supabase"
TIME = st.integers(0, 5)
STAMP = st.builds(Stamp, st.integers(1, 5), st.sampled_from([E, S]))
HELD = st.builds(Held, st.booleans(), TIME, st.none() | STAMP, st.booleans())


def ruled(held: Mapping[str, Held], **rule: Any) -> tuple[str, dict[str, int | None]] | None:
    decision = decide("1", held, **{"tie": S, **rule})
    if decision is None:
        return None
    return decision.winner, {each.site: each.version for each in decision.hand_overs}


def old(written: int) -> Held:
    return Held(True, written)


def test_row_that_says_it_was_written_later_stays_and_both_are_told() -> None:
    assert ruled({E: old(9), S: old(5)}) == (E, {E: 9, S: 5})
    assert ruled({E: old(5), S: old(9)}) == (S, {E: 5, S: 9})
    assert ruled({E: old(5), S: old(5)}) == (S, {E: 5, S: 6})


def test_preferred_site_wins_over_older_and_newer() -> None:
    assert ruled({E: old(5), S: old(9)}, prefer=E) == (E, {E: 10, S: 9})
    assert ruled({E: old(9), S: old(5)}, prefer=E) == (E, {E: 9, S: 5})
    # What was written since ftstream came is no longer a matter of preference.
    assert ruled({E: old(5), S: Held(True, 3, Stamp(20, S))}, prefer=E) == (S, {E: 5, S: None})


def test_row_of_one_site_goes_to_the_other() -> None:
    assert ruled({E: old(5), S: Held()}) == (E, {E: 5})
    assert ruled({E: Held(), S: old(0)}) == (S, {S: 1})
    assert ruled({E: Held(), S: Held()}) is None


def test_deleted_row_stays_deleted() -> None:
    gone = Held(False, 0, Stamp(20, E), deleted=True)
    assert ruled({E: gone, S: Held(True, 3, Stamp(10, S))}) == (E, {E: None})
    assert ruled({E: gone, S: old(5)}) == (E, {E: None, S: 5})


def test_row_that_a_site_has_lost_without_a_write_comes_back() -> None:
    both = Stamp(7, E)
    assert ruled({E: Held(False, 0, both), S: Held(True, 3, both)}) == (S, {S: None})
    assert ruled({E: Held(True, 3, both), S: Held(True, 3, both)}) == (E, {E: None})


def test_owner_takes_no_notice_of_times() -> None:
    assert ruled({S: old(5), E: old(9)}, owner=S) == (S, {S: 5})
    assert ruled({S: Held(), E: old(9)}, owner=S) == (S, {S: 1})
    known = Held(True, 5, Stamp(7, S))
    assert ruled({S: known, E: Held(True, 5, Stamp(6, S))}, owner=S) == (S, {S: None})
    assert ruled({S: known, E: Held(True, 5, Stamp(8, S))}, owner=S) == (S, {S: 9})


@given(HELD, HELD, st.none() | st.sampled_from([E, S]))
def test_what_is_handed_over_ends_with_the_winner_on_both_sites(
    external: Held, supabase: Held, prefer: str | None
) -> None:
    held = {E: external, S: supabase}
    decision = decide("1", held, tie=S, prefer=prefer)
    assume(decision is not None)
    assert decision is not None
    ledger = {site: each.last for site, each in held.items()}
    told = {}
    for each in decision.hand_overs:  # as ftstream.hand_over_again() does
        before = ledger[each.site]
        assert each.unknown is (before is None)
        if before is None:
            stamp = Stamp(each.version or 1, each.site)
        elif each.version is None and before.site == each.site:
            stamp = before
        else:
            stamp = Stamp(max(each.version or 0, before.version + 1), each.site)
        ledger[each.site] = told[each.site] = stamp
    assert decision.winner in told
    for site, stamp in told.items():
        at = S if site == E else E
        there = ledger[at]
        if there is None or stamp.beats(there, S):
            ledger[at] = stamp
    assert ledger[E] == ledger[S] == told[decision.winner]


def test_versions_lie_above_the_horizon_and_keep_their_order() -> None:
    assert ruled({E: old(5), S: old(3)}, horizon=8) == (E, {E: 10, S: 9})
    assert ruled({E: old(50), S: old(3)}, horizon=8) == (E, {E: 50, S: 9})
    assert ruled({S: old(5), E: Held()}, owner=S, horizon=8) == (S, {S: 9})


def test_rows_of_one_value_under_two_ids_clash() -> None:
    found = clashes(("code",), {E: {"1": "a", "2": "b"}, S: {"3": "a", "4": "c"}})
    assert list(found) == [Clash(("code",), "a", ((E, "1"), (S, "3")))]
