"""When a run may not go on by itself."""

from __future__ import annotations

from collections import Counter

import pytest

from ftstream.core.batch import MOST_NAMED, TableRun
from ftstream.core.comparison import Kind


def found(deletes: int, held: int) -> TableRun:
    return TableRun("t", "t", held=held, kinds=Counter({Kind.EXTRA: deletes, Kind.MISSING: 9_999}))


@pytest.mark.parametrize(
    ("deletes", "held", "halts"),
    [
        (0, 0, False),
        (0, 10, False),
        (1, 20, False),
        (1, 19, True),
        (50, 1_000, False),
        (51, 1_000, True),
        (1_000, 1_000_000, False),
        (1_001, 1_000_000, True),
    ],
)
def test_run_halts_where_it_would_delete_too_much(deletes: int, held: int, halts: bool) -> None:
    told = found(deletes, held).excess(most=1_000, percent=5)
    assert bool(told) is halts
    if halts:
        assert f"t: {deletes:,} of {held:,} rows would be deleted" in told


def test_deletes_alone_count() -> None:
    assert found(0, 1).excess(most=0, percent=0) == ""
    assert found(1, 1).excess(most=1, percent=100) == ""


def test_of_rows_that_cannot_travel_the_first_are_named() -> None:
    run = TableRun("t", "t")
    for n in range(MOST_NAMED + 5):
        run.refuse(f"row {n}")
    assert (run.refused, run.reasons) == (MOST_NAMED + 5, [f"row {n}" for n in range(MOST_NAMED)])


def test_details_are_what_sync_log_tells() -> None:
    run = TableRun("t", "t", rows=5, kinds=Counter({Kind.EXTRA: 1, Kind.DIFFERENT: 2}))
    run.published, run.deleted, run.seconds = 3, 1, 1.23456
    assert run.details == {
        "rows": 5,
        "found": 3,
        "published": 3,
        "deleted": 1,
        "undone": 0,
        "waiting": 0,
        "returned": 0,
        "refused": 0,
        "seconds": 1.235,
    }
