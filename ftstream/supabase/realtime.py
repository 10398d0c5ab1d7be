"""Wakes somebody when tables change, by Supabase Realtime: one client after the other.

An event is a hint and never data: Realtime loses events, and tells values inexactly. Whenever it may
have lost some, which is at each beginning and each end, it wakes too.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ftstream.settings import RealtimeSettings
from ftstream.supabase.subscription import Patience, Subscription
from ftstream.supabase.wake_up import WakeUps, Way

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds before the next client: doubled from the least to the most, shortened at random."""

    least: float = 1.0
    most: float = 60.0

    def after(self, failures: int) -> float:
        longest = min(self.most, self.least * 2.0 ** min(failures, 30))
        return longest * random.uniform(0.5, 1.0)


class Realtime:
    """Keeps a subscription alive by replacing it, and says whether there is one."""

    def __init__(
        self,
        settings: RealtimeSettings,
        tables: Sequence[tuple[str, str]],
        wake: Callable[[], None],
        patience: Patience | None = None,
        pauses: Pauses | None = None,
    ) -> None:
        """`tables`: (schema, name). `wake` is called in the event loop, once or more for a change."""
        self._url, self._key = settings.url, settings.key.get_secret_value()
        self._tables, self._wake = tuple(tables), wake
        self._patience, self._pauses = patience or Patience(), pauses or Pauses()
        self._failures = 0
        self.state = WakeUps(Way.POLLING, datetime.now(UTC), "Realtime is not subscribed yet")
        self.changed = asyncio.Event()
        """Set when `state` becomes another; whoever looks clears it."""

    async def run(self) -> None:
        """Until cancelled; then nothing of it is left."""
        while True:
            reason = await self._subscribe()
            self._fall_back(reason)
            await asyncio.sleep(self._pauses.after(self._failures))
            self._failures += 1

    async def _subscribe(self) -> str:
        """The life of one client; the reason why it ended."""
        subscription = Subscription(
            self._url, self._key, self._tables, self._subscribed, self._wake, self._patience
        )
        try:
            return await subscription.run()
        finally:
            await subscription.discard()

    def _subscribed(self) -> None:
        if self.state.way is Way.POLLING:
            log.info("Supabase Realtime wakes the publisher")
            self._become(WakeUps(Way.REALTIME, datetime.now(UTC)))
        self._wake()

    def _fall_back(self, reason: str) -> None:
        reason, now = told(reason, self._key), datetime.now(UTC)
        if self.state.way is Way.REALTIME:
            log.warning(
                "the publisher looks by itself, since Realtime does not wake it: %s", reason
            )
            if (now - self.state.since).total_seconds() > self._pauses.most:
                self._failures = 0
            self._become(WakeUps(Way.POLLING, now, reason))
        elif self.state.reason != reason:
            if self._failures == 0:
                log.warning("the publisher looks by itself: %s", reason)
            self._become(WakeUps(Way.POLLING, self.state.since, reason))
        self._wake()

    def _become(self, state: WakeUps) -> None:
        self.state = state
        self.changed.set()


def told(reason: str, secret: str) -> str:
    """One line, and the key not in it: libraries quote URLs."""
    return " ".join((reason.replace(secret, "***") if secret else reason).split())
