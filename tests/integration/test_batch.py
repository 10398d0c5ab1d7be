"""What a run finds and does between two real databases, without Kafka between them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any, LiteralString

import pytest
from psycopg import AsyncConnection, sql

from ftstream.capture.batch import RowsRefused, RunHalted, check, look, run, running, table
from ftstream.capture.batch.drift import drifts
from ftstream.capture.batch.schedule import Basis, Rows, RunTurn, Schedule, read_basis, turn
from ftstream.capture.batch.table import BatchTable, Connections, Sending
from ftstream.capture.batch.table_run import TableRun
from ftstream.compare.comparison import DifferenceKind
from ftstream.compare.digests import Digests, snapshot
from ftstream.flows import WSOP, Site
from ftstream.kafka.publishing import Message
from ftstream.local.stack import postgres, process
from ftstream.local.stack.ports import choose_ports
from ftstream.messages.avro import decode
from ftstream.messages.change import Operation
from ftstream.messages.kept_schemas import PACKAGED, KeptSchemas
from ftstream.postgres.catalog import carried, read_columns
from ftstream.postgres.connection import open_connection
from ftstream.setup import run_init
from tests.integration.conftest import PASSWORD, Cluster, MemoryTopics, Pair, as_ftstream

PLAYERS = WSOP.table("wsop_players")
ADD: LiteralString = (
    "insert into wsop_players"
    " (id, wsop_player_id, name, first_seen_at, last_seen_at, created_at, updated_at)"
    " select lpad(n::text, 32, '0')::uuid, 'P' || n, 'Kim', 'epoch', 'epoch', 'epoch', 'epoch'"
    " from generate_series(%s::int, %s::int) n"
)


def key(n: int) -> str:
    return f"00000000-0000-0000-0000-{n:012d}"


@pytest.fixture
async def at(pair: Pair) -> AsyncIterator[Connections]:
    """Set up for the flow, with connections as a run has them."""
    async for _ in run_init(pair.settings, MemoryTopics(), [WSOP]):
        pass
    opened = [
        await open_connection(pair.settings.database(site).conninfo())
        for site in (Site.EXTERNAL, Site.EXTERNAL, Site.SUPABASE, Site.SUPABASE)
    ]
    yield Connections(*opened)
    for connection in opened:
        await connection.close()


@pytest.fixture
async def external(pair: Pair, at: Connections) -> AsyncIterator[AsyncConnection]:
    """Whoever writes there."""
    async with await pair.connect(Site.EXTERNAL) as connection:
        yield connection


class Taken:
    """Kafka, that takes all."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def publish(self, messages: Sequence[Message]) -> int:
        self.messages += messages
        return len(messages)


async def players(at: Connections) -> BatchTable:
    (drift,) = await drifts(at.source_now, WSOP, KeptSchemas(WSOP, [PACKAGED]), [PLAYERS])
    return BatchTable(WSOP, drift, "")


async def rows(connection: AsyncConnection, query: LiteralString) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query)).fetchall()


async def test_row_is_deleted_only_if_external_asked_again_does_not_have_it(
    pair: Pair, at: Connections, external: AsyncConnection
) -> None:
    async with (
        await pair.connect(Site.SUPABASE) as supabase,
        supabase.transaction(),
        as_ftstream(supabase, pair.settings, Site.SUPABASE, triggers=True),
    ):
        await supabase.execute(ADD, [1, 3])
    await external.execute(ADD, [1, 1])
    each, kafka = await players(at), Taken()
    async with snapshot(at.source), snapshot(at.target):
        await each.compare(at)
        (kinds,) = [kinds async for kinds in each.differing(at)]
        assert kinds == {key(2): DifferenceKind.EXTRA, key(3): DifferenceKind.EXTRA}
        await external.execute(ADD, [2, 2])  # it comes again meanwhile
        sending = Sending(each, 7, kafka, RunTurn(at.ledger), lambda _: None)  # type: ignore[arg-type]
        await each.send_deletes(at, sending, kinds)
        await sending.flush()
    (message,) = kafka.messages
    schemas = KeptSchemas(WSOP, [PACKAGED]).by_fingerprint()
    change = decode(schemas, PLAYERS.name, message.topic, 0, 0, message.key, message.value)
    assert (change.entity_id, change.operation) == (key(3), Operation.DELETE)
    assert (each.run.published, each.run.deleted, each.run.returned) == (1, 1, 1)
    assert await rows(at.ledger, "select entity_id from ftstream.displaced") == [(key(3),)]


async def test_what_external_has_written_since_is_told_from_what_it_has_not(
    pair: Pair, at: Connections, external: AsyncConnection
) -> None:
    await external.execute(ADD, [1, 6])
    await external.execute("vacuum (freeze) wsop_players")
    await external.execute("update wsop_players set city = 'before' where id = %s", [key(2)])
    async with await pair.connect(Site.EXTERNAL) as late, late.transaction():
        await late.execute("update wsop_players set city = 'late' where id = %s", [key(3)])
        async with snapshot(at.source), snapshot(at.target):
            seen = (await read_basis(at.source, at.target)).source_seen
    await external.execute("update wsop_players set city = 'after' where id = %s", [key(4)])
    await external.execute("delete from wsop_players where id = %s", [key(5)])
    columns = await read_columns(at.source_now, PLAYERS)
    here = Rows(WSOP, PLAYERS, next(c for c in columns if c.name == "id"), "wsop.wsop_players")
    asked = [key(n) for n in range(1, 8)]
    for surely in (True, False):
        found = await here.unwritten(at.source_now, asked, seen, surely=surely)
        assert found == {key(1), key(2), key(6)}


async def test_row_written_in_a_savepoint_under_way_then_is_not_surely_unwritten(
    pair: Pair, at: Connections, external: AsyncConnection
) -> None:
    await external.execute(ADD, [1, 3])
    async with await pair.connect(Site.EXTERNAL) as late, late.transaction(), late.transaction():
        await late.execute("update wsop_players set city = 'late' where id = %s", [key(2)])
        await external.execute("update wsop_players set city = 'later' where id = %s", [key(3)])
        async with snapshot(at.source), snapshot(at.target):
            seen = (await read_basis(at.source, at.target)).source_seen
    columns = await read_columns(at.source_now, PLAYERS)
    here = Rows(WSOP, PLAYERS, next(c for c in columns if c.name == "id"), "wsop.wsop_players")
    asked = [key(1), key(2)]
    assert await here.unwritten(at.source_now, asked, seen, surely=True) == {key(1)}


@pytest.mark.parametrize("kept", [0, 1_000_000], ids=["read again", "kept"])
async def test_dry_run_counts_what_differs(
    pair: Pair,
    at: Connections,
    external: AsyncConnection,
    monkeypatch: pytest.MonkeyPatch,
    kept: int,
) -> None:
    monkeypatch.setattr(table, "MOST_KEPT", kept)
    await external.execute(ADD, [1, 25_000])
    async with (
        await pair.connect(Site.SUPABASE) as supabase,
        supabase.transaction(),
        as_ftstream(supabase, pair.settings, Site.SUPABASE, triggers=True),
    ):
        await supabase.execute(ADD, [3, 25_001])
        await supabase.execute("update wsop_players set city = 'x' where id <= %s", [key(4)])
    (result,) = await look(WSOP, pair.settings, [PLAYERS])
    assert result.kinds == {
        DifferenceKind.MISSING: 2,
        DifferenceKind.DIFFERENT: 2,
        DifferenceKind.EXTRA: 1,
    }
    assert (result.rows, result.held, result.problem) == (25_000, 24_999, "")
    each = await players(at)
    async with snapshot(at.source), snapshot(at.target):
        await each.compare(at)
        found = Counter([kind async for kinds in each.differing(at) for kind in kinds.values()])
    assert found == result.kinds
    assert (
        await rows(at.ledger, "select status from ftstream.sync_status where source = 'wsop'")
        == [("pending",)] * 3
    )


@pytest.fixture
def alone(clusters: dict[Site, Cluster], tmp_path: Path) -> Iterator[Server]:
    """An External of its own, that may fail over."""
    folder = postgres.choose_folder(tmp_path / "alone")
    server = Server(
        postgres.Cluster(
            site=postgres.EXTERNAL,
            folder=folder,
            log=tmp_path / "alone.log",
            port=choose_ports(1)[0],
            binaries=clusters[Site.EXTERNAL].binaries,
            passwords={postgres.EXTERNAL.superuser: PASSWORD},
        )
    )
    server.cluster.prepare()
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@dataclass
class Server:
    """A cluster, and its process."""

    cluster: postgres.Cluster
    identity: process.Identity | None = None

    def start(self) -> None:
        self.identity = process.spawn(self.cluster.command())
        log, probe = self.cluster.log, self.cluster.probe
        process.wait_until_ready("alone", self.identity, log, probe, 60, Event())

    def stop(self) -> None:
        process.stop(self.identity, postgres.Cluster.stop_signal, 30)

    @property
    def dsn(self) -> str:
        role, passwords = postgres.EXTERNAL.superuser, self.cluster.passwords
        return postgres.url(self.cluster.port, role, passwords, "template1")


async def test_external_that_has_failed_over_is_told_from_the_one_before(
    alone: Server, at: Connections
) -> None:
    async def basis() -> Basis:
        async with await open_connection(alone.dsn) as connection:
            return await read_basis(connection, at.target)

    before = await basis()
    alone.stop()
    alone.start()
    assert (await basis()).same_history(before)
    alone.stop()
    (alone.cluster.data / "standby.signal").touch()
    alone.start()
    async with await open_connection(alone.dsn) as connection:
        await connection.execute("select pg_promote()")
    after = await basis()
    assert (after.system, after.timeline) == (before.system, before.timeline + 1)
    assert not after.same_history(before)
    assert not (await read_basis(at.source, at.target)).same_history(before)


async def test_one_run_at_a_time(at: Connections) -> None:
    async with turn(at.ledger, WSOP) as mine:
        assert mine is not None
        await mine.keep()
        async with turn(at.target, WSOP, patience=0.3) as another:
            assert another is None
    async with turn(at.target, WSOP) as another:
        assert another is not None


DUE: LiteralString = (
    "select entity_type, round(extract(epoch from next_sync_at - clock_timestamp()) / 60)::int"
    " from ftstream.sync_status where source = 'wsop' order by 1"
)


async def test_runs_that_were_missed_are_made_up_for_by_one(at: Connections) -> None:
    schedule = Schedule(WSOP, "", at.ledger)
    await schedule.set_interval(900)
    assert await schedule.due() == WSOP.tables
    shift: LiteralString = (
        "update ftstream.sync_status set next_sync_at = case entity_type"
        " when 'events' then clock_timestamp() - interval '7 hours 5 minutes'"
        " when 'players' then clock_timestamp() + interval '4 minutes' end where source = 'wsop'"
    )
    await at.ledger.execute(shift)
    assert await schedule.due() == (WSOP.tables[0], WSOP.tables[2])
    async with at.ledger.transaction():
        runs = [TableRun(t.name, WSOP.entity_type(t), published=5) for t in WSOP.tables]
        await schedule.done(runs, 0)
    # As far from when they were due as whole intervals go; one by hand moves nothing.
    assert await rows(at.ledger, DUE) == [("chip_counts", 15), ("events", 10), ("players", 4)]
    assert await schedule.due() == ()


async def test_failed_run_is_tried_again_ever_later(at: Connections) -> None:
    schedule = Schedule(WSOP, "", at.ledger)
    await schedule.set_interval(900)
    run = TableRun("wsop_events", "events", kinds=Counter({DifferenceKind.MISSING: 7}), refused=4)
    waits: list[float] = []
    for _ in range(9):
        await schedule.failed([run], "no")
        (waited,) = await rows(
            at.ledger,
            "select extract(epoch from next_sync_at - clock_timestamp())::float8"
            " from ftstream.sync_status where entity_type = 'events'",
        )
        waits.append(round(waited[0]))
    assert waits == [10, 20, 40, 80, 160, 320, 640, 900, 900]
    found = {each.entity_type: each for each in await schedule.status()}
    failed = found["events"]
    assert (failed.consecutive_failures, failed.records_failed) == (9, 36)
    assert (failed.status, failed.health_status, failed.last_error) == ("failed", "CRITICAL", "no")
    assert failed.details is not None
    assert failed.details["error"] == "no"
    assert found["players"].details is None
    await schedule.set_interval(60)
    assert (await schedule.status())[0].sync_interval == timedelta(minutes=1)


class Broker(Taken):
    """Kafka, for a whole run."""

    async def close(self) -> None:
        """Nothing is open."""

    def told(self) -> list[tuple[str, str, bool]]:
        """Table, id, and whether it is a delete, of what was published since the last call."""
        schemas = KeptSchemas(WSOP, [PACKAGED]).by_fingerprint()
        messages, self.messages = self.messages, []
        found = []
        for each in messages:
            table = each.topic.rpartition(".")[2]
            change = decode(schemas, table, each.topic, 0, 0, each.key, each.value)
            found.append((table, change.entity_id, change.operation is Operation.DELETE))
        return sorted(found)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    made = Broker()

    async def applied(self: object) -> None:
        """There is no worker."""

    monkeypatch.setattr(running, "Publishing", lambda *_: made)
    monkeypatch.setattr(running._Run, "_until_applied", applied)
    return made


EVENT: LiteralString = (
    "insert into wsop_events (id, event_id, event_name, start_date, buy_in, created_at, updated_at)"
    " select lpad(n::text, 32, '0')::uuid, 'E' || n, 'e', '2026-06-01', 1, 'epoch', 'epoch'"
    " from generate_series(%s::int, %s::int) n"
)
COUNT: LiteralString = (
    "insert into wsop_chip_counts (id, event_id, player_id, chip_count, recorded_at, created_at)"
    " select lpad(n::text, 32, '0')::uuid, lpad((1 + n %% %s)::text, 32, '0')::uuid,"
    " lpad('1', 32, '0')::uuid, n, 'epoch', 'epoch' from generate_series(%s::int, %s::int) n"
)


PARK: LiteralString = (
    "insert into ftstream.parked_change (flow, state, table_name, entity_id, operation, topic,"
    " kafka_partition, kafka_offset, key, message, sqlstate, error, hint) values ('wsop', 'dead',"
    " %s, %s, 'update', 'wsop', 0, %s, '', '', %s, '', '')"
)


def passing(connection: AsyncConnection, pair: Pair) -> AbstractAsyncContextManager[None]:
    """Pass the guard, on the site that has one."""
    if connection.info.port == pair.external.port:
        return nullcontext()
    return as_ftstream(connection, pair.settings, Site.SUPABASE, triggers=True)


async def filled(pair: Pair, external: AsyncConnection, events: int, counts: int) -> None:
    """Both sites equal: each event has as many counts, all of one player."""
    async with await pair.connect(Site.SUPABASE) as supabase:
        for connection in (external, supabase):
            async with connection.transaction(), passing(connection, pair):
                await connection.execute(EVENT, [1, events])
                await connection.execute(ADD, [1, 2])
                await connection.execute(COUNT, [events, 1, counts])


async def standing(at: Connections) -> dict[str, tuple[str, str]]:
    found = await rows(
        at.ledger,
        "select entity_type, status, coalesce(last_error, '') from ftstream.sync_status"
        " where source = 'wsop'",
    )
    return {name: (status, error) for name, status, error in found}


async def test_handful_of_deletes_of_a_small_table_holds_nothing_back(
    pair: Pair, at: Connections, external: AsyncConnection, broker: Broker
) -> None:
    await filled(pair, external, 21, 0)
    await external.execute("delete from wsop_events where id <= %s", [key(4)])
    await run(WSOP, pair.settings, WSOP.tables)
    deletes = [(table, entity) for table, entity, deleted in broker.told() if deleted]
    assert deletes == [("wsop_events", key(n)) for n in range(1, 5)]
    assert {status for status, _ in (await standing(at)).values()} == {"synced"}


async def test_table_whose_deletes_wait_publishes_the_rest_and_the_others_go_on(
    pair: Pair, at: Connections, external: AsyncConnection, broker: Broker
) -> None:
    await filled(pair, external, 40, 80)
    # Of 40 events 20 go, and by cascade half of the counts; and something is new in every table.
    await external.execute("delete from wsop_events where id <= %s", [key(20)])
    await external.execute("delete from wsop_players where id = %s", [key(2)])
    await external.execute(EVENT, [90, 90])
    await external.execute(ADD, [91, 91])
    await external.execute(COUNT, [40, 79 + 40 * 5, 79 + 40 * 5])
    with pytest.raises(RunHalted) as halted:
        await run(WSOP, pair.settings, WSOP.tables)
    assert broker.told() == [
        ("wsop_chip_counts", key(279), False),
        ("wsop_events", key(90), False),
        ("wsop_players", key(2), True),
        ("wsop_players", key(91), False),
    ]
    assert {r.table: r.withheld for r in halted.value.results} == {
        "wsop_events": 20,
        "wsop_players": 0,
        "wsop_chip_counts": 40,
    }
    found = await standing(at)
    assert {name: status for name, (status, _) in found.items()} == {
        "events": "failed",
        "players": "synced",
        "chip_counts": "failed",
    }
    assert "wsop_events: 20 of 40 rows would be deleted" in found["events"][1]
    assert "wsop_chip_counts: 40 of 80 rows" in found["chip_counts"][1]
    (events, players_, counts) = await look(WSOP, pair.settings, WSOP.tables)
    assert [bool(each.problem) for each in (events, players_, counts)] == [True, False, True]
    await run(WSOP, pair.settings, WSOP.tables, allow_deletes=True)
    assert sum(deleted for _, _, deleted in broker.told()) == 61


async def test_delete_waits_for_those_of_the_rows_that_refer_to_it(
    pair: Pair, at: Connections, external: AsyncConnection, broker: Broker
) -> None:
    """Of 21 events 2 may go, one of which has many counts, whose deletes wait."""
    await filled(pair, external, 21, 19)
    async with (
        await pair.connect(Site.SUPABASE) as supabase,
        supabase.transaction(),
        as_ftstream(supabase, pair.settings, Site.SUPABASE, triggers=True),
    ):
        await supabase.execute(COUNT, [1, 100, 130])  # all of event 1
    await external.execute("delete from wsop_events where id in (%s, %s)", [key(1), key(21)])
    with pytest.raises(RunHalted) as halted:
        await run(WSOP, pair.settings, WSOP.tables)
    assert broker.told() == [("wsop_events", key(21), True)]
    events = halted.value.results[0]
    assert (events.referred, events.problem) == (1, "")
    # Nor does it go in a run of its own table.
    await run(WSOP, pair.settings, [WSOP.table("wsop_events")])
    assert [deleted for _, entity, deleted in broker.told() if entity == key(1)] == []


async def test_column_that_is_gone_holds_back_its_own_table(
    pair: Pair, at: Connections, external: AsyncConnection, broker: Broker
) -> None:
    await filled(pair, external, 1, 0)
    await external.execute("alter table wsop_events drop column venue")
    await external.execute(EVENT, [2, 2])
    await external.execute(ADD, [7, 7])
    for result in await check(WSOP, pair.settings):
        assert bool(result.problem) is (result.table == "wsop_events")
    with pytest.raises(RunHalted, match="schemas accept wsop_events"):
        await run(WSOP, pair.settings, WSOP.tables)
    assert broker.told() == [("wsop_players", key(7), False)]
    assert {name for name, (status, _) in (await standing(at)).items() if status == "synced"} == {
        *("players", "chip_counts")
    }


@pytest.mark.parametrize(
    ("site", "broken", "told"),
    [
        (Site.SUPABASE, "drop table wsop_events cascade", "wsop_events does not exist"),
        (Site.EXTERNAL, "revoke select on wsop_events from {}", "permission denied"),
    ],
)
async def test_failing_table_holds_back_no_other(
    pair: Pair,
    at: Connections,
    external: AsyncConnection,
    broker: Broker,
    site: Site,
    broken: LiteralString,
    told: str,
) -> None:
    async with await pair.connect(site) as owner:
        role = sql.Identifier(f"apply_{pair.database}")
        await owner.execute(sql.SQL(broken).format(role))
    await external.execute(EVENT, [1, 1])
    await external.execute(ADD, [7, 7])
    with pytest.raises(RowsRefused, match=told):
        await run(WSOP, pair.settings, WSOP.tables)
    assert broker.told() == [("wsop_players", key(7), False)]
    assert (await standing(at))["players"] == ("synced", "")
    assert told in (await standing(at))["events"][1]


async def test_row_with_a_value_that_does_not_fit_is_published_once_until_it_changes(
    pair: Pair, at: Connections, external: AsyncConnection
) -> None:
    await external.execute(ADD, [1, 3])
    async with (
        await pair.connect(Site.SUPABASE) as supabase,
        supabase.transaction(),
        as_ftstream(supabase, pair.settings, Site.SUPABASE, triggers=True),
    ):
        await supabase.execute(ADD, [1, 3])
        await supabase.execute("alter table wsop_players alter city type varchar(3)")
    await external.execute("update wsop_players set city = 'Busan' where id <> %s", [key(3)])
    first = await players(at)
    async with snapshot(at.source), snapshot(at.target):
        basis = await read_basis(at.source, at.target)
        await first.compare(at)
    assert first.run.found == 2
    for n, sqlstate in ((1, "FT017"), (2, "22001")):
        await at.ledger.execute(PARK, ["wsop_players", key(n), n, sqlstate])
    again = await players(at)
    async with snapshot(at.source), snapshot(at.target):
        await again.compare(at, basis)
        assert [kinds async for kinds in again.differing(at)] == [{}]
    assert (again.run.found, again.run.waiting) == (0, 2)
    await external.execute("update wsop_players set city = 'Jeju' where id = %s", [key(2)])
    changed = await players(at)
    async with snapshot(at.source), snapshot(at.target):
        await changed.compare(at, basis)
    assert (changed.run.found, changed.run.waiting) == (1, 1)


async def test_row_that_does_not_fit_is_published_once_though_deletes_of_its_table_wait(
    pair: Pair, at: Connections, external: AsyncConnection, broker: Broker
) -> None:
    await filled(pair, external, 41, 0)
    await external.execute("update wsop_events set venue = 'Busan' where id = %s", [key(41)])
    await external.execute("delete from wsop_events where id <= %s", [key(20)])
    with pytest.raises(RunHalted):
        await run(WSOP, pair.settings, WSOP.tables)
    assert broker.told() == [("wsop_events", key(41), False)]
    await at.ledger.execute(PARK, ["wsop_events", key(41), 1, "22001"])
    with pytest.raises(RunHalted) as halted:
        await run(WSOP, pair.settings, WSOP.tables)
    assert broker.told() == []
    events = halted.value.results[0]
    assert (events.waiting, events.withheld) == (1, 20)


@pytest.mark.parametrize("on", list(Site), ids=str)
async def test_table_that_another_session_holds_holds_back_no_other(
    pair: Pair, at: Connections, external: AsyncConnection, broker: Broker, on: Site
) -> None:
    await external.execute(EVENT, [1, 1])
    await external.execute(ADD, [7, 7])
    async with await pair.connect(on) as other, other.transaction():
        limit = sql.SQL("alter role {} in database {} set lock_timeout = '50ms'")
        role = pair.settings.database(on).parameter("user")
        async with await pair.connect(on) as owner:
            await owner.execute(limit.format(*map(sql.Identifier, (role, pair.database))))
        await other.execute("lock table wsop_events")
        with pytest.raises(RowsRefused, match="wsop_events: canceling statement due to lock"):
            await run(WSOP, pair.settings, WSOP.tables)
    assert broker.told() == [("wsop_players", key(7), False)]
    assert (await standing(at))["players"] == ("synced", "")


async def test_table_that_fails_where_its_rows_are_looked_at_again_holds_back_no_other(
    pair: Pair, at: Connections, external: AsyncConnection, broker: Broker
) -> None:
    """Rights on each column do for comparing, but not for when a row was written."""
    await filled(pair, external, 2, 0)
    await external.execute("update wsop_events set venue = 'Busan' where id = %s", [key(2)])
    await run(WSOP, pair.settings, WSOP.tables)
    broker.told()
    await at.ledger.execute(PARK, ["wsop_events", key(2), 1, "22001"])
    columns = await read_columns(at.source_now, WSOP.table("wsop_events"))
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    role = sql.Identifier(f"apply_{pair.database}")
    await external.execute(sql.SQL("revoke select on wsop_events from {}").format(role))
    await external.execute(sql.SQL("grant select ({}) on wsop_events to {}").format(names, role))
    await external.execute(ADD, [7, 7])
    with pytest.raises(RowsRefused, match="wsop_events: permission denied"):
        await run(WSOP, pair.settings, WSOP.tables)
    assert broker.told() == [("wsop_players", key(7), False)]
    assert (await standing(at))["players"] == ("synced", "")


async def test_value_that_fits_a_narrower_column_exactly_does_not_differ(
    pair: Pair, at: Connections, external: AsyncConnection
) -> None:
    """1.5000 and 1.50 are the same, 0.1 is another number in single precision."""
    ddl: list[LiteralString] = [
        "alter table wsop_players add odds {}, add ratio {}",
        "update wsop_players set odds = 1.5, ratio = 0.5",
    ]
    types = {Site.EXTERNAL: ("numeric(9, 4)", "float8"), Site.SUPABASE: ("numeric(5, 2)", "float4")}
    for site, (odds, ratio) in types.items():
        async with (
            await pair.connect(site) as connection,
            connection.transaction(),
            passing(connection, pair),
        ):
            await connection.execute("set local session_replication_role = replica")
            await connection.execute(ADD, [1, 2])
            parts = map(sql.SQL, (odds, ratio))
            await connection.execute(sql.SQL(ddl[0]).format(*parts))
            await connection.execute(ddl[1])
            await connection.execute("update wsop_players set ratio = 0.1 where id = %s", [key(2)])
    pairs = carried(await read_columns(at.source, PLAYERS), await read_columns(at.target, PLAYERS))
    source, target = Digests(at.source, PLAYERS, pairs), Digests(at.target, PLAYERS, pairs)
    ids = [key(1), key(2)]
    ours, theirs = await source.rows(ids), await target.rows(ids)
    assert ours[key(1)] == theirs[key(1)] and ours[key(2)] != theirs[key(2)]
