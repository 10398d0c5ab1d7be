"""A TCP proxy in front of PostgreSQL that can lose the answer to a commit."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self

COMMITTED = b"COMMIT\x00"
"""In the answer that says that a transaction is committed."""


class Proxy:
    """Passes bytes on; `lose_commits` of the next commits' answers never reach the client."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._server: asyncio.Server | None = None
        self.lose_commits = 0
        self.lost = 0

    def __enter__(self) -> Self:
        self._thread.start()
        opened = asyncio.start_server(self._serve, "127.0.0.1", 0)
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

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        server, forth = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            await asyncio.wait(
                [
                    asyncio.create_task(self._pass(client, forth, watched=False)),
                    asyncio.create_task(self._pass(server, back, watched=True)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            back.close()
            forth.close()

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, watched: bool
    ) -> None:
        while data := await source.read(65_536):
            if watched and self.lose_commits and COMMITTED in data:
                self.lose_commits -= 1
                self.lost += 1
                return
            sink.write(data)
            await sink.drain()
