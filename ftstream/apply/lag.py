"""How late changes come: from the commit at the source to the write here, over the last minute. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ftstream.messages.change import Change, Operation

WINDOW_SECONDS = 60.0
SAMPLES = 40
"""Of a batch: those of all its changes are much alike."""
MOST_SAMPLES = 5_000

_OF_BEFORE = (Operation.SNAPSHOT, Operation.REPAIR)
"""A snapshot tells of rows that are older than it, a repair has no time."""


@dataclass(frozen=True, slots=True)
class RecentLag:
    """Of changes that were applied lately, in milliseconds."""

    p50_ms: int
    p99_ms: int


class Lags:
    """Those of one flow to one site."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=MOST_SAMPLES)

    def add(self, changes: Sequence[Change], now: float) -> list[int]:
        """Take a batch that is applied at `now` (seconds since 1970); return the lags of a part of it."""
        step = max(1, len(changes) // SAMPLES)
        found = [
            max(0, int(now * 1000) - change.source_time // 1000)
            for change in changes[::step]
            if change.source_time and change.operation not in _OF_BEFORE
        ]
        self._seen.extend((now, lag) for lag in found)
        return found

    def of_the_last_minute(self, now: float) -> RecentLag | None:
        """None if nothing was applied."""
        while self._seen and self._seen[0][0] < now - WINDOW_SECONDS:
            self._seen.popleft()
        if not self._seen:
            return None
        found = sorted(lag for _, lag in self._seen)
        last = len(found) - 1
        return RecentLag(found[last // 2], found[last * 99 // 100])
