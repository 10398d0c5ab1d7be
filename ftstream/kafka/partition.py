"""A topic partition, as everybody names it."""

from __future__ import annotations

from typing import NamedTuple


class Partition(NamedTuple):
    """A topic partition."""

    topic: str
    partition: int
