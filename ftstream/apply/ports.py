"""What an agent needs of whatever applies its flow's changes: it differs with how a flow is captured."""

from __future__ import annotations

from typing import Protocol

from ftstream.apply.merge import Batch
from ftstream.apply.sites import Sites


class Applier(Protocol):
    """Both methods may raise ApplyFailed."""

    async def prepare(self, sites: Sites | None = None) -> bool:
        """Read both sites' catalogs, through these connections or its own; True if a table has changed."""
        ...

    async def apply(self, batch: Batch) -> None:
        """Apply the batch, whole or not at all."""
        ...
