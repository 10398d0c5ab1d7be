"""How the publisher learns that there is something to publish: woken by Realtime, or by looking."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime


class Way(enum.StrEnum):
    """Nothing depends on it but how soon a change leaves."""

    REALTIME = "realtime"
    POLLING = "polling"


@dataclass(frozen=True, slots=True)
class WakeUps:
    """The way, since when, and why it is polling."""

    way: Way
    since: datetime
    reason: str = ""
