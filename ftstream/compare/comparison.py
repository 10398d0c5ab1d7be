"""What a comparison of one table on two sites comes to, from digests of its ranges and rows."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class DifferenceKind(enum.StrEnum):
    """How a row of the target differs from the source's."""

    MISSING = "missing"  # the target lacks it
    EXTRA = "extra"  # the source does not have it
    DIFFERENT = "different"
    UNSETTLED = "unsettled"  # it changed whenever it was looked at


class RangeDigest(NamedTuple):
    """The rows of one range of keys: how many, and one number over all of them."""

    rows: int
    digest: int


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that differs, and in which columns, where both sites have it."""

    id: str
    kind: DifferenceKind
    columns: tuple[str, ...] = ()


def differing_ranges(
    source: Mapping[int, RangeDigest], target: Mapping[int, RangeDigest]
) -> list[int]:
    """The numbers of the ranges that are not equal, in order."""
    return sorted(n for n in source.keys() | target.keys() if source.get(n) != target.get(n))


def differing_rows(
    source: Mapping[str, int], target: Mapping[str, int]
) -> dict[str, DifferenceKind]:
    """The rows that are not equal, from id to digest on each site."""
    return {
        **dict.fromkeys(source.keys() - target.keys(), DifferenceKind.MISSING),
        **dict.fromkeys(target.keys() - source.keys(), DifferenceKind.EXTRA),
        **{
            i: DifferenceKind.DIFFERENT
            for i in source.keys() & target.keys()
            if source[i] != target[i]
        },
    }


def differing_columns(
    names: Sequence[str], source: Sequence[int | None], target: Sequence[int | None]
) -> tuple[str, ...]:
    """The names of the columns whose digests differ; None stands for NULL."""
    return tuple(n for n, s, t in zip(names, source, target, strict=True) if s != t)
