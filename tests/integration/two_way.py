"""Two sites that capture by outbox and apply what the other has written, without Kafka between them.

A test decides when a change arrives: in what order, how often, how late.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, LiteralString

from psycopg import AsyncConnection, sql

from ftstream.adapters.postgres.outbox_applier import OutboxApplier
from ftstream.adapters.postgres.schema import Schema
from ftstream.adapters.postgres.sites import Sites
from ftstream.core.change import Change
from ftstream.core.edit import decode_edit
from ftstream.core.notification import Notification
from ftstream.core.plan import Batch, Entity
from ftstream.core.seen import Seen
from ftstream.flows import Flow, Site
from ftstream.setup import run_init
from tests.integration.conftest import MemoryTopics, Pair

_PAYLOAD = re.compile(
    r"entity_id\[text\]:'((?:[^']|'')*)' payload\[text\]:'((?:[^']|'')*)'(?: transaction\[bigint\]:null)?$",
    re.S,
)
_TABLE = re.compile(r"table_name\[text\]:'([^']*)'")


@dataclass
class Place:
    """One site: a connection for users, and an applier of what the other site writes."""

    site: Site
    user: AsyncConnection
    sites: Sites
    applier: OutboxApplier
    told: list[Notification] = field(default_factory=list)
    seen: dict[Entity, Seen] = field(default_factory=dict)
    """What the applier is told that was seen of the other site's writes: nothing, unless a test says so."""
    offsets: int = 0

    async def run(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        cursor = await self.user.execute(query, values or None)
        return await cursor.fetchall() if cursor.description else []

    async def captured(self) -> list[Change]:
        """What users have written here since the last call, in the order of their commits."""
        if self.site is Site.SUPABASE:
            rows = await self.run(
                "with taken as (delete from ftstream.outbox returning *)"
                " select table_name, entity_id, payload from taken order by id"
            )
        else:
            found = await self.run(
                "select data from pg_logical_slot_get_changes(current_database() || '_looked_at', null, null)"
                " where data like 'table ftstream.outbox: INSERT%'"
            )
            rows = [_parsed(data) for (data,) in found]
        return [self._change(*row) for row in rows]

    def _change(self, table: str, entity_id: str, payload: str) -> Change:
        self.offsets += 1
        return decode_edit(
            self.site.value,
            table,
            f"{self.site}.{table}",
            0,
            self.offsets,
            entity_id.encode(),
            payload.encode(),
        )

    async def apply(self, *changes: Change) -> None:
        await self.applier.apply(Batch(changes))

    async def rows(self, table: str) -> list[tuple[Any, ...]]:
        query = sql.SQL("select t::text from {} t order by t.id").format(sql.Identifier(table))
        return await (await self.user.execute(query)).fetchall()

    async def ledger(self) -> list[tuple[Any, ...]]:
        return await self.run(
            "select table_name, entity_id, version, site::text, operation::text"
            " from ftstream.last_write order by 1, 2"
        )

    async def outcomes(self) -> list[str]:
        rows = await self.run("select outcome::text from ftstream.sync_log order by logged_at")
        return [row[0] for row in rows]


@dataclass
class Two:
    """Both sites."""

    external: Place
    supabase: Place

    @property
    def both(self) -> tuple[Place, Place]:
        return self.external, self.supabase

    async def exchange(self) -> None:
        """Each gets all that the other has written."""
        for here, there in ((self.external, self.supabase), (self.supabase, self.external)):
            if changes := await here.captured():
                await there.apply(*changes)

    async def must_agree(self, *tables: str) -> None:
        for table in tables:
            found = _differing(await self.external.rows(table), await self.supabase.rows(table))
            assert not found, "\n".join(found)
        found = _differing(await self.external.ledger(), await self.supabase.ledger())
        assert not found, "\n".join(found)


@asynccontextmanager
async def two_places(
    pair: Pair,
    flow: Flow,
    setup: Sequence[LiteralString] = (),
    meet: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[Two]:
    """Both sites set up for a flow by `init`; `setup` is run on both before, `meet` once after it."""
    for site in Site:
        async with await pair.connect(site, pair.cluster(site).site.admin) as owner:
            for query in setup:
                await owner.execute(query)
    async with await pair.connect(Site.EXTERNAL) as user:
        await user.execute(
            "select pg_create_logical_replication_slot("
            "current_database() || '_looked_at', 'test_decoding')"
        )
    async for _ in run_init(pair.settings, MemoryTopics(), [flow]):
        pass
    if meet is not None:
        await meet()
    places = [await _place(pair, flow, site) for site in (Site.EXTERNAL, Site.SUPABASE)]
    try:
        yield Two(*places)
    finally:
        for place in places:
            await place.user.close()
            await place.sites.close()


async def _place(pair: Pair, flow: Flow, site: Site) -> Place:
    told: list[Notification] = []
    seen: dict[Entity, Seen] = {}
    sites = Sites(site, pair.settings)
    schema = Schema(flow, site, told.append)
    applier = OutboxApplier(flow, sites, schema, pair.settings.apply, told.append, seen.get)
    await applier.prepare()
    return Place(site, await pair.connect(site), sites, applier, told, seen)


def _differing(ours: list[tuple[Any, ...]], theirs: list[tuple[Any, ...]]) -> list[str]:
    return [str(row)[:1_000] for row in (*ours, *theirs) if (row in ours) != (row in theirs)]


def _parsed(data: str) -> tuple[str, str, str]:
    entity, table = _PAYLOAD.search(data), _TABLE.search(data)
    assert entity is not None and table is not None, data
    return table.group(1), *(part.replace("''", "'") for part in entity.groups())  # type: ignore[return-value]
