"""Digests of both sites come to the rows and columns that differ, and to no others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ftstream.compare.comparison import (
    DifferenceKind,
    RangeDigest,
    differing_columns,
    differing_ranges,
    differing_rows,
)

ROWS = st.dictionaries(st.text(max_size=2), st.integers(0, 3), max_size=8)


@given(ROWS, ROWS)
def test_every_row_that_differs_is_told_and_no_other(
    source: dict[str, int], target: dict[str, int]
) -> None:
    found = differing_rows(source, target)
    for row in source.keys() | target.keys():
        match row in source, row in target:
            case True, False:
                assert found[row] is DifferenceKind.MISSING
            case False, True:
                assert found[row] is DifferenceKind.EXTRA
            case _:
                assert (row in found) is (source[row] != target[row])
    assert found.keys() <= source.keys() | target.keys()


def test_ranges_differ_by_count_by_digest_and_by_being_on_one_site_only() -> None:
    source = {
        0: RangeDigest(2, 7),
        1: RangeDigest(1, 5),
        2: RangeDigest(1, 9),
        4: RangeDigest(1, 1),
    }
    target = {
        0: RangeDigest(2, 7),
        1: RangeDigest(2, 5),
        2: RangeDigest(1, 8),
        3: RangeDigest(1, 1),
    }
    assert differing_ranges(source, target) == [1, 2, 3, 4]


def test_a_column_that_is_null_on_one_site_only_differs() -> None:
    names = ("a", "b", "c", "d")
    assert differing_columns(names, [1, None, None, 4], [1, None, 3, 5]) == ("c", "d")
