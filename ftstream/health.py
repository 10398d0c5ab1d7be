"""What a process says of itself over HTTP: /healthz, /readyz and, for Prometheus, /metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

log = logging.getLogger(__name__)

CLOSE_SECONDS = 1.0
"""How long an ending process lets an answer go on."""


class HealthServer:
    """Answers at one address; `unready` says why the process cannot do its work now, if it cannot."""

    def __init__(
        self,
        name: str,
        listen: str,
        unready: Callable[[], Sequence[str]],
        registry: CollectorRegistry = REGISTRY,
        more: Sequence[web.RouteDef] = (),
    ) -> None:
        """`listen`: see ListenSettings, of which `name` is one; empty: nobody is answered.

        `more`: what else this process answers.
        """
        self._name, self._listen, self._unready = name, listen, unready
        self._registry, self._more = registry, more
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Answer from now on. An address that is taken is told, and keeps nothing from its work."""
        if not self._listen:
            return
        address = urlsplit(f"//{self._listen}")
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.add_routes(self._more)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, address.hostname, address.port).start()
        except OSError as error:
            await runner.cleanup()
            log.warning(
                "nobody can ask this process for its health and metrics at %s: %s"
                " (give each process of this machine its own %s)",
                self._listen,
                error.strerror or error,
                f"listen.{self._name}",
            )
        else:
            self._runner = runner
            log.info("health and metrics: http://%s/metrics", self._listen)

    async def close(self) -> None:
        """Answer no more."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _healthz(self, _: web.Request) -> web.Response:
        """Its event loop turns: that is all."""
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = self._unready()
        if reasons:
            return web.Response(status=503, text="".join(f"{each}\n" for each in reasons))
        return web.Response(text="ready\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        # In a thread: collecting takes some milliseconds, which no change should wait for.
        text = await asyncio.to_thread(generate_latest, self._registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})
