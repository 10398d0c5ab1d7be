"""The wsop flow: whatever makes the sites differ, the next run carries it through Kafka."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from ftstream.compare.verification import verify
from ftstream.flows import GFX, WSOP
from ftstream.local.demo.rig import Rig
from tests.conftest import until
from tests.system.scene import Scene, Worker, set_up

EVENTS, PLAYERS, COUNTS = 20, 400, 2_000
MORE: LiteralString = (
    "insert into wsop_chip_counts (event_id, player_id, chip_count, recorded_at)"
    " select lpad('1', 32, '0')::uuid, lpad('1000002', 32, '0')::uuid, n, now()"
    " from generate_series(1, %s) n"
)
DUE: LiteralString = "update ftstream.sync_status set next_sync_at = now() where source = 'wsop'"
KILLED_ROWS = int(os.environ.get("FTSTREAM_BATCH_ROWS", "20000"))
"""`make soak` has ten times as many."""

FILL: Sequence[LiteralString] = (
    "insert into wsop_events"
    " (id, event_id, event_name, start_date, buy_in, blind_structure, tags, prize_pool)"
    " select lpad(n::text, 32, '0')::uuid, 'E' || n, E'Event \\'' || n || E'\\' \u2660', '2026-06-01',"
    " 150000, '[{\"level\": 1, \"sb\": 20.00}]', array['a,b', '', null], 9007199254740993 + n"
    " from generate_series(1, %s) n",
    "insert into wsop_players (id, wsop_player_id, name, country_code, additional_info)"
    " select lpad((1000000 + n)::text, 32, '0')::uuid, 'P' || n, ' Kim \ud55c ' || n, '', 'null'"
    " from generate_series(1, %s) n",
    "insert into wsop_chip_counts (id, event_id, player_id, chip_count, stack_in_bbs, recorded_at)"
    " select lpad((2000000 + n)::text, 32, '0')::uuid, lpad((1 + n %% 20)::text, 32, '0')::uuid,"
    " lpad((1000001 + n %% 400)::text, 32, '0')::uuid, n, n / 7.0, now() - n * interval '1 second'"
    " from generate_series(%s::int, %s::int) n",
)


def event(n: int) -> str:
    return f"{n:032d}"


def player(n: int) -> str:
    return f"{1_000_000 + n:032d}"


def count(n: int) -> str:
    return f"{2_000_000 + n:032d}"


@pytest.fixture(scope="module")
def scene(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    rig.overrides = {"FTSTREAM_SCHEMAS__FOLDER": str(tmp_path_factory.mktemp("schemas"))}
    with set_up(rig, (GFX, WSOP)) as scene:
        scene.execute("external", FILL[0], EVENTS)
        scene.execute("external", FILL[1], PLAYERS)
        scene.execute("external", FILL[2], 1, COUNTS)
        yield scene


@pytest.fixture(scope="module")
def worker(scene: Scene) -> Worker:
    worker = scene.worker().ready()
    until_synced(scene, worker)
    return worker


def until_synced(scene: Scene, worker: Worker, seconds: float = 60) -> None:
    """Wait until the last run of each table was done."""
    try:
        until(lambda: {each["status"] for each in status(scene)} == {"synced"}, seconds)
    except AssertionError:
        raise AssertionError(f"{status(scene)}\n{worker.log}") from None


def status(scene: Scene) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(scene.command("batch", "status", "--json").stdout)
    return found


def run(scene: Scene, *arguments: str) -> dict[str, dict[str, Any]]:
    """By table, what a run by hand came to."""
    told = json.loads(scene.rig.run("batch", "run", "--json", *arguments))
    return {each["table"]: each for each in told["tables"]}


def must_be_equal(scene: Scene) -> None:
    """Once everything published is applied."""
    scene.caught_up(WSOP)
    scene.until_nothing_is_parked()
    verdicts = asyncio.run(verify(WSOP, scene.rig.settings))
    assert sum(verdict.rows for verdict in verdicts) > 0
    assert [verdict for verdict in verdicts if not verdict.equal] == []


def superseded(scene: Scene, since: str) -> list[tuple[Any, ...]]:
    """What runs have undone, by row."""
    query: LiteralString = (
        "select entity_id, operation::text, details from ftstream.sync_log"
        " where topic like '%%wsop.%%' and outcome = 'superseded' and logged_at > %s order by 1"
    )
    return scene.execute("supabase", query, since)


@pytest.fixture
def since(scene: Scene) -> str:
    """What sync_log holds of the tests before does not count."""
    return str(scene.execute("supabase", "select clock_timestamp()")[0][0])


@pytest.mark.usefixtures("worker")
def test_first_run_begins_by_itself_and_the_next_finds_nothing(scene: Scene) -> None:
    must_be_equal(scene)
    found = run(scene)
    assert {name: each["found"] for name, each in found.items()} == {
        "wsop_events": 0,
        "wsop_players": 0,
        "wsop_chip_counts": 0,
    }
    logged = scene.execute(
        "supabase",
        "select table_name, details->>'found', details->>'published', details->>'deleted'"
        " from ftstream.sync_log where outcome = 'run_done' order by logged_at limit 3",
    )
    assert sorted(logged) == [
        ("wsop_chip_counts", str(COUNTS), str(COUNTS), "0"),
        ("wsop_events", str(EVENTS), str(EVENTS), "0"),
        ("wsop_players", str(PLAYERS), str(PLAYERS), "0"),
    ]


CHANGES: dict[str, tuple[Sequence[tuple[LiteralString, str]], dict[str, int]]] = {
    "updated": (
        [("update wsop_players set city = 'Seoul' where id = %s", player(1))],
        {"wsop_players": 1},
    ),
    "inserted": (
        [
            (
                "insert into wsop_events (id, event_id, event_name, start_date, buy_in)"
                " values (%s, 'new', '', 'infinity', 0)",
                event(900),
            )
        ],
        {"wsop_events": 1},
    ),
    "written with an old updated_at": (
        [
            (
                "insert into wsop_players (id, wsop_player_id, name, updated_at)"
                " values (%s, 'old', 'x', '1999-01-01')",
                player(900),
            )
        ],
        {"wsop_players": 1},
    ),
    "in the table without updated_at": (
        [("update wsop_chip_counts set chip_count = 9007199254740993 where id = %s", count(5))],
        {"wsop_chip_counts": 1},
    ),
    "deleted": (
        [("delete from wsop_chip_counts where id = %s", count(16))],
        {"wsop_chip_counts": 1},
    ),
    "deleted with what refers to it": (
        [("delete from wsop_players where id = %s", player(7))],
        {"wsop_players": 1, "wsop_chip_counts": COUNTS // PLAYERS},
    ),
    "swapped unique values": (
        [
            ("update wsop_players set wsop_player_id = '?' where id = %s", player(8)),
            ("update wsop_players set wsop_player_id = 'P8' where id = %s", player(9)),
            ("update wsop_players set wsop_player_id = 'P9' where id = %s", player(8)),
        ],
        {"wsop_players": 2},
    ),
}


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("name", CHANGES)
def test_what_external_changes_is_carried(scene: Scene, since: str, name: str) -> None:
    changes, differs = CHANGES[name]
    for query, key in changes:
        scene.execute("external", query, key)
    found = run(scene)
    assert {table: each["found"] for table, each in found.items() if each["found"]} == differs
    assert {t: each["published"] for t, each in found.items() if each["published"]} == differs
    must_be_equal(scene)
    assert superseded(scene, since) == []


@pytest.mark.usefixtures("worker")
def test_late_commit_is_carried_by_the_next_run(scene: Scene, since: str) -> None:
    with psycopg.connect(scene.rig.dsn("external")) as late:
        late.execute("update wsop_players set city = 'late' where id = %s", [player(11)])
        scene.execute(
            "external", "update wsop_players set city = 'early' where id = %s", player(12)
        )
        assert run(scene)["wsop_players"]["published"] == 1
        scene.caught_up(WSOP)
        late.commit()
    assert run(scene)["wsop_players"]["published"] == 1
    must_be_equal(scene)
    assert superseded(scene, since) == []


@pytest.mark.usefixtures("worker")
def test_edits_on_supabase_are_undone_and_kept(scene: Scene, since: str) -> None:
    refused = "update wsop_players set city = 'no' where id = %s"
    with pytest.raises(psycopg.Error, match="which external owns"):
        scene.execute("supabase", refused, player(20))
    scene.uncaptured("supabase", "update wsop_players set city = 'Jeju' where id = %s", player(20))
    scene.uncaptured("supabase", "delete from wsop_chip_counts where id = %s", count(21))
    scene.uncaptured(
        "supabase",
        "insert into wsop_players (id, wsop_player_id, name) values (%s, 'extra', 'x')",
        player(0),
    )
    # And one that External changes as well: its own words would be there now, and are kept all the same.
    scene.uncaptured(
        "supabase", "update wsop_players set city = 'Jeonju' where id = %s", player(23)
    )
    scene.execute("external", "update wsop_players set city = 'Busan' where id = %s", player(23))
    scene.execute("external", "update wsop_players set city = 'Ulsan' where id = %s", player(24))
    found = run(scene)
    assert [found["wsop_players"]["undone"], found["wsop_chip_counts"]["undone"]] == [3, 1]
    must_be_equal(scene)
    named = [
        (operation, image and image["city"]) for _, operation, image in superseded(scene, since)
    ]
    assert named == [("update", None), ("update", "Jeju"), ("update", "Jeonju"), ("delete", None)]
    kept: LiteralString = (
        "select image->>'wsop_player_id', reason from ftstream.displaced where displaced_at > %s"
    )
    ((name, reason),) = scene.execute("supabase", kept, since)
    assert name == "extra"
    assert "its owner does not have it" in reason


@pytest.mark.usefixtures("worker")
def test_run_that_would_delete_too_much_halts_until_it_may(scene: Scene) -> None:
    scene.execute(
        "external", "create table kept as select * from wsop_chip_counts where day_number = 1"
    )
    scene.execute("external", "delete from wsop_chip_counts where chip_count %% 10 = %s", 0)
    dry = scene.command("batch", "run", "--dry-run", "--json")
    assert dry.returncode == 1
    (reason,) = json.loads(dry.stdout)["problems"]
    assert "rows would be deleted" in reason
    halted = scene.command("batch", "run")
    assert halted.returncode == 1
    assert b"--allow-deletes" in halted.stderr
    assert scene.execute("supabase", "select count(*) from wsop_chip_counts")[0][0] > COUNTS - 20
    (counts,) = [each for each in status(scene) if each["entity_type"] == "chip_counts"]
    assert (counts["status"], counts["health_status"]) == ("failed", "ERROR")
    assert "would be deleted" in counts["last_error"]
    assert run(scene, "--allow-deletes")["wsop_chip_counts"]["deleted"] > 150
    must_be_equal(scene)
    assert {each["status"] for each in status(scene)} == {"synced"}
    scene.execute(
        "external", "insert into wsop_chip_counts select * from kept on conflict do nothing"
    )
    scene.execute("external", "drop table kept")
    run(scene)
    must_be_equal(scene)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("forged", "told"),
    [
        ("update ftstream.batch_source set system_identifier = '1'", "is another server"),
        ("update ftstream.batch_source set timeline = timeline + 1", "is on timeline"),
    ],
)
def test_external_that_is_another_halts_the_run(
    scene: Scene, forged: LiteralString, told: str
) -> None:
    scene.execute("supabase", forged)
    scene.execute("external", "update wsop_players set city = %s where id = %s", told, player(30))
    halted = scene.command("batch", "run")
    assert halted.returncode == 1
    assert told in halted.stderr.decode()
    scene.caught_up(WSOP)
    city = "select city from wsop_players where id = %s"
    assert scene.execute("supabase", city, player(30)) != [(told,)]
    run(scene, "--allow-deletes")
    must_be_equal(scene)


@pytest.mark.usefixtures("worker")
def test_delete_that_waits_is_not_published_again(scene: Scene) -> None:
    image: LiteralString = (
        "insert into profile_images (id, file_path, file_name, uploaded_by, wsop_player_id)"
        " values (%s, 'p', 'f', 'kim', %s)"
    )
    scene.uncaptured("supabase", image, event(1), player(40))
    scene.execute("external", "delete from wsop_players where id = %s", player(40))
    assert run(scene)["wsop_players"]["deleted"] == 1
    until(lambda: len(scene.parked()) == 1)
    again = run(scene)["wsop_players"]
    assert (again["found"], again["published"], again["waiting"]) == (0, 0, 1)
    scene.uncaptured("supabase", "delete from profile_images where id = %s", event(1))
    must_be_equal(scene)


@pytest.mark.usefixtures("worker")
def test_row_that_cannot_travel_stops_no_other(scene: Scene) -> None:
    huge: LiteralString = "update wsop_events set notes = repeat('x', 17000000) where id = %s"
    scene.execute("external", huge, event(3))
    scene.execute("external", "update wsop_events set notes = 'x' where id = %s", event(4))
    failed = scene.command("batch", "run", "--json")
    assert failed.returncode == 1
    told = json.loads(failed.stdout)
    assert "1 rows cannot travel" in told["problems"][0]
    # The worker may have run just before, if one was due: then the other row is over already.
    assert [t["found"] - t["published"] for t in told["tables"]] == [1, 0, 0]
    expected = {"events": "failed", "players": "synced", "chip_counts": "synced"}
    # It is tried again after ten seconds: for a moment it may be under way.
    until(lambda: {each["entity_type"]: each["status"] for each in status(scene)} == expected)
    scene.caught_up(WSOP)
    notes: LiteralString = "select notes from wsop_events where id = %s"
    assert scene.execute("supabase", notes, event(4)) == [("x",)]
    scene.execute("external", "update wsop_events set notes = '' where id = %s", event(3))
    run(scene)
    must_be_equal(scene)


def test_scheduler_goes_by_next_sync_at(scene: Scene, worker: Worker, since: str) -> None:
    runs: LiteralString = (
        "select count(*) from ftstream.sync_log where outcome = 'run_done' and logged_at > %s"
    )
    scene.execute("external", "update wsop_players set city = 'due' where id = %s", player(50))
    # Missed for hours: made up for by one run, and due again as before.
    scene.execute(
        "supabase",
        "update ftstream.sync_status set next_sync_at = now() - interval '2 hours 5 minutes'",
    )
    until(lambda: scene.execute("supabase", runs, since)[0][0] == len(WSOP.tables))
    must_be_equal(scene)
    due = scene.execute(
        "supabase",
        "select extract(epoch from next_sync_at - now()) / 60 from ftstream.sync_status"
        " where source = 'wsop'",
    )
    assert all(9 < minutes[0] <= 10 for minutes in due)
    time.sleep(3)
    assert scene.execute("supabase", runs, since)[0][0] == len(WSOP.tables)


def test_failed_run_is_woken_and_seen(scene: Scene, worker: Worker) -> None:
    scene.execute("supabase", "update ftstream.batch_source set system_identifier = '1'")
    scene.execute("supabase", DUE)
    worker.until_said("is another server")
    until(lambda: len(scene.notifications("run_failed")) > 0)
    assert "is another server" in scene.notifications("run_failed")[-1]
    until(lambda: {each["status"] for each in status(scene)} == {"failed"})
    scene.execute("supabase", "delete from ftstream.batch_source")
    scene.execute(
        "supabase",
        "update ftstream.sync_status set last_synced_at = now() - interval '6 minutes',"
        " next_sync_at = now() + interval '1 hour' where source = 'wsop'",
    )
    retried = scene.execute("supabase", "select ftstream.retry_failed_syncs()")
    assert retried == [(len(WSOP.tables),)]
    assert scene.execute("supabase", "select action, details from ftstream.activity_log") == [
        ("sync_retry", {"retry_count": 3})
    ]
    until_synced(scene, worker)


GUIDELINES: Sequence[LiteralString] = (
    """
    SELECT source, entity_type, status, last_synced_at, consecutive_failures,
        CASE
            WHEN consecutive_failures > 3 THEN 'CRITICAL'
            WHEN consecutive_failures > 0 THEN 'WARNING'
            WHEN last_synced_at < NOW() - sync_interval THEN 'STALE'
            ELSE 'HEALTHY'
        END AS health_status
    FROM sync_status
    ORDER BY health_status DESC""",
    "SELECT * FROM v_sync_dashboard",
)
VIEW: LiteralString = """
CREATE OR REPLACE VIEW v_sync_dashboard AS
SELECT
    source,
    entity_type,
    status,
    last_synced_at,
    records_synced,
    records_failed,
    consecutive_failures,
    sync_interval,
    next_sync_at,
    CASE
        WHEN consecutive_failures > 5 THEN 'CRITICAL'
        WHEN consecutive_failures > 2 THEN 'WARNING'
        WHEN last_synced_at < NOW() - sync_interval * 2 THEN 'STALE'
        WHEN status = 'failed' THEN 'ERROR'
        ELSE 'HEALTHY'
    END AS health_status,
    EXTRACT(EPOCH FROM (NOW() - last_synced_at)) AS lag_seconds
FROM sync_status
ORDER BY
    CASE
        WHEN consecutive_failures > 5 THEN 1
        WHEN consecutive_failures > 2 THEN 2
        WHEN status = 'failed' THEN 3
        ELSE 4
    END,
    last_synced_at"""


@pytest.mark.usefixtures("worker")
def test_queries_of_the_guidelines_run_unchanged(scene: Scene) -> None:
    for query in GUIDELINES:
        with psycopg.connect(scene.rig.dsn("supabase")) as connection:
            connection.execute("set search_path = ftstream")
            found = connection.execute(query).fetchall()
            wsop = {row[1] for row in found if row[0] == "wsop"}
            assert wsop == {"events", "players", "chip_counts"}
            before = connection.execute("select * from v_sync_dashboard").fetchall()
            connection.execute(VIEW)
            theirs = connection.execute("select * from v_sync_dashboard").fetchall()
            # But for what was never synced, which they call HEALTHY, and what is late, which they put last.
            assert sorted(
                str([h for h in row if h not in ("PENDING", "HEALTHY")]) for row in before
            ) == sorted(str([h for h in row if h != "HEALTHY"]) for row in theirs)
            assert all(("PENDING" in row[3:]) == (row[3] is None) for row in before)
            connection.rollback()
            assert {row[1] for row in found if row[0] == "gfx"} == {
                *("sessions", "hands", "hand_players", "players")
            }


@pytest.mark.usefixtures("worker")
def test_two_runs_at_once_are_one(scene: Scene) -> None:
    with psycopg.connect(scene.rig.dsn("supabase")) as other:
        other.execute("select from ftstream.turn where name = 'batch wsop' for update")
        busy = scene.command("batch", "run", "--timeout", "0.5")
    assert busy.returncode == 1
    assert b"is under way elsewhere" in busy.stderr
    run(scene)


def test_incompatible_column_stops_this_flow_alone(scene: Scene, worker: Worker) -> None:
    before = worker.said("runs go on")
    scene.execute("external", "alter table wsop_players alter column nickname type int using null")
    scene.execute("supabase", DUE)
    worker.until_said("nickname: string became int")
    until(lambda: any("nickname" in each for each in scene.notifications("run_failed")))
    scene.write(50)
    scene.must_be_equal()  # gfx goes on
    assert scene.command("batch", "run").returncode == 1
    told = "flow wsop to supabase: runs of players failed"
    assert told in scene.command("status").stdout.decode()
    diff = scene.command("schemas", "diff")
    assert (diff.returncode, b"nickname" in diff.stdout) == (1, True)
    scene.execute("external", "update wsop_players set nickname = 7 where id = %s", player(60))
    assert scene.command("schemas", "accept", "--yes").returncode == 0
    scene.execute("supabase", "select ftstream.retry_failed_syncs()")
    scene.execute("supabase", DUE)
    worker.until_said("runs go on", before + 1)
    must_be_equal(scene)
    nickname: LiteralString = "select nickname from wsop_players where id = %s"
    assert scene.execute("supabase", nickname, player(60)) == [("7",)]


@pytest.mark.usefixtures("worker")
def test_columns_that_come_and_go_wait_for_their_schema(scene: Scene) -> None:
    for site in ("external", "supabase"):
        scene.execute(site, "alter table wsop_events add column sponsor text")
    scene.execute("external", "update wsop_events set sponsor = 'A' where id = %s", event(5))
    assert run(scene)["wsop_events"]["uncarried"] == ["sponsor"]
    scene.rig.run("schemas", "accept", "--yes")
    found = run(scene)["wsop_events"]
    assert (found["published"], found["undone"]) == (1, 0)
    must_be_equal(scene)
    scene.execute("external", "alter table wsop_events drop column sponsor")
    scene.execute("external", "update wsop_events set notes = 'n' where id = %s", event(5))
    assert b"sponsor: removed" in scene.command("batch", "run").stderr
    scene.rig.run("schemas", "accept", "--yes")
    assert run(scene)["wsop_events"]["published"] == 1
    must_be_equal(scene)
    sponsor: LiteralString = "select sponsor from wsop_events where id = %s"
    assert scene.execute("supabase", sponsor, event(5)) == [("A",)]


@pytest.mark.parametrize("victim", ["worker", "supabase", "external"])
def test_run_that_is_killed_repeats_without_loss(scene: Scene, worker: Worker, victim: str) -> None:
    if worker.process.poll() is None:
        assert worker.stop() == 0
    counted: LiteralString = "select count(*) from wsop_chip_counts"
    before = scene.execute("supabase", counted)[0][0]
    scene.execute("external", MORE, KILLED_ROWS)
    scene.execute("external", "update wsop_players set city = %s", victim)
    scene.execute("supabase", DUE)
    running = scene.worker().ready()
    until(lambda: scene.execute("supabase", counted)[0][0] > before, 60)
    if victim == "worker":
        running.kill()
        running = scene.worker().ready()
    else:
        scene.rig.stack.kill(victim)
        scene.rig.stack.start(victim)
    until_synced(scene, running, 300)
    must_be_equal(scene)
    assert running.stop() == 0
    assert [where for where, times in logged(scene).items() if times > 1] == []


def test_schema_file_that_cannot_be_read_stops_this_flow_alone(scene: Scene) -> None:
    folder = Path(scene.rig.overrides["FTSTREAM_SCHEMAS__FOLDER"]) / "wsop" / "wsop_events"
    folder.mkdir(parents=True, exist_ok=True)
    broken = folder / "900.avsc"
    broken.write_text("{")
    worker = scene.worker()
    worker.until_said("the other flows go on")
    assert worker.said(f"flow wsop halted: {broken}: not JSON") == 1
    scene.write(50)
    scene.must_be_equal()  # gfx goes on
    broken.unlink()
    assert worker.stop() == 0


def logged(scene: Scene) -> dict[tuple[Any, ...], int]:
    """How often each record of the flow was applied."""
    rows = scene.execute(
        "supabase",
        "select topic, kafka_partition, kafka_offset, count(*) from ftstream.sync_log"
        " where topic like '%%wsop.%%' and kafka_offset is not null and outcome not in ('parked', 'dead')"
        " group by 1, 2, 3",
    )
    return {row[:3]: row[3] for row in rows}
