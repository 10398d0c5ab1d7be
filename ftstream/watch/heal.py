"""When a connector that has failed is restarted: at once, then after 2, 6, 12, 20, 30, 42, 56 minutes. Pure.

The schedule is that of Strimzi's autoRestart: n * n + n minutes after the n-th restart, an hour at most. One
that has run for an hour begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

MOST = timedelta(minutes=60)
STEADY = timedelta(minutes=60)


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often a connector was restarted, and when last."""

    count: int = 0
    last: datetime | None = None

    def due(self, now: datetime) -> bool:
        """Say whether a connector that has failed is to be restarted now."""
        return self.last is None or now - self.last >= self._wait()

    def done(self, now: datetime) -> Restarts:
        """It was restarted."""
        fresh = self.last is None or now - self.last > self._wait() + STEADY
        return Restarts(1 if fresh else self.count + 1, now)

    def _wait(self) -> timedelta:
        return min(timedelta(minutes=self.count * self.count + self.count), MOST)
