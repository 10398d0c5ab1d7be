"""Two sites that capture by outbox and apply what the other has written, without Kafka between them.

A test decides when a change arrives: in what order, how often, how late.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, LiteralString

from psycopg import AsyncConnection, sql

from ftstream.apply.applier import Applier, applier_of
from ftstream.apply.buffer import Buffer
from ftstream.apply.housekeeping import Housekeeper
from ftstream.apply.intake import Decode, Intake
from ftstream.apply.merge import Batch, FromLog
from ftstream.apply.offsets import Offsets
from ftstream.apply.parked_store import ParkedChanges
from ftstream.apply.parking import Parking
from ftstream.apply.schema import Schema
from ftstream.apply.sites import Sites
from ftstream.apply.tally import Tally
from ftstream.apply.writer import Writer
from ftstream.flows import Capture, Flow, Names, Site
from ftstream.kafka.partition import Partition
from ftstream.last_write.seen import SeenWrite
from ftstream.messages.change import Change, Entity, decode
from ftstream.messages.edit import decode_edit
from ftstream.notification import Notification
from ftstream.settings import Settings
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
    schema: Schema
    settings: Settings
    applier: Applier
    told: list[Notification] = field(default_factory=list)
    seen: dict[Entity, SeenWrite] = field(default_factory=dict)
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
        await self.applier.apply(Batch(changes, FromLog()))

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


class Worker:
    """What applies changes at a site as an agent does, parks what it cannot, and tries that again."""

    def __init__(self, place: Place, flow: Flow) -> None:
        self._place, self._flow = place, flow
        self.start()

    def start(self) -> None:
        """As after a crash: nothing is known but what is in the database."""
        place, flow, bounds = self._place, self._flow, self._place.settings.apply
        names = Names(flow)
        tables = {names.topic(table, place.site.other): table.name for table in flow.tables}
        offsets = Offsets(place.sites)
        self.applier, decode = self._applier_of()
        applier = self.applier
        self._parking = Parking(
            flow.name,
            applier,
            offsets,
            ParkedChanges(flow, place.sites),
            decode,
            _no_ends,
            place.told.append,
            bounds.dead_after_seconds,
        )
        keeper = Housekeeper(place.settings, place.site)
        self._writer = Writer(
            flow.name,
            applier,
            offsets,
            self._parking,
            Buffer(bounds.buffer_rows, bounds.buffer_bytes, lambda: None, lambda: None),
            Intake(flow.name, tables, decode, place.told.append),
            Tally(
                flow.name,
                place.site,
                {name: name for name in tables.values()},
                keeper,
                bounds,
                status=None,
            ),
            bounds,
        )
        self._partitions = [Partition(topic, 0) for topic in tables]

    def _applier_of(self) -> tuple[Applier, Decode]:
        place, flow, bounds = self._place, self._flow, self._place.settings.apply
        if flow.capture is not Capture.OUTBOX:
            schema = Schema(flow, place.site, place.told.append)
            return applier_of(flow, place.sites, schema, bounds, place.told.append), decode
        place.applier = applier_of(
            flow, place.sites, place.schema, bounds, place.told.append, place.seen.get
        )
        return place.applier, partial(decode_edit, place.site.other.value)

    async def apply(self, *changes: Change) -> None:
        await self._parking.begin(self._partitions)
        await self._writer.write(Batch(changes, FromLog()))

    async def retry(self) -> bool:
        """Try everything that is parked; whether any of it is applied or settled."""
        before = await self.parked()
        if before:
            await self._place.run(
                "update ftstream.parked_change set next_attempt_at = now() - interval '1 s'"
            )
            await self._parking.begin(self._partitions)
            await self._parking.try_due()
        return await self.parked() != before

    async def parked(self) -> list[tuple[str, str, str]]:
        """The rows that wait, with what for."""
        rows = await self._place.run(
            "select entity_id, error, hint from ftstream.parked_change"
            " where flow = %s order by topic, kafka_offset",
            self._flow.name,
        )
        return [(row[0], row[1], row[2]) for row in rows]


async def _no_ends() -> None:
    """No attempt counts: nothing dies."""
    return


async def settled(two: Two, workers: Mapping[Site, Worker], *more: Worker) -> None:
    """Have all that was written arrive, and be tried, until nothing moves."""
    for _ in range(100):
        moved = False
        for place in two.both:
            for change in await place.captured():
                moved = True
                await workers[place.site.other].apply(change)
        for worker in (*workers.values(), *more):
            moved |= await worker.retry()
        if not moved:
            return
    raise AssertionError("it goes on for ever")


@asynccontextmanager
async def two_places(
    pair: Pair,
    flow: Flow,
    setup: Sequence[LiteralString] = (),
    meet: Callable[[], Awaitable[None]] | None = None,
    beside: Sequence[Flow] = (),
) -> AsyncIterator[Two]:
    """Both sites set up for a flow by `init`, with those `beside` it.

    `setup` is run on both before, `meet` once after it.
    """
    for site in Site:
        async with await pair.connect(site, pair.cluster(site).site.admin) as owner:
            for query in setup:
                await owner.execute(query)
    async with await pair.connect(Site.EXTERNAL) as user:
        await user.execute(
            "select pg_create_logical_replication_slot("
            "current_database() || '_looked_at', 'test_decoding')"
        )
    async for _ in run_init(pair.settings, MemoryTopics(), [flow, *beside]):
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
    seen: dict[Entity, SeenWrite] = {}
    sites = Sites(site, pair.settings)
    schema = Schema(flow, site, told.append)
    applier = applier_of(flow, sites, schema, pair.settings.apply, told.append, seen.get)
    await applier.prepare()
    user = await pair.connect(site)
    return Place(site, user, sites, schema, pair.settings, applier, told, seen)


def _differing(ours: list[tuple[Any, ...]], theirs: list[tuple[Any, ...]]) -> list[str]:
    return [str(row)[:1_000] for row in (*ours, *theirs) if (row in ours) != (row in theirs)]


def _parsed(data: str) -> tuple[str, str, str]:
    entity, table = _PAYLOAD.search(data), _TABLE.search(data)
    assert entity is not None and table is not None, data
    return table.group(1), *(part.replace("''", "'") for part in entity.groups())  # type: ignore[return-value]
