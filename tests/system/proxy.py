"""A TCP proxy that loses the answer to a commit, delays what passes, lets nothing through, or holds it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

COMMITTED = b"COMMIT\x00"
"""In the answer that says that a transaction is committed."""

PIECE = 262_144
MESSAGE = 8_192
"""Bytes of a message at most that has a word to be held at."""


class Proxy:
    """Passes bytes on, `delay` seconds late in each direction.

    `lose_commits` of the next commits' answers never reach the client. While it is cut nothing passes,
    and nobody is told, as where a cable is pulled. A server's answer can be held from a word in it on.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        """To `target`, a port; at `port`, or any that is free."""
        self._target = target
        self._at = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._passing: set[asyncio.Task[None]] = set()
        self._severed: set[asyncio.Task[None]] = set()
        self.delay = 0.0
        self.lose_commits = 0
        self.lost = 0
        self._words: Sequence[bytes] = ()
        self._free = asyncio.Event()
        self._free.set()
        self.held: set[bytes] = set()
        """The words at which an answer is held."""

    def __enter__(self) -> Self:
        self._thread.start()
        opened = asyncio.start_server(self._serve, "127.0.0.1", self._at)
        self._server = asyncio.run_coroutine_threadsafe(opened, self._loop).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """What is open now never carries a byte again."""

        def cut() -> None:
            self._open.clear()
            self._severed |= self._passing

        self._loop.call_soon_threadsafe(cut)

    def restore(self) -> None:
        """Connections are possible again; those that were cut are reset, as after a timeout."""

        def restore() -> None:
            for task in self._severed:
                task.cancel()
            self._severed.clear()
            self._open.set()

        self._loop.call_soon_threadsafe(restore)

    def hold_at(self, *words: bytes) -> None:
        """Of a stream of changes the message with one of these words, and what comes after it, waits."""

        def hold() -> None:
            self._words = words
            self.held.clear()
            self._free.clear()

        self._loop.call_soon_threadsafe(hold)

    def let_go(self) -> None:
        """What is held passes."""

        def let_go() -> None:
            self._words = ()
            self._free.set()

        self._loop.call_soon_threadsafe(let_go)

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        # asyncio logs a handler that is cancelled.
        with contextlib.suppress(asyncio.CancelledError):
            await self._connect(client, back)

    async def _connect(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        await self._open.wait()
        try:
            server, forth = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            back.close()  # as who connects would see it
            return
        try:
            both = {
                asyncio.create_task(self._pass(client, forth, watched=False)),
                asyncio.create_task(self._pass(server, back, watched=True)),
            }
            self._passing |= both
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            self._passing -= both
        finally:
            back.close()
            forth.close()

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, watched: bool
    ) -> None:
        # One side may end at any time, as it likes: then the other is ended too.
        with contextlib.suppress(ConnectionError):
            last = b""
            while data := await source.read(PIECE):
                await self._open.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                if watched and self.lose_commits and COMMITTED in data:
                    self.lose_commits -= 1
                    self.lost += 1
                    return
                if watched and self._words:
                    data, last = await self._held(sink, last, data)
                else:
                    last = b""
                sink.write(data)
                await sink.drain()

    async def _held(
        self, sink: asyncio.StreamWriter, last: bytes, data: bytes
    ) -> tuple[bytes, bytes]:
        """What is left to pass of the data, once it may, and its end: a message may come in two parts."""
        seen = last + data
        for word in self._words:
            if (at := seen.find(word)) >= 0:
                passed = _before(seen, at, len(last)) - len(last)
                sink.write(data[:passed])
                self.held.add(word)
                await self._free.wait()
                return data[passed:], b""
        return data, seen[-MESSAGE:]


def _before(seen: bytes, at: int, sent: int) -> int:
    """Where to hold a replication stream that has a word: before its message, or after it if it has begun.

    A client that has half of a message waits for the rest, and does nothing else meanwhile.
    """
    for start in range(at, -1, -1):
        end = start + 1 + int.from_bytes(seen[start + 1 : start + 5])
        if seen[start : start + 1] == b"d" and seen[start + 5 : start + 6] == b"w" and end > at:
            return start if start >= sent else end
    return at
