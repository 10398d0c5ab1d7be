"""What the watcher keeps: at both sites, so that either may be away, and in its own memory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from ftstream.flows import Site
from ftstream.postgres.connection import Json, open_site
from ftstream.postgres.errors import failure_of
from ftstream.postgres.queries import Queries, statement
from ftstream.retry import Trouble
from ftstream.settings import Settings
from ftstream.watch.alerts import Alert, Mute, newest
from ftstream.watch.heal import Restarts

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
        """Do something at a site, which one task does at a time.

        Raises SiteSilent, and psycopg.Error for what a site that answers refuses.
        """
        async with self._locks[site]:
            until, reason = self._silent.get(site, (0.0, ""))
            if time.monotonic() < until:
                raise SiteSilent(reason)
            try:
                return await self._in_time(site, work)
            except (TimeoutError, psycopg.errors.QueryCanceled) as error:
                reason = f"no answer in {ANSWER_SECONDS:.0f} s"
                raise await self._silenced(site, reason) from error
            except psycopg.Error as error:
                if not failure_of(error).connection:
                    raise
                reason = " ".join(str(error.__cause__ or error).split())
                raise await self._silenced(site, reason) from error

    async def _in_time(self, site: Site, work: Callable[[AsyncConnection], Awaitable[Any]]) -> Any:
        """Raises TimeoutError. What takes longer is left behind: to cancel it waits for the site, too."""

        async def run() -> Any:
            return await work(await self._connection(site))

        task = asyncio.create_task(run())
        try:
            await asyncio.wait({task}, timeout=ANSWER_SECONDS)
            if task.done():
                return task.result()
            raise TimeoutError
        finally:
            if not task.done():
                task.cancel()
                task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

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
        self._troubles: dict[tuple[Site, str], Trouble] = {}

    async def lease(self) -> bool | None:
        """Be the active watcher, or stay it: External says who is, and Supabase while it is away.

        None if neither answers.
        """
        values = {"holder": self._holder, "seconds": LEASE_SECONDS}
        asked = (self.one(site, "lease", values, default=(), refused=(False,)) for site in Site)
        rows = await asyncio.gather(*asked)
        for row in rows:
            if row not in ((), (False,)):
                return row is not None
        # Where it may not be kept nobody acts: each of several would tell, and restart connectors.
        return False if (False,) in rows else None

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

        return list(newest(*await self._both("open", read, [])))

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

        return [mute for mutes in await self._both("mutes", read, []) for mute in mutes]

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
        found = [row for site in Site if (row := await self.one(site, "compared"))]
        return min(found, key=lambda row: row[0], default=None)

    async def note_compared(self, differing: Mapping[str, int]) -> None:
        """Both sites have been compared."""
        await self._everywhere("note_compared", {"differing": Json.of(dict(differing))})

    async def waiting(self, flow: str) -> dict[str, set[str]]:
        """Return the rows of a flow of which changes are parked or dead at either site, by table."""

        async def read(connection: AsyncConnection) -> list[tuple[str, str]]:
            cursor = await connection.execute(statement(QUERIES["waiting"]), {"flow": flow})
            return await cursor.fetchall()

        found: dict[str, set[str]] = {}
        for rows in await self._both("waiting", read, []):
            for table, entity_id in rows:
                found.setdefault(table, set()).add(entity_id)
        return found

    async def note_receiver(self, name: str, error: str) -> None:
        """Say whether a receiver has taken what was sent."""
        await self._everywhere("note_receiver", {"name": name, "error": error})

    async def note_activity(self, action: str, entity: str, details: Mapping[str, object]) -> None:
        """Say in Supabase's activity_log what the watcher has done by itself."""
        values = {"action": action, "entity": entity, "details": Json.of(dict(details))}
        await self.one(Site.SUPABASE, "note_activity", values)

    async def restarts(self) -> dict[str, Restarts]:
        """Return how often which connector was restarted, and when last; nothing while Supabase is away."""

        async def read(connection: AsyncConnection) -> dict[str, Restarts]:
            cursor = await connection.execute(statement(QUERIES["restarts"]))
            return {
                connector: Restarts(count, datetime.fromtimestamp(at, UTC))
                for connector, count, at in await cursor.fetchall()
            }

        found: dict[str, Restarts] = await self._try(Site.SUPABASE, "restarts", read, {})
        return found

    async def one(
        self,
        site: Site,
        query: str,
        values: Mapping[str, object] | None = None,
        default: Any = None,
        refused: Any = None,
    ) -> Any:
        """Return the row of one of store.sql's statements.

        `default` if the site does not answer, `refused` if it does not let the watcher.
        """

        async def work(connection: AsyncConnection) -> Any:
            cursor = await connection.execute(statement(QUERIES[query]), values)
            return await cursor.fetchone() if cursor.description else None

        return await self._try(site, query, work, default, refused)

    async def _everywhere(self, query: str, values: Mapping[str, object]) -> int:
        """Run it at each site that answers; the most rows that one of them has touched."""

        async def work(connection: AsyncConnection) -> int:
            return (await connection.execute(statement(QUERIES[query]), values)).rowcount

        touched: list[int] = await self._both(query, work, 0)
        return max(touched)

    async def _both(
        self, what: str, work: Callable[[AsyncConnection], Awaitable[Any]], default: Any
    ) -> list[Any]:
        return await asyncio.gather(*(self._try(site, what, work, default) for site in Site))

    async def _try(
        self,
        site: Site,
        what: str,
        work: Callable[[AsyncConnection], Awaitable[Any]],
        default: Any,
        refused: Any = None,
    ) -> Any:
        # A command shows what it can see; `status` and `init` tell what is missing.
        level = logging.WARNING if self._holder else logging.DEBUG
        told = f"{site} refuses what the watcher asks ({what})"
        trouble = self._troubles.setdefault((site, what), Trouble(log, told, level=level))
        try:
            result = await self._links.run(site, work)
        except SiteSilent as error:
            log.debug("%s: %s", site, error)  # that it is away is told as such
            return default
        except psycopg.Error as error:
            trouble.met(error)
            return default if refused is None else refused
        trouble.over()
        return result
