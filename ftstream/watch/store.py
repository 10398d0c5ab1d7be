"""What the watcher keeps: at both sites, so that either may be away, and in its own memory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from ftstream.flows import Site
from ftstream.postgres.connection import Json, open_site
from ftstream.postgres.queries import Queries, statement
from ftstream.settings import Settings
from ftstream.watch.alerts import Alert, Mute, newest

log = logging.getLogger(__name__)

QUERIES = Queries.load(__package__, "store.sql")

ANSWER_SECONDS = 4.0
LEASE_SECONDS = 20.0
"""After which another watcher takes over from one that has said nothing."""
LATELY_SECONDS = 3_600.0
KEEP_DAYS = 90


class SiteSilent(Exception):
    """A site does not answer, or did not a moment ago."""


class Links:
    """A connection to each site, made again when it is lost.

    Who does not answer in time is asked again only in the next look: a look asks many times.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connections: dict[Site, AsyncConnection] = {}
        self._locks = {site: asyncio.Lock() for site in Site}
        self._silent: dict[Site, tuple[float, str]] = {}
        """Until when it is not asked, and why."""

    async def run(self, site: Site, work: Callable[[AsyncConnection], Awaitable[Any]]) -> Any:
        """Do something at a site, which one task does at a time. Raises psycopg.Error, SiteSilent."""
        async with self._locks[site]:
            until, reason = self._silent.get(site, (0.0, ""))
            if time.monotonic() < until:
                raise SiteSilent(reason)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await work(await self._connection(site))
            except TimeoutError as error:
                reason = f"no answer in {ANSWER_SECONDS:.0f} s"
                raise await self._silenced(site, reason) from error
            except psycopg.OperationalError as error:
                reason = " ".join(str(error.__cause__ or error).split())
                raise await self._silenced(site, reason) from error

    async def _connection(self, site: Site) -> AsyncConnection:
        connection = self._connections.get(site)
        if connection is None or connection.closed:
            connection = self._connections[site] = await open_site(self._settings, site)
        return connection

    async def _silenced(self, site: Site, reason: str) -> SiteSilent:
        pause = 0.8 * self._settings.watch.look_seconds
        self._silent[site] = time.monotonic() + pause, reason
        await self._drop(site)
        return SiteSilent(reason)

    async def close(self) -> None:
        for site in list(self._connections):
            await self._drop(site)

    async def _drop(self, site: Site) -> None:
        connection = self._connections.pop(site, None)
        if connection is not None:
            await connection.close()


class Store:
    """Of one watcher, or of a command; what a site does not take now it is given later."""

    def __init__(self, links: Links, holder: str = "") -> None:
        self._links = links
        self._holder = holder

    async def lease(self) -> bool | None:
        """Be the active watcher, or stay it: External says who is, and Supabase while it is away.

        None if neither answers.
        """
        values = {"holder": self._holder, "seconds": LEASE_SECONDS}
        granted: dict[Site, bool] = {}
        for site in Site:
            row = await self.one(site, "lease", values, default=())
            if row != ():
                granted[site] = row is not None
        return next((granted[site] for site in Site if site in granted), None)

    async def give_up(self) -> None:
        """Leave it to another at once."""
        for site in Site:
            await self.one(site, "give_up", {"holder": self._holder})

    async def alerts(self, seconds: float = LATELY_SECONDS) -> list[Alert]:
        """Return those that are open, and that were over in these last seconds, as they were kept last."""

        async def read(connection: AsyncConnection) -> list[Alert]:
            async with connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(statement(QUERIES["open"]), {"seconds": seconds})
                return msgspec.convert(await cursor.fetchall(), list[Alert])

        found = [await self._try(site, read, []) for site in Site]
        return list(newest(*found))

    async def open_alerts(self) -> list[Alert]:
        """Return those that are not over: one site may not know yet that an alert is."""
        return [alert for alert in await self.alerts() if alert.closed_at is None]

    async def save(self, alerts: Sequence[Alert]) -> None:
        """Keep them at each site that answers."""
        if alerts:
            await self._everywhere("save", {"alerts": Json.of(list(alerts))})

    async def forget(self) -> None:
        """Forget what was over long ago."""
        await self._everywhere("forget", {"days": KEEP_DAYS})

    async def mutes(self) -> list[Mute]:
        """Return what is not to be told now."""

        async def read(connection: AsyncConnection) -> list[Mute]:
            cursor = await connection.execute(statement(QUERIES["mutes"]))
            return [Mute(*row) for row in await cursor.fetchall()]

        found = [await self._try(site, read, []) for site in Site]
        return [mute for mutes in found for mute in mutes]

    async def acknowledge(self, code: str, subject: str, who: str) -> int:
        """Note that somebody is at it; how many alerts that is."""
        values = {"code": code, "subject": subject, "who": who}
        return await self._everywhere("acknowledge", values)

    async def mute(self, mute: Mute, who: str) -> int:
        """Do not tell these until a time."""
        values = {"code": mute.code, "subject": mute.subject, "until": mute.until, "who": who}
        return await self._everywhere("mute", values)

    async def unmute(self, code: str, subject: str) -> int:
        """Tell these again; no code: all."""
        return await self._everywhere("unmute", {"code": code, "subject": subject})

    async def compared(self) -> tuple[float, Mapping[str, int]] | None:
        """Return how long ago both sites were compared, and what differed."""
        for site in Site:
            if row := await self.one(site, "compared"):
                return row[0], row[1]
        return None

    async def note_compared(self, differing: Mapping[str, int]) -> None:
        """Both sites have been compared."""
        await self._everywhere("note_compared", {"differing": Json.of(dict(differing))})

    async def note_receiver(self, name: str, error: str) -> None:
        """Say whether a receiver has taken what was sent."""
        await self._everywhere("note_receiver", {"name": name, "error": error})

    async def note_activity(self, action: str, entity: str, details: Mapping[str, object]) -> None:
        """Say in Supabase's activity_log what the watcher has done by itself."""
        values = {"action": action, "entity": entity, "details": Json.of(dict(details))}
        await self.one(Site.SUPABASE, "note_activity", values)

    async def one(
        self,
        site: Site,
        query: str,
        values: Mapping[str, object] | None = None,
        default: Any = None,
    ) -> Any:
        """Return the row of one of store.sql's statements; `default` if the site does not answer."""

        async def work(connection: AsyncConnection) -> Any:
            cursor = await connection.execute(statement(QUERIES[query]), values)
            return await cursor.fetchone() if cursor.description else None

        return await self._try(site, work, default)

    async def _everywhere(self, query: str, values: Mapping[str, object]) -> int:
        """Run it at each site that answers; the most rows that one of them has touched."""

        async def work(connection: AsyncConnection) -> int:
            return (await connection.execute(statement(QUERIES[query]), values)).rowcount

        touched: list[int] = [await self._try(site, work, 0) for site in Site]
        return max(touched)

    async def _try(
        self, site: Site, work: Callable[[AsyncConnection], Awaitable[Any]], default: Any
    ) -> Any:
        try:
            return await self._links.run(site, work)
        except (psycopg.Error, SiteSilent) as error:
            log.debug("%s: %s", site, error)  # that it is away is told as such
            return default
