"""Whether a site has gone back in time: a backup that was restored, or a replica that was behind.

Debezium would wait in silence until the log has passed the position that it knows, and skip what is
written until then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from psycopg import AsyncConnection

from ftstream.flows import Capture, Flow, Names, Site
from ftstream.postgres.connection import Json
from ftstream.postgres.queries import Queries, statement
from ftstream.settings import Settings
from ftstream.setup.faults import Fault

_QUERIES = Queries.load(__package__, "lineage.sql")

WENT_BACK = "it has gone back in time: a backup was restored, or it is a replica that was behind"


async def lineage_faults(
    settings: Settings,
    flows: Sequence[Flow],
    connections: Mapping[Site, AsyncConnection],
    *,
    count: bool,
    read_to: int = 0,
) -> list[Fault]:
    """Return which sites have gone back; with `count` each counts on. Raises psycopg.Error.

    `read_to`: how far the connectors have read External's log, in bytes.
    """
    right = "insert" if count else "select"
    if not all([await _may(connection, right) for connection in connections.values()]):
        return []
    found: list[Fault] = []
    for site, connection in connections.items():
        if await _counted_less(site, connection, connections[site.other], count=count):
            found.append(_fault(site, flows))
    external = connections[Site.EXTERNAL]
    if not any(fault.where == Site.EXTERNAL for fault in found):
        applied = await _one(
            connections[Site.SUPABASE], "gone_back", topics=_topics(settings, flows)
        )
        if max(applied, read_to) > await _one(external, "position"):
            found.append(_fault(Site.EXTERNAL, flows))
    return found


async def accept(
    settings: Settings,
    flows: Sequence[Flow],
    site: Site,
    connections: Mapping[Site, AsyncConnection],
) -> None:
    """Take the site as it is: all that it shares with the other is to be compared. Raises psycopg.Error."""
    here, there = connections[site], connections[site.other]
    shared = [
        {"flow": flow.name, "name": table.qualified}
        for flow in flows
        if flow.capture is not Capture.BATCH
        for table in flow.tables
    ]
    async with here.transaction():
        await here.execute(statement(_QUERIES["break"]), {"tables": Json.of(shared)})
    async with there.transaction():
        await there.execute(statement(_QUERIES["accept"]), {"site": site})
        topics = {"topics": _topics(settings, flows)}
        if site is Site.EXTERNAL:
            await there.execute(statement(_QUERIES["forget_position"]), topics)


async def _counted_less(
    site: Site, here: AsyncConnection, there: AsyncConnection, *, count: bool
) -> bool:
    # What was seen first: the site itself can only have counted on since.
    cursor = await there.execute(statement(_QUERIES["seen"]), {"site": site})
    seen = row[0] if (row := await cursor.fetchone()) else 0
    if not count:
        cursor = await here.execute(statement(_QUERIES["read"]), {"site": site})
        own = row[0] if (row := await cursor.fetchone()) else 0
        return bool(own < seen)
    values = {"site": site, "seen": seen}
    row = await (await here.execute(statement(_QUERIES["count"]), values)).fetchone()
    assert row is not None  # the statement returns exactly one row
    before, now, system = row
    if before < seen:
        return True
    await there.execute(
        statement(_QUERIES["keep"]), {"site": site, "counter": now, "system": system}
    )
    return False


def _fault(site: Site, flows: Sequence[Flow]) -> Fault:
    names = tuple(flow.name for flow in flows if site in flow.sources)
    return Fault(site.value, WENT_BACK, f"stop the workers, then ftstream restored {site}", names)


def _topics(settings: Settings, flows: Collection[Flow]) -> list[str]:
    """Those whose records hold positions of External's log."""
    return [
        topic
        for flow in flows
        if flow.capture is Capture.LOG
        for topic in Names(flow, settings.namespace).topics(Site.SUPABASE)
    ]


async def _may(connection: AsyncConnection, right: str) -> bool:
    row = await (await connection.execute(statement(_QUERIES["may"]), {"right": right})).fetchone()
    return bool(row and row[0])


async def _one(connection: AsyncConnection, query: str, **values: object) -> int:
    row = await (await connection.execute(statement(_QUERIES[query]), values or None)).fetchone()
    assert row is not None  # each of these statements returns exactly one row
    return int(row[0])
