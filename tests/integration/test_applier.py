"""Applying against real databases, at the moments that no system test meets on purpose."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg import AsyncConnection, sql

from ftstream.apply import authority, dead_letters, parked_store, rows
from ftstream.apply import sites as sites_module
from ftstream.apply.applier import applier_of
from ftstream.apply.authority import REREAD_ROWS
from ftstream.apply.housekeeping import Housekeeper
from ftstream.apply.merge import Batch, Effect, FromLog, FromParked, Span
from ftstream.apply.offsets import Offsets
from ftstream.apply.parked_store import ParkedChanges
from ftstream.apply.refetch import read_from_owner
from ftstream.apply.rows import RowPlan, Tables
from ftstream.apply.schema import Schema
from ftstream.apply.sites import ApplyFailed, Sites
from ftstream.apply.statements import QUERIES, TableStatements
from ftstream.failures import Policy, classify
from ftstream.flows import GFX, Site
from ftstream.kafka.partition import Partition
from ftstream.messages.change import REPAIR_REQUEST, Change, Entity, decode
from ftstream.notification import Notification
from ftstream.postgres.queries import statement
from ftstream.setup import run_init
from tests.integration.conftest import MemoryTopics, Pair, as_ftstream

ONE, TWO, THREE = (str(uuid.UUID(int=n)) for n in (1, 2, 3))
ZERO = str(uuid.UUID(int=0))
TOPIC = "gfx.gfx_players"


class Worker:
    """An applier with connections of its own, for one partition."""

    def __init__(self, pair: Pair, partition: int) -> None:
        self.told: list[Notification] = []
        self.sites = Sites(Site.SUPABASE, pair.settings)
        self.schema = Schema(GFX, Site.SUPABASE, self.told.append)
        bounds = pair.settings.apply
        self.applier = applier_of(GFX, self.sites, self.schema, bounds, self.told.append)
        self.offsets = Offsets(self.sites)
        self.parked = ParkedChanges(GFX, self.sites)
        self.at = Partition(TOPIC, partition)
        self._next = 0

    async def ready(self) -> Worker:
        await self.applier.prepare()
        await self.offsets.applied([self.at])
        return self

    def batch(self, *changes: Change) -> Batch:
        return Batch(
            changes, FromLog((Span(self.at, changes[0].offset, changes[-1].offset + 1, None),))
        )

    def change(self, key: str, **row: object) -> Change:
        image = msgspec.json.encode({"op": "u", "source": {}, "after": {"id": key, **row}})
        return self._decoded(key, image)

    def delete(self, key: str) -> Change:
        return self._decoded(key, b'{"op":"d","source":{}}')

    def keyless_delete(self, player_hash: str) -> Change:
        """As it comes where the replica identity is the index of player_hash."""
        before = {"id": ZERO, "player_hash": player_hash, "name": ""}
        image = msgspec.json.encode({"op": "d", "source": {}, "before": before, "after": None})
        return self._decoded(ZERO, image)

    def truncate(self) -> Change:
        return self._decoded("", b'{"op":"t","source":{}}')

    async def park(self, change: Change, *, partial: bool = False) -> None:
        """As if a user held its row."""
        change = msgspec.structs.replace(change, partial=partial)
        held = classify("55P03", "held")
        await self.applier.apply(Batch((change,), FromLog()).parking({change.entity: held}))

    def repair(self, key: str) -> Change:
        return self._decoded(key, REPAIR_REQUEST)

    def _decoded(self, key: str, value: bytes) -> Change:
        change = decode("gfx_players", *self.at, self._next, key.encode(), value)
        assert change is not None
        self._next += 1
        return change


@pytest.fixture
def pair(least: Pair) -> Pair:
    """The workers have no more rights than `init` gives them."""
    return least


@pytest.fixture
async def workers(pair: Pair) -> AsyncIterator[tuple[Worker, Worker]]:
    """Two workers of the flow, a partition each."""
    async for _ in run_init(pair.settings, MemoryTopics()):
        pass
    one, two = await Worker(pair, 0).ready(), await Worker(pair, 1).ready()
    yield one, two
    await one.sites.close()
    await two.sites.close()


async def players(pair: Pair, site: Site) -> list[tuple[Any, ...]]:
    async with await pair.connect(site) as connection:
        query = "select id::text, player_hash, name from gfx_players order by id"
        return await (await connection.execute(query)).fetchall()


async def write(pair: Pair, site: Site, query: str, *values: object) -> None:
    """As the worker does, where the other site owns the rows; else as their owner."""
    guarded = site is Site.SUPABASE and re.match("(insert into|update|delete from) gfx_", query)
    async with await pair.connect(site) as connection, connection.transaction():
        if not guarded:
            await connection.execute(sql.SQL(query), values)
            return
        async with as_ftstream(connection, pair.settings, site):
            await connection.execute(sql.SQL(query), values)


INSERT = "insert into gfx_players (id, player_hash, name) values (%s, %s, %s)"


async def test_row_read_from_its_owner_never_overwrites_what_another_worker_applies(
    pair: Pair, workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One needs the hash that TWO held; so TWO is read as well, while it changes in other hands."""
    first, second = workers
    await write(pair, Site.EXTERNAL, INSERT, ONE, "x", "one")
    await write(pair, Site.EXTERNAL, INSERT, TWO, "y", "old")
    await write(pair, Site.SUPABASE, INSERT, TWO, "x", "old")
    refused: list[Policy] = []

    async def read_while_another_works(
        source: AsyncConnection,
        target: AsyncConnection,
        tables: Mapping[str, TableStatements],
        batch: Batch,
        rows: Mapping[Entity, Effect],
    ) -> dict[Entity, Effect]:
        found = await read_from_owner(source, target, tables, batch, rows)
        await write(pair, Site.EXTERNAL, "update gfx_players set name = 'new' where id = %s", TWO)
        with pytest.raises(ApplyFailed) as error:
            await second.applier.apply(later)
        refused.append(error.value.failure.policy)
        return found

    later = second.batch(second.change(TWO, player_hash="y", name="new"))
    monkeypatch.setattr(authority, "read_from_owner", read_while_another_works)
    await first.applier.apply(first.batch(first.change(ONE, player_hash="x", name="one")))
    assert refused == [Policy.WAIT]
    await second.applier.apply(later)
    assert await players(pair, Site.SUPABASE) == await players(pair, Site.EXTERNAL)


async def test_too_many_rows_to_read_from_their_owner_are_divided(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    worker, _ = workers
    repairs = [worker.repair(str(uuid.uuid4())) for _ in range(REREAD_ROWS + 1)]
    with pytest.raises(ApplyFailed) as error:
        await worker.applier.apply(worker.batch(*repairs))
    assert error.value.failure.policy is Policy.DIVIDE
    for half in worker.batch(*repairs).halves():
        await worker.applier.apply(half)
    applied = await worker.offsets.applied([worker.at])
    assert applied[worker.at].next == REREAD_ROWS + 1


async def test_repair_writes_the_row_as_its_owner_has_it_or_removes_it(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    worker, _ = workers
    await write(pair, Site.EXTERNAL, INSERT, ONE, "x", "one")
    await write(pair, Site.EXTERNAL, INSERT, TWO, "y", "two")
    await write(pair, Site.SUPABASE, INSERT, TWO, "y", "other")
    await write(pair, Site.SUPABASE, INSERT, THREE, "z", "stray")
    await write(pair, Site.SUPABASE, "alter table gfx_players add own int default 1")
    await write(pair, Site.SUPABASE, "update gfx_players set own = 5")
    await worker.applier.prepare()
    repairs = [worker.repair(key) for key in (ONE, TWO, THREE)]
    await worker.applier.apply(worker.batch(*repairs))
    assert await players(pair, Site.SUPABASE) == await players(pair, Site.EXTERNAL)
    async with await pair.connect(Site.SUPABASE) as connection:
        own = await connection.execute("select own from gfx_players order by id")
        assert await own.fetchall() == [(1,), (5,)]  # nobody's but Supabase's


async def test_rows_that_others_hold_are_named(pair: Pair, workers: tuple[Worker, Worker]) -> None:
    worker, _ = workers
    for key in (ONE, TWO):
        await write(pair, Site.SUPABASE, INSERT, key, key, "name")
    async with await pair.connect(Site.SUPABASE) as user, user.transaction():
        await user.execute("select from gfx_players where id = %s for update", [TWO])
        changes = [worker.change(key, player_hash=key, name="new") for key in (ONE, TWO)]
        with pytest.raises(ApplyFailed) as error:
            await worker.applier.apply(worker.batch(*changes))
    assert error.value.entities == {("gfx_players", TWO)}


async def test_column_that_an_older_image_lacks_is_left_alone_however_often_it_is_tried(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    """A batch across the moment when the column came."""
    worker, _ = workers
    before = {"player_hash": "x", "name": "before"}
    await worker.applier.apply(worker.batch(worker.change(ONE, **before)))
    for site in Site:
        await write(pair, site, "alter table gfx_players add late int default 7")
    changes = [
        worker.change(ONE, **before | {"name": "older"}),
        worker.change(TWO, player_hash="y", name="newer", late=5),
    ]
    batch = worker.batch(*changes)
    async with await pair.connect(Site.SUPABASE) as user, user.transaction():
        await user.execute("select from gfx_players where id = %s for update", [ONE])
        for _ in range(2):
            with pytest.raises(ApplyFailed):
                await worker.applier.apply(batch)
    await worker.applier.apply(batch)
    async with await pair.connect(Site.SUPABASE) as connection:
        query = "select name, late from gfx_players order by name"
        rows = await (await connection.execute(query)).fetchall()
    assert rows == [("newer", 5), ("older", 7)]


async def test_parked_change_is_taken_once(pair: Pair, workers: tuple[Worker, Worker]) -> None:
    worker, other = workers
    change = worker.change(ONE, player_hash="x", name="one")
    failure = ApplyFailed
    with pytest.raises(failure) as error:
        await worker.applier.apply(worker.batch(worker.change(TWO, player_hash=5.5, name=None)))
    parked = Batch((change,), FromLog()).parking({("gfx_players", ONE): error.value.failure})
    await worker.applier.apply(parked)
    (found,) = await worker.parked.due([worker.at])
    assert (found.entity_id, found.message) == (ONE, change.message)
    await other.applier.apply(Batch((change,), FromParked()))
    with pytest.raises(failure) as taken:
        await worker.applier.apply(Batch((change,), FromParked()))
    assert taken.value.failure.policy is Policy.FENCED
    assert await worker.parked.due([worker.at]) == []


async def test_record_that_is_parked_again_takes_the_place_of_the_one_at_its_offset(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    """As after a topic was recreated, or the target restored."""
    worker, _ = workers
    held = classify("55P03", "held")
    for key in (ONE, TWO):
        change = msgspec.structs.replace(worker.change(key, name=key), offset=0)
        parked = Batch((change,), FromLog()).parking({("gfx_players", key): held})
        await worker.applier.apply(parked)
    (found,) = await worker.parked.due([worker.at])
    assert found.entity_id == TWO


async def test_changes_of_a_row_die_together_and_are_retried_together(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    worker, _ = workers
    unfit = classify("22003", "does not fit")
    for name in ("first", "second"):
        await worker.park(worker.change(ONE, name=name), partial=name == "second")
        due = await worker.parked.due([worker.at])
        assert not await worker.parked.postpone(due, unfit, counted=True, dead_after=60)
        await write(
            pair, Site.SUPABASE, "update ftstream.parked_change set next_attempt_at = now()"
        )
    due = await worker.parked.due([worker.at])
    assert len(due) == 2
    # While they are tried, another is parked behind them.
    await worker.park(worker.change(ONE, name="third"), partial=True)
    assert await worker.parked.postpone(due, unfit, counted=True, dead_after=0)
    assert await worker.parked.due([worker.at]) == []
    async with await pair.connect(Site.SUPABASE) as connection:
        letters = await dead_letters.letters(connection, state="dead")
        assert [each.kafka_offset for each in letters] == [0, 1, 2]
        await dead_letters.retry(connection, [letters[1].id])
    again = await worker.parked.due([worker.at])
    # What they say may be old by now.
    assert [each.reread for each in again] == [True, True, True]


async def test_change_that_tells_all_of_its_row_takes_the_place_of_those_parked_before_it(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    """Else a row that is held for an hour, and written each second, would fill the database."""
    worker, _ = workers
    for name in ("first", "second", "third"):
        await worker.park(worker.change(ONE, name=name), partial=name == "second")
    (left,) = await worker.parked.due([worker.at])
    assert left.offset == 2
    async with await pair.connect(Site.SUPABASE) as connection:
        query = (
            "select kafka_offset, outcome::text from ftstream.sync_log where outcome = 'superseded'"
        )
        logged = await (await connection.execute(query)).fetchall()
    assert sorted(logged) == [(0, "superseded"), (1, "superseded")]


async def test_change_that_waited_when_its_table_was_emptied_brings_no_row_back(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    worker, _ = workers
    await worker.park(worker.change(ONE, player_hash="x", name="one"))
    await worker.applier.apply(Batch((worker.truncate(),), FromLog()))
    (due,) = await worker.parked.due([worker.at])
    assert due.reread
    repair = msgspec.structs.replace(worker.repair(ONE), offset=due.offset)
    await worker.applier.apply(Batch((repair,), FromParked()))
    assert await players(pair, Site.SUPABASE) == []


async def test_unique_values_that_swap_leave_alone_what_the_target_has_alone(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    worker, _ = workers
    own = (
        "alter table gfx_players add own text default 'default',"
        " add twice text generated always as (own || own) stored"
    )
    await write(pair, Site.SUPABASE, own)
    await worker.applier.prepare()
    for key, mine, theirs in ((ONE, "x", "y"), (TWO, "y", "x")):
        await write(pair, Site.SUPABASE, INSERT, key, theirs, key)
        await write(pair, Site.EXTERNAL, INSERT, key, mine, key)
    await write(pair, Site.SUPABASE, "update gfx_players set own = id::text")
    changes = [
        worker.change(ONE, player_hash="x", name=ONE),
        worker.change(TWO, player_hash="y", name=TWO),
    ]
    await worker.applier.apply(worker.batch(*changes))
    async with await pair.connect(Site.SUPABASE) as connection:
        query = "select id::text, player_hash, own, twice from gfx_players order by id"
        rows = await (await connection.execute(query)).fetchall()
    assert rows == [(ONE, "x", ONE, ONE + ONE), (TWO, "y", TWO, TWO + TWO)]


async def test_what_is_due_at_once_is_bounded_in_bytes(
    pair: Pair, workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, _ = workers
    monkeypatch.setattr(parked_store, "DUE_BYTES", 100)
    for key in (ONE, TWO, THREE):
        change = worker.change(key, name="n" * 90)
        held = Batch((change,), FromLog()).parking(
            {("gfx_players", key): classify("55P03", "held")}
        )
        await worker.applier.apply(held)
    assert [each.entity_id for each in await worker.parked.due([worker.at])] == [ONE]


async def test_row_that_is_blocked_by_a_locked_one_waits_alone(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    """TWO holds the value that ONE needs, and a user holds TWO."""
    worker, _ = workers
    await write(pair, Site.EXTERNAL, INSERT, ONE, "x", "one")
    await write(pair, Site.SUPABASE, INSERT, TWO, "x", "two")
    async with await pair.connect(Site.SUPABASE) as user, user.transaction():
        await user.execute("select from gfx_players where id = %s for update", [TWO])
        changes = [
            worker.change(ONE, player_hash="x", name="one"),
            worker.change(THREE, player_hash="z", name="three"),
        ]
        with pytest.raises(ApplyFailed) as error:
            await worker.applier.apply(worker.batch(*changes))
    assert ("gfx_players", ONE) in error.value.entities


async def test_maintenance_gives_way_to_who_reads_the_log(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    keeper = Housekeeper(pair.settings, Site.SUPABASE)
    worker, _ = workers
    last_day = "select max(relname) from pg_class where relname ~ '^sync_log_[0-9]+$'"
    async with await pair.connect(Site.SUPABASE) as reader, reader.transaction():
        row = await (await reader.execute(last_day)).fetchone()
        assert row is not None
        async with await pair.connect(Site.SUPABASE) as admin:
            drop = sql.SQL("drop table ftstream.{}").format(sql.Identifier(row[0]))
            await admin.execute(drop)
        await reader.execute("select count(*) from ftstream.sync_log")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await keeper.maintain(pair.settings.apply)
        await worker.applier.apply(worker.batch(worker.change(ONE, player_hash="x", name="one")))
    await keeper.maintain(pair.settings.apply)
    # What is of today stays, whatever is asked.
    await keeper.maintain(pair.settings.apply.model_copy(update={"sync_log_days": -30}))
    await keeper.close()
    async with await pair.connect(Site.SUPABASE) as connection:
        logged = await (
            await connection.execute("select count(*) from ftstream.sync_log")
        ).fetchone()
    assert logged == (1,)


async def test_the_connection_to_the_source_is_closed_when_nobody_needs_it_and_comes_back(
    workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sites_module, "IDLE_SECONDS", 0.05)
    sites = workers[0].sites
    async with sites.exclusively():
        source = await sites.source()
        await asyncio.sleep(0.2)
        assert not source.closed  # somebody is at it
    async with asyncio.timeout(30):
        while not source.closed:
            await asyncio.sleep(0.01)
    async with sites.exclusively():
        assert await (await (await sites.source()).execute("select 1")).fetchone() == (1,)


async def test_what_is_kept_for_people_is_forgotten_in_the_time_that_is_set(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    async with await pair.connect(Site.SUPABASE) as connection:
        for days in (10, 200):
            ago = {"ago": f"{days} days", "offset": days}
            for query in (
                "insert into ftstream.notifications (type, severity, title, message, last_at)"
                " values ('x', 'info', %(ago)s::text, '', now() - %(ago)s::text::interval)",
                "insert into ftstream.activity_log (action, entity_type, created_at)"
                " values (%(ago)s::text, 'x', now() - %(ago)s::text::interval)",
                "insert into ftstream.parked_change (flow, state, table_name, entity_id, topic, message,"
                " kafka_partition, kafka_offset, sqlstate, error, hint, parked_at, next_attempt_at)"
                " select 'gfx', state, 't', %(ago)s::text, state::text, '', 0, %(offset)s, '', '', '',"
                " now() - %(ago)s::text::interval, now() - %(ago)s::text::interval"
                " from unnest(enum_range(null::ftstream.parked_state)) as state",
            ):
                await connection.execute(query, ago)

    async def kept() -> list[tuple[Any, ...]]:
        async with await pair.connect(Site.SUPABASE) as connection:
            found = await connection.execute(
                "select 'told', title from ftstream.notifications"
                " union all select 'done', action from ftstream.activity_log"
                " union all select state::text, entity_id from ftstream.parked_change order by 1, 2"
            )
            return await found.fetchall()

    told: list[Notification] = []
    keeper = Housekeeper(pair.settings, Site.SUPABASE, told.append)
    bounds = pair.settings.apply.model_copy(update={"notification_days": 100, "activity_days": 100})
    await keeper.maintain(bounds)
    left = [("dead", "10 days"), ("dead", "200 days"), ("done", "10 days")]
    left += [("parked", "10 days"), ("parked", "200 days"), ("told", "10 days")]
    assert await kept() == left  # dead changes only go where that is asked for
    await keeper.maintain(bounds.model_copy(update={"dead_days": 100}))
    assert await kept() == [each for each in left if each != ("dead", "200 days")]
    assert [each.kind for each in told] == ["dead_dropped"]
    await keeper.close()
    async with await pair.connect(Site.SUPABASE) as connection:
        logged = await connection.execute("select outcome::text, entity_id from ftstream.sync_log")
        assert await logged.fetchall() == [("dropped", "200 days")]


async def test_text_arrives_whole_whatever_encoding_the_role_prefers(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    worker, _ = workers
    role = f"apply_{pair.database}"
    await write(pair, Site.SUPABASE, f"alter role {role} set client_encoding = 'LATIN1'")
    await worker.sites.close()
    await worker.applier.apply(worker.batch(worker.change(ONE, player_hash="x", name="한국 🂡")))
    assert await players(pair, Site.SUPABASE) == [(ONE, "x", "한국 🂡")]


async def test_row_that_is_referred_to_stays_until_nothing_does(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    """An editor has made an override of a player whom External deletes."""
    worker, _ = workers
    await write(pair, Site.SUPABASE, INSERT, ONE, "x", "one")
    override = (
        "insert into player_overrides"
        " (gfx_player_id, field_name, override_value, reason, created_by)"
        " values (%s, 'name', 'v', 'r', 'kim')"
    )
    await write(pair, Site.SUPABASE, override, ONE)
    with pytest.raises(ApplyFailed) as refused:
        await worker.applier.apply(worker.batch(worker.delete(ONE)))
    assert refused.value.failure.policy is Policy.PARK
    assert "player_overrides" in refused.value.failure.detail
    await write(pair, Site.SUPABASE, "delete from player_overrides")
    await worker.applier.apply(Batch((worker.delete(ONE),), FromLog()))
    assert await players(pair, Site.SUPABASE) == []


@pytest.mark.parametrize(
    ("snapshot", "transaction", "visible"),
    [
        ("100:100:", 99, True),
        ("100:100:", 100, False),
        ("100:100:", 101, False),
        ("100:105:102", 102, False),
        ("100:100:", 1_000_101, True),  # nobody waits for so many transactions to come
        ("8589934692:8589934692:", 99, True),
        ("8589934692:8589934692:", 105, False),
        ("8589934595:8589934595:", 2**32 - 1, True),
        ("8589934591:8589934591:", 0, False),
    ],
)
async def test_transaction_is_visible_by_its_whole_id(
    pair: Pair, snapshot: str, transaction: int, visible: bool
) -> None:
    """Ids come as their low 32 bits, from either side of the snapshot's end, in any epoch."""
    text = QUERIES["all_visible"].replace("pg_current_snapshot()", f"'{snapshot}'::pg_snapshot")
    async with await pair.connect(Site.EXTERNAL) as connection:
        seen = [
            await (
                await connection.execute(
                    statement(text), {"transactions": [transaction], "times": [at]}
                )
            ).fetchone()
            for at in (None, *(int((time.time() + away) * 1e6) for away in (0, -700, 700)))
        ]
    # A commit of long ago is of another cluster by now; one to come is made up.
    assert seen == [(visible, False), (visible, False), (True, False), (True, False)]


async def test_table_that_takes_no_row_holds_back_its_own_changes_alone(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    worker, _ = workers
    broken = "alter table gfx_players drop constraint gfx_players_pkey cascade"
    await write(pair, Site.SUPABASE, broken)
    await worker.applier.prepare()
    one, two = (worker.change(key, player_hash=key, name="n") for key in (ONE, TWO))
    row = {"session_id": 1, "file_name": "f", "file_hash": "h", "raw_json": "{}"}
    other = msgspec.structs.replace(worker.change(THREE, **row), table="gfx_sessions")
    batch = worker.batch(one, other, two)
    with pytest.raises(ApplyFailed) as error:
        await worker.applier.apply(batch)
    assert error.value.failure.policy is Policy.PARK
    # All of them at once, however they alternate with those of other tables.
    assert set(error.value.entities) == {("gfx_players", ONE), ("gfx_players", TWO)}
    assert error.value.failure.message.startswith("gfx_players: ")
    assert "ADD PRIMARY KEY" in error.value.failure.hint
    left = batch.parking({e: error.value.causes[e] for e in error.value.entities})
    await worker.applier.apply(left)
    async with await pair.connect(Site.SUPABASE) as connection:
        found = await connection.execute("select id::text from gfx_sessions")
        assert await found.fetchall() == [(THREE,)]
        found = await connection.execute("select entity_id from ftstream.parked_change order by 1")
        assert await found.fetchall() == [(ONE,), (TWO,)]


async def test_column_of_a_type_that_takes_no_value_is_named_of_each_row(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    worker, _ = workers
    altered = "alter last_seen_at drop default, alter last_seen_at type int using 1"
    await write(pair, Site.SUPABASE, f"alter table gfx_players {altered}")
    await worker.applier.prepare()
    seen = "2026-01-01T00:00:00Z"
    change = worker.change(ONE, player_hash=ONE, name="n", last_seen_at=seen)
    with pytest.raises(ApplyFailed, match=r"gfx_players\.last_seen_at: ") as error:
        await worker.applier.apply(worker.batch(change))
    assert error.value.failure.policy is Policy.PARK


async def test_delete_whose_key_the_log_does_not_hold_takes_no_other_row(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    one, _ = workers
    for site in Site:
        await write(pair, site, INSERT, ZERO, "z", "zero")
    await one.applier.apply(one.batch(one.keyless_delete("x")))
    assert await players(pair, Site.SUPABASE) == [(ZERO, "z", "zero")]
    await write(pair, Site.EXTERNAL, "delete from gfx_players where id = %s", ZERO)
    await one.applier.apply(one.batch(one.keyless_delete("")))
    assert await players(pair, Site.SUPABASE) == []


@pytest.mark.parametrize(
    ("alteration", "said"),
    [
        ("replica identity using index gfx_players_player_hash_key", "using index"),
        ("replica identity nothing", "nothing"),
        ("drop constraint gfx_players_pkey cascade", "no primary key"),
    ],
)
async def test_flow_does_not_start_while_the_log_does_not_hold_the_key(
    pair: Pair, workers: tuple[Worker, Worker], alteration: str, said: str
) -> None:
    one, _ = workers
    await write(pair, Site.EXTERNAL, f"alter table gfx_players {alteration}")
    with pytest.raises(ApplyFailed, match=said) as failed:
        await one.applier.prepare()
    assert failed.value.failure.policy is Policy.HALT
    assert "ALTER TABLE gfx_players REPLICA IDENTITY DEFAULT" in failed.value.failure.message


@pytest.mark.parametrize("identity", ["full", "using index gfx_players_pkey"])
async def test_flow_starts_where_the_log_holds_the_key(
    pair: Pair, workers: tuple[Worker, Worker], identity: str
) -> None:
    one, _ = workers
    await write(pair, Site.EXTERNAL, f"alter table gfx_players replica identity {identity}")
    await one.applier.prepare()


async def test_column_narrowed_while_the_flow_runs_is_noticed_before_a_value_is_rounded(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    one, _ = workers
    await write(pair, Site.SUPABASE, "alter table gfx_players alter long_name type varchar(4)")
    fits, long = (
        one.change(ONE, player_hash="x", name="a", long_name="Kim"),
        one.change(TWO, player_hash="y", name="b", long_name="Kim  "),
    )
    with pytest.raises(ApplyFailed, match=r"gfx_players\.long_name: .*cannot hold Kim exactly"):
        await one.applier.apply(one.batch(fits, long))
    await one.applier.apply(one.batch(fits))
    assert await players(pair, Site.SUPABASE) == [(ONE, "x", "a")]
    assert [n.kind for n in one.told] == ["types_differ"]


async def test_reading_that_fails_leaves_the_flow_with_what_it_had(
    pair: Pair, workers: tuple[Worker, Worker]
) -> None:
    """Else the look at the table would find it as last read, and write with older statements."""
    one, _ = workers
    before = one.schema.reading
    await write(pair, Site.SUPABASE, "alter table gfx_players alter long_name type varchar(4)")
    await write(pair, Site.EXTERNAL, "alter table gfx_hands add odd point[]")
    await write(pair, Site.SUPABASE, "alter table gfx_hands add odd point[]")
    with pytest.raises(ApplyFailed, match="odd"):
        await one.applier.prepare()
    assert one.schema.reading is before
    long = one.change(ONE, player_hash="x", name="a", long_name="Kim  ")
    with pytest.raises(ApplyFailed, match="odd"):
        await one.applier.apply(one.batch(long))
    assert await players(pair, Site.SUPABASE) == []


async def test_transaction_writes_with_one_reading_of_the_catalogs(
    pair: Pair, workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another may read them meanwhile: its look at the table would say that nothing was altered."""
    one, _ = workers
    write_rows = rows.write_rows

    async def read_meanwhile(target: AsyncConnection, tables: Tables, plan: RowPlan) -> None:
        monkeypatch.undo()
        await write_rows(target, tables, plan)
        await write(pair, Site.EXTERNAL, "alter table gfx_players add note text")
        await write(pair, Site.SUPABASE, "alter table gfx_hands add note text")
        connections = [await pair.connect(site) for site in (Site.EXTERNAL, Site.SUPABASE)]
        await one.schema.read(*connections)
        for each in connections:
            await each.close()

    monkeypatch.setattr(authority, "write_rows", read_meanwhile)
    before = one.schema.reading
    batch = one.batch(one.change(ONE, player_hash="x", name="a"))
    with pytest.raises(ApplyFailed, match="gfx_hands was altered"):
        await one.applier._strategy.apply(batch, {})
    assert one.schema.reading is not before
    await one.applier.apply(batch)
    assert await players(pair, Site.SUPABASE) == [(ONE, "x", "a")]
