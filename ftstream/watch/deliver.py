"""Delivers alerts by Apprise: each receiver by itself, again and again until it has taken them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import apprise

from ftstream.failures import Severity
from ftstream.settings import Receiver
from ftstream.watch.alerts import RANKS

log = logging.getLogger(__name__)

SEND_SECONDS = 15.0
MOST_SECONDS = 60.0
"""Between two tries."""
GIVE_UP_SECONDS = 3_600.0
"""After which a message is not tried any more: one that a receiver never takes keeps all others from it."""
MOST_WAITING = 200
"""Messages of a receiver that takes none; the oldest go first."""

_TYPES = {
    Severity.INFO: apprise.NotifyType.INFO,
    Severity.WARNING: apprise.NotifyType.WARNING,
    Severity.ERROR: apprise.NotifyType.FAILURE,
    Severity.CRITICAL: apprise.NotifyType.FAILURE,
}


class BadReceiver(ValueError):
    """The URL of a receiver is none that Apprise knows; the message does not show it."""


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """What a receiver is sent; `over`: a trouble has ended."""

    severity: Severity
    title: str
    body: str
    over: bool = False
    made_at: float = field(default_factory=time.monotonic, compare=False)


@dataclass(slots=True)
class _Queue:
    """Of one receiver. `error`: why it did not take the first of them."""

    receiver: Receiver
    service: apprise.Apprise
    waiting: deque[AlertMessage] = field(default_factory=lambda: deque(maxlen=MOST_WAITING))
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    error: str = ""


class Delivery:
    """Of all receivers. Raises BadReceiver when made."""

    def __init__(self, receivers: Sequence[Receiver]) -> None:
        # What fails is told here, without URLs.
        logging.getLogger("apprise").setLevel(logging.CRITICAL)
        self._queues = [_Queue(each, service_of(each)) for each in receivers]
        self.receipts: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        """Receiver and error, or nothing, of each try whose outcome is news."""

    @property
    def undelivered(self) -> dict[str, str]:
        """Receiver to why it does not take what is sent."""
        return {queue.receiver.name: queue.error for queue in self._queues if queue.error}

    def send(self, message: AlertMessage) -> None:
        """Have each receiver that wants such take it, some time."""
        for queue in self._queues:
            if RANKS[message.severity] >= RANKS[queue.receiver.least]:
                if len(queue.waiting) == MOST_WAITING:
                    log.warning("receiver %s: a message is dropped", queue.receiver.name)
                queue.waiting.append(message)
                queue.filled.set()

    def clear(self) -> None:
        """Another watcher tells from now on."""
        for queue in self._queues:
            queue.waiting.clear()
            queue.filled.clear()

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as group:
            for queue in self._queues:
                group.create_task(self._deliver(queue))

    async def flush(self, seconds: float) -> None:
        """Wait until all is delivered, not longer than that."""
        try:
            async with asyncio.timeout(seconds):
                while any(queue.waiting for queue in self._queues):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            log.warning("some alerts were not delivered")

    async def _deliver(self, queue: _Queue) -> None:
        wait = 1.0
        while True:
            await queue.filled.wait()
            if not queue.waiting:  # cleared meanwhile
                continue
            message = queue.waiting[0]
            error = await send(queue.service, message)
            if error != queue.error or not error:
                self.receipts.put_nowait((queue.receiver.name, error))
            if error and not queue.error:
                log.warning(
                    "receiver %s: %s: tried again until it does", queue.receiver.name, error
                )
            queue.error = error
            if error and time.monotonic() - message.made_at > GIVE_UP_SECONDS:
                log.warning(
                    "receiver %s: a message of an hour ago is given up", queue.receiver.name
                )
            elif error:
                await asyncio.sleep(wait)
                wait = min(wait * 2, MOST_SECONDS)
                continue
            wait = 1.0
            if queue.waiting and queue.waiting[0] is message:
                queue.waiting.popleft()
            if not queue.waiting:
                queue.filled.clear()


def service_of(receiver: Receiver) -> apprise.Apprise:
    """Return the service behind a receiver's URL. Raises BadReceiver."""
    service = apprise.Apprise()
    if not service.add(receiver.url.get_secret_value()):
        raise BadReceiver(
            f"watch.receivers: the url of {receiver.name} is none that Apprise knows"
            " (https://appriseit.com/services)"
        )
    return service


async def send(service: apprise.Apprise, message: AlertMessage) -> str:
    """Send a message; return why it was not taken, or nothing."""
    kind = apprise.NotifyType.SUCCESS if message.over else _TYPES[message.severity]
    try:
        async with asyncio.timeout(SEND_SECONDS):
            taken = await service.async_notify(
                title=message.title,
                body=message.body,
                notify_type=kind,
                body_format=apprise.NotifyFormat.TEXT,  # data may hold what looks like markup
            )
    except TimeoutError:
        return f"no answer in {SEND_SECONDS:.0f} s"
    except Exception as error:  # noqa: BLE001  # whatever a service's plugin raises
        return f"{type(error).__name__}"
    return "" if taken else "it was refused, or cannot be reached"
