"""When a run may not go on by itself."""

from __future__ import annotations

from collections import Counter

import pytest

from ftstream.capture.batch.table_run import MOST_NAMED, TableRun
from ftstream.compare.comparison import DifferenceKind


def found(deletes: int, held: int, rows: int = 1) -> TableRun:
    kinds = Counter({DifferenceKind.EXTRA: deletes, DifferenceKind.MISSING: 9_999})
    return TableRun("t", "t", rows=rows, held=held, kinds=kinds)


@pytest.mark.parametrize(
    ("deletes", "held", "halts"),
    [
        (0, 0, False),
        (0, 10, False),
        (4, 21, False),
        (10, 11, False),
        (11, 220, False),
        (11, 219, True),
        (50, 1_000, False),
        (51, 1_000, True),
        (1_000, 1_000_000, False),
        (1_001, 1_000_000, True),
    ],
)
def test_deletes_wait_where_they_are_too_many(deletes: int, held: int, halts: bool) -> None:
    told = found(deletes, held).excess(most=1_000, percent=5, least=10)
    assert bool(told) is halts
    if halts:
        assert f"t: {deletes:,} of {held:,} rows would be deleted" in told


def test_table_that_is_empty_at_its_source_is_a_doubt_however_small_it_was() -> None:
    assert found(1, 1, rows=0).excess(most=1_000, percent=5, least=10)
    assert not found(1, 1, rows=0).excess(most=1_000, percent=100, least=10)
    assert not found(0, 0, rows=0).excess(most=0, percent=0, least=0)


def test_deletes_alone_count() -> None:
    assert found(0, 1).excess(most=0, percent=0, least=0) == ""
    assert found(1, 1).excess(most=1, percent=100, least=0) == ""


def test_table_tells_why_it_is_not_done() -> None:
    run = TableRun("t", "t", kinds=Counter({DifferenceKind.EXTRA: 1, DifferenceKind.MISSING: 2}))
    assert (run.problem, run.found) == ("", 3)
    run.refuse("t 1: too large")
    assert run.problem == "1 rows cannot travel, all others do: t 1: too large"
    run.doubt, run.withheld = "too many", 1
    assert (run.problem, run.found) == ("too many", 2)


def test_of_rows_that_cannot_travel_the_first_are_named() -> None:
    run = TableRun("t", "t")
    for n in range(MOST_NAMED + 5):
        run.refuse(f"row {n}")
    assert (run.refused, run.reasons) == (MOST_NAMED + 5, [f"row {n}" for n in range(MOST_NAMED)])


def test_details_are_what_sync_log_tells() -> None:
    run = TableRun(
        "t", "t", rows=5, kinds=Counter({DifferenceKind.EXTRA: 1, DifferenceKind.DIFFERENT: 2})
    )
    run.published, run.deleted, run.seconds = 3, 1, 1.23456
    assert run.details == {
        "rows": 5,
        "found": 3,
        "published": 3,
        "deleted": 1,
        "undone": 0,
        "waiting": 0,
        "returned": 0,
        "withheld": 0,
        "referred": 0,
        "refused": 0,
        "seconds": 1.235,
    }
