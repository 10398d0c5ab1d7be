"""Watches the set-up while a worker runs: says what breaks, says when it is over, and has gaps closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import assert_never

from ftstream import notification
from ftstream.flows import Flow, Site
from ftstream.notification import Notify
from ftstream.settings import Settings
from ftstream.setup.close_gaps import Closed, LeftOpen, close_gaps
from ftstream.setup.faults import Fault
from ftstream.setup.lineage import WENT_BACK
from ftstream.setup.look import SetupLook, look

log = logging.getLogger(__name__)

CLOSE_AGAIN_SECONDS = 60.0
"""After which gaps that could not be closed are tried again."""


class SetupWatch:
    """Each worker has one: what several tell, the notifications count."""

    def __init__(
        self,
        settings: Settings,
        flows: Sequence[Flow],
        notify: Notify,
        went_back: Callable[[Site], Awaitable[None]],
    ) -> None:
        """`went_back`: has what is captured at a site halt."""
        self._went_back = went_back
        self._settings = settings
        self._flows = flows
        self._notify = notify
        # What the last look has found, and what was told of it.
        self._found: frozenset[Fault] = frozenset()
        self._told: dict[Fault, Fault] = {}
        self._closing: asyncio.Task[None] | None = None

    @property
    def silent(self) -> set[str]:
        """Who did not answer when it last looked: a site, kafka or connect."""
        return {fault.where for fault in self._found if fault.silent}

    async def run(self) -> None:
        """Look every few seconds until cancelled."""
        try:
            while True:
                try:
                    await self._look()
                except Exception:
                    # Others go on: one that watches must not end what it watches.
                    log.exception(
                        "the set-up cannot be looked at: a fault of ftstream, please report it"
                    )
                await asyncio.sleep(self._settings.watch.seconds)
        finally:
            if self._closing is not None:
                self._closing.cancel()
                await asyncio.gather(self._closing, return_exceptions=True)

    async def _look(self) -> None:
        found = await look(self._settings, self._flows, certain=self._found)
        self._tell(found)
        for fault in self._told:
            if fault.what == WENT_BACK:
                await self._went_back(Site(fault.where))
        self._found = frozenset(found.faults)
        if any(gap.settled for _, gap in found.gaps) and self._closing is None:
            self._closing = asyncio.create_task(self._close(found))

    def _tell(self, found: SetupLook) -> None:
        silent = {fault.where for fault in found.faults if fault.silent}
        for fault in found.faults:
            if fault in self._found and fault not in self._told:
                self._told[fault] = fault
                log.warning("%s", fault)
                detail = f" ({fault.detail})" if fault.detail else ""
                command = f"{fault.command}{detail}"
                lost = bool(fault.tables)
                self._notify(notification.setup_broken(fault.title, command, lost=lost))
        for fault in self._told.keys() - set(found.faults):
            hidden = fault.where in silent or (silent and fault.what == WENT_BACK)
            if not hidden:
                del self._told[fault]
                log.warning("over: %s", fault.title)
                self._notify(notification.setup_mended(fault.title))

    async def _close(self, found: SetupLook) -> None:
        left = False
        try:
            async for each in close_gaps(self._settings, found.gaps):
                match each:
                    case Closed(gap, rows, kept):
                        log.warning("gap closed: %s: %d rows repaired, %d kept", gap, rows, kept)
                        self._notify(notification.gap_closed(str(gap), rows, kept))
                    case LeftOpen(gap, reason, command):
                        left = True
                        log.warning("gap left: %s: %s. Then: %s", gap, reason, command)
                        self._notify(notification.gap_left(str(gap), reason, command))
                    case _ as never:
                        assert_never(never)
            if left:
                await asyncio.sleep(CLOSE_AGAIN_SECONDS)
        finally:
            self._closing = None
