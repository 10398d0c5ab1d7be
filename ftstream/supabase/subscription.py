"""One client of Supabase Realtime, from its connection to its end; it is never repaired.

What the library does about a fault by itself loses events or leaves it deaf: one that callbacks kill
stays "connected", one that rejoins may be closed by its own second join, one that has tried often
enough dies without a word. So it does nothing by itself here, and its first fault is its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec
from realtime import (
    AsyncRealtimeChannel,
    AsyncRealtimeClient,
    ChannelEvents,
    Message,
    RealtimePostgresChangesListenEvent,
    RealtimeSubscribeStates,
    ServerMessage,
    SuccessSystemPayload,
)
from supabase import AsyncClient, AsyncClientOptions
from websockets.exceptions import WebSocketException

CHANNEL = "ftstream"
PHOENIX = "phoenix"
OPTIONS = AsyncClientOptions(
    realtime={"auto_reconnect": False, "max_retries": 1},
    auto_refresh_token=False,
    persist_session=False,
)
BEAT = Message(topic=PHOENIX, event=ChannelEvents.heartbeat, payload={})


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. Realtime ends a connection from which it hears nothing for a minute."""

    join: float = 20.0
    """Until Realtime says that it is subscribed to PostgreSQL."""
    beat: float = 15.0
    """Between two heartbeats."""
    silent: float = 40.0
    """Without an answer to one, after which it is deaf, whatever the socket says."""
    close: float = 2.0
    """For the server to agree that the connection ends; then it is cut."""


class Subscription:
    """A client that hears of changes of some tables; `run` once, then `discard`, whatever came of it."""

    def __init__(
        self,
        url: str,
        key: str,
        tables: Iterable[tuple[str, str]],
        subscribed: Callable[[], None],
        changed: Callable[[], None],
        patience: Patience,
    ) -> None:
        """`tables`: (schema, name). `subscribed` is called each time that events begin or go on."""
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._subscribed, self._changed = subscribed, changed
        self._joined = asyncio.Event()
        self._over: asyncio.Future[str] = self._loop.create_future()
        self._heard = self._loop.time()
        self._client = AsyncClient(url, key, OPTIONS).realtime
        self._channel = self._client.channel(CHANNEL).on_system(self._on_system)
        for schema, table in tables:
            self._channel.on_postgres_changes(
                RealtimePostgresChangesListenEvent.All,
                lambda _: self._tell(self._changed),
                table=table,
                schema=schema,
            )
        self._client.channels[PHOENIX] = _Pulse(self._client, self._beaten)

    async def run(self) -> str:
        """Until it is of no use any more; the reason why."""
        try:
            async with asyncio.timeout(self._patience.join):
                await self._join()
        except TimeoutError:
            return f"Realtime did not say within {self._patience.join:g} s that it is subscribed"
        except (OSError, WebSocketException) as error:
            return f"Realtime cannot be reached: {error}"
        return await self._live()

    async def discard(self) -> None:
        """End all that belongs to the client; a server that is frozen holds nothing up."""
        tasks = list(self._tasks())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        socket = self._client._ws_connection
        if socket is not None:
            try:
                with suppress(TimeoutError):  # then it is cut
                    async with asyncio.timeout(self._patience.close):
                        await socket.close()
            finally:
                socket.transport.abort()

    async def _join(self) -> None:
        await self._client.connect()
        assert self._client._listen_task is not None  # made by connect
        self._client._listen_task.add_done_callback(self._deaf)
        await self._channel.subscribe(self._on_state)
        joined = asyncio.create_task(self._joined.wait())
        try:
            await asyncio.wait((joined, self._over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            joined.cancel()

    async def _live(self) -> str:
        while not self._over.done():
            silent = self._loop.time() - self._heard
            if silent > self._patience.silent:
                return f"Realtime has not answered a heartbeat for {self._patience.silent:g} s"
            with suppress(TimeoutError):  # a server that does not read: it does not answer either
                async with asyncio.timeout(self._patience.beat):
                    await self._client.send(BEAT)
            await asyncio.wait((self._over,), timeout=self._patience.beat)
        return self._over.result()

    # -- called by the library: what raises here would end its listener, and it would not say so

    def _tell(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)

    def _on_system(self, payload: SuccessSystemPayload) -> None:
        # Only this says that events come: SUBSCRIBED is the answer to the wish.
        if payload.extension == "postgres_changes":
            self._joined.set()
            self._tell(self._subscribed)

    def _on_state(self, state: RealtimeSubscribeStates, error: Exception | None) -> None:
        if state is not RealtimeSubscribeStates.SUBSCRIBED:
            self._end(f"Realtime: {state.value}{f': {_words(error)}' if error else ''}")

    def _deaf(self, listener: asyncio.Task[None]) -> None:
        error = None if listener.cancelled() else listener.exception()
        self._end(f"Realtime's client hears nothing any more{f': {error!r}' if error else ''}")

    def _beaten(self) -> None:
        self._heard = self._loop.time()

    def _end(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_result(reason)

    def _tasks(self) -> Iterator[asyncio.Task[None]]:
        """All that the library has started: its own `close` leaves timers and rejoins behind."""
        channels: Sequence[AsyncRealtimeChannel] = (self._channel, *self._client.channels.values())
        for channel in channels:
            yield from channel._background_tasks
            pushes = (channel.join_push, *channel.messages_waiting_for_ack.values())
            timers = (channel.rejoin_timer.timer, *(push.timeout_task for push in pushes))
            yield from (task for task in timers if task is not None)
        own = (self._client._listen_task, self._client._heartbeat_task)
        yield from (task for task in own if task is not None)


class _Told(msgspec.Struct):
    """What the server says of an error; the library hands it on as JSON."""

    message: str


def _words(error: Exception) -> str:
    try:
        return msgspec.json.decode(str(error), type=_Told).message
    except msgspec.MsgspecError:
        return str(error)


class _Pulse(AsyncRealtimeChannel):
    """Hears the answers to heartbeats, which the client drops as those of no channel."""

    def __init__(self, client: AsyncRealtimeClient, heard: Callable[[], None]) -> None:
        super().__init__(client, PHOENIX)
        self._heard = heard

    def _handle_message(self, message: ServerMessage) -> None:
        self._heard()
