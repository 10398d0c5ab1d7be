"""Foreign keys while triggers are off: nothing dangles, whoever deletes or adds what meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import psycopg
import pytest
from psycopg.errors import ObjectNotInPrerequisiteState

from ftstream.apply.sites import ApplyFailed
from ftstream.failures import PARENT_MISSING, Policy
from ftstream.flows import CUE_SHEETS, GFX, OVERRIDES, RENDER_QUEUE, Flow, Site
from ftstream.messages.change import Change, decode
from tests.dangling import CHECKS
from tests.integration.conftest import Pair, as_ftstream
from tests.integration.test_register import until_waiting
from tests.integration.two_way import Place, Two, Worker, settled, two_places

SESSION, SHEET, OTHER, ITEM, PLAYER, OVERRIDE, JOB, RENDER = (
    str(uuid.UUID(int=n)) for n in range(1, 9)
)


def workers_of(two: Two, flow: Flow) -> dict[Site, Worker]:
    return {place.site: Worker(place, flow) for place in two.both}


async def must_not_dangle(two: Two) -> None:
    for place in two.both:
        checks = await place.run(CHECKS)
        assert checks
        for (check,) in checks:
            ((name, rows),) = await (await place.user.execute(check)).fetchall()
            assert rows == 0, name


@pytest.fixture
async def sheets(least: Pair) -> AsyncIterator[Two]:
    async with two_places(least, CUE_SHEETS) as two:
        yield two


@pytest.fixture
async def overrides(least: Pair) -> AsyncIterator[Two]:
    async with two_places(least, OVERRIDES, beside=[GFX]) as two:
        # The audit trigger of production, whose table is gone.
        for place in two.both:
            await place.run("alter table player_overrides disable trigger player_overrides_audit")
        yield two


async def add_session(place: Place) -> None:
    await place.run(
        "insert into broadcast_sessions"
        " (id, session_code, event_name, broadcast_date, scheduled_start, created_by)"
        " values (%s, 'S1', 'e', '2026-11-24', now(), 'kim')",
        SESSION,
    )


async def add_sheet(place: Place, key: str, order: int, parent: str | None = None) -> None:
    await place.run(
        "insert into cue_sheets (id, sheet_code, session_id, sheet_name, sheet_order, created_by,"
        " parent_version_id) values (%s, %s, %s, 'name', %s, 'kim', %s)",
        key,
        f"C{order}",
        SESSION,
        order,
        parent,
    )


async def add_player(place: Place) -> None:
    await place.run("insert into gfx_players (id, player_hash, name) values (%s, 'h', 'n')", PLAYER)


async def add_override(place: Place) -> None:
    await place.run(
        "insert into player_overrides"
        " (id, gfx_player_id, field_name, override_value, reason, created_by)"
        " values (%s, %s, 'name', 'v', 'r', 'kim')",
        OVERRIDE,
        PLAYER,
    )


async def test_parent_that_no_flow_carries_comes_with_the_row(sheets: Two) -> None:
    external, supabase = sheets.both
    await add_session(supabase)
    await add_sheet(supabase, SHEET, 1)
    await external.apply(*await supabase.captured())
    await sheets.must_agree("broadcast_sessions", "cue_sheets")
    await must_not_dangle(sheets)


async def test_item_and_the_sheet_that_shows_it_refer_to_each_other(sheets: Two) -> None:
    external, supabase = sheets.both
    await add_session(supabase)
    await add_sheet(supabase, SHEET, 1)
    kind = await supabase.run("select enum_range(null::cue_content_type)::text[]")
    await supabase.run(
        "insert into cue_items (id, sheet_id, content_type) values (%s, %s, %s)",
        ITEM,
        SHEET,
        kind[0][0][0],
    )
    await supabase.run("update cue_sheets set current_item_id = %s where id = %s", ITEM, SHEET)
    await external.apply(*await supabase.captured())
    await must_not_dangle(sheets)
    assert await external.run("select current_item_id::text from cue_sheets") == [(ITEM,)]
    # Deleted again, the items go as the foreign key says.
    await supabase.run("delete from cue_sheets where id = %s", SHEET)
    await external.apply(*await supabase.captured())
    assert await external.run("select from cue_items") == []
    await must_not_dangle(sheets)


async def test_row_that_refers_to_one_of_another_flow_waits_for_it(overrides: Two) -> None:
    external, supabase = overrides.both
    await add_player(external)
    await add_override(external)
    changes = await external.captured()
    with pytest.raises(ApplyFailed) as waiting:
        await supabase.apply(*changes)
    failure = waiting.value.failure
    assert (failure.policy, failure.sqlstate) == (Policy.PARK, PARENT_MISSING)
    assert {*waiting.value.entities} == {("player_overrides", OVERRIDE)}
    assert f"refers to public.gfx_players {PLAYER}" in failure.message
    await add_player_here(supabase)
    await supabase.apply(*changes)
    await overrides.must_agree("player_overrides")


async def add_player_here(place: Place) -> None:
    """As the gfx flow would have brought it."""
    async with place.user.transaction(), as_ftstream(place.user, place.settings, place.site):
        await add_player(place)


async def test_child_that_comes_while_its_parent_is_deleted_waits_and_finds_it_gone(
    pair: Pair, overrides: Two
) -> None:
    external, supabase = overrides.both
    await add_player_here(supabase)
    await add_player(external)
    await add_override(supabase)
    changes = await supabase.captured()
    async with await pair.connect(Site.EXTERNAL) as connection:
        user = replace(external, user=connection)
        async with connection.transaction():
            await user.run("delete from gfx_players where id = %s", PLAYER)
            arriving = asyncio.create_task(Worker(external, OVERRIDES).apply(*changes))
            await until_waiting(external, arriving)
    await arriving
    await settled(overrides, workers_of(overrides, OVERRIDES))
    await overrides.must_agree("player_overrides")
    assert await supabase.rows("player_overrides") == []
    await must_not_dangle(overrides)


async def add_family(sheets: Two) -> None:
    """A sheet on both sites, and on Supabase one that refers to it."""
    external, supabase = sheets.both
    await add_session(supabase)
    await add_sheet(supabase, SHEET, 1)
    await external.apply(*await supabase.captured())
    await add_sheet(supabase, OTHER, 2, parent=SHEET)


async def test_delete_that_meets_a_later_child_is_refused_and_the_row_comes_back(
    sheets: Two,
) -> None:
    external, supabase = sheets.both
    await add_session(supabase)
    await add_sheet(supabase, SHEET, 1)
    await external.apply(*await supabase.captured())
    await external.run("delete from cue_sheets where id = %s", SHEET)
    await add_sheet(supabase, OTHER, 2, parent=SHEET)
    await settled(sheets, workers_of(sheets, CUE_SHEETS))
    await sheets.must_agree("cue_sheets")
    assert len(await external.rows("cue_sheets")) == 2
    await must_not_dangle(sheets)
    assert [each.kind for each in external.told] == ["edit_refused"]
    assert f"cue_sheets {OTHER} refers to it" in external.told[0].message


async def test_child_of_what_was_deleted_later_lets_go_and_keeps_its_other_words(
    sheets: Two,
) -> None:
    external, supabase = sheets.both
    await add_family(sheets)
    await external.run("delete from cue_sheets where id = %s", SHEET)
    await settled(sheets, workers_of(sheets, CUE_SHEETS))
    await sheets.must_agree("cue_sheets")
    left = "select id::text, parent_version_id, sheet_order from cue_sheets"
    assert await external.run(left) == [(OTHER, None, 2)]
    assert (
        f"public.cue_sheets {SHEET}, to which it refers, is not there" in supabase.told[0].message
    )


DELETE_PLAYER = b'{"op":"d","source":{"table":"gfx_players","lsn":1,"ts_us":1,"txId":1}}'
PLAYERS = [str(uuid.UUID(int=100 + number)) for number in range(6)]


def deleted(player: str, offset: int) -> Change:
    """As Debezium tells it."""
    change = decode("gfx_players", "gfx.gfx_players", 0, offset, player.encode(), DELETE_PLAYER)
    assert change is not None
    return change


async def add_players(overrides: Two) -> None:
    insert = (
        "insert into gfx_players (id, player_hash, name)"
        " select p::uuid, p, 'n' from unnest(%s::text[]) p"
    )
    await overrides.external.run(insert, PLAYERS)
    supabase = overrides.supabase
    async with (
        supabase.user.transaction(),
        as_ftstream(supabase.user, supabase.settings, supabase.site),
    ):
        await supabase.run(insert, PLAYERS)


async def override(place: Place, number: int, player: int, value: str = "v") -> None:
    await place.run(
        "insert into player_overrides"
        " (id, gfx_player_id, field_name, override_value, reason, created_by)"
        " values (%s, %s, 'name', %s, 'r', 'kim') on conflict (id) do update"
        " set gfx_player_id = excluded.gfx_player_id, override_value = excluded.override_value",
        str(uuid.UUID(int=200 + number)),
        PLAYERS[player],
        value,
    )


async def test_rows_that_refer_to_what_its_owner_has_deleted_let_it_go(overrides: Two) -> None:
    """Each pair by itself: the site that owns the players has deleted them, the other refers to them."""
    external, supabase = overrides.both
    await add_players(overrides)
    players = Worker(supabase, GFX)
    await players.applier.prepare()
    await override(external, 0, 0, "moved away from the player that goes")
    await override(external, 1, 1, "as it was")
    await settled(overrides, workers_of(overrides, OVERRIDES))
    await override(supabase, 1, 2, "edited")
    await override(supabase, 2, 3, "new")
    await override(supabase, 2, 3, "new, and edited again")
    await override(external, 0, 4, "moved away from the player that goes")
    await external.run(
        "delete from gfx_players where id = any(%s::uuid[])", [PLAYERS[i] for i in (0, 2, 3)]
    )
    await players.apply(*(deleted(PLAYERS[i], i) for i in (0, 2, 3)))
    waiting = {entity: error for entity, error, _ in await players.parked()}
    assert len(waiting) == 3
    for player, number in ((0, 0), (2, 1), (3, 2)):
        theirs = str(uuid.UUID(int=200 + number))
        assert waiting[PLAYERS[player]] == (
            f"player_overrides {theirs} refers to gfx_players {PLAYERS[player]}, which is to be deleted"
        )
    # As after a long outage of the other direction, from which the rows come that let go: dead, and told.
    await supabase.run("update ftstream.parked_change set state = 'dead'")
    await settled(overrides, workers_of(overrides, OVERRIDES), players)
    assert await players.parked() == []
    await overrides.must_agree("player_overrides")
    players_left = "select id::text from gfx_players order by id"
    assert await supabase.run(players_left) == await external.run(players_left)
    kept = "select override_value from player_overrides order by id"
    assert await supabase.run(kept) == [
        ("moved away from the player that goes",),
        ("as it was",),
    ]
    refused = (
        "select change->'row'->>'override_value' from ftstream.sync_log where outcome = 'refused'"
    )
    assert {words for (words,) in await external.run(refused)} >= {
        "edited",
        "new, and edited again",
    }
    told = [each.message for each in supabase.told if each.kind == "edit_refused"]
    assert any(str(uuid.UUID(int=202)) in each and PLAYERS[3] in each for each in told)
    await must_not_dangle(overrides)


@pytest.mark.parametrize("seed", range(int(os.environ.get("FTSTREAM_SEEDS", "4"))))
async def test_sites_agree_whatever_becomes_of_what_rows_refer_to(
    overrides: Two, seed: int
) -> None:
    """External deletes players, and brings some back, while both sites refer to them."""
    chance = random.Random(seed)
    external, supabase = overrides.both
    await add_players(overrides)
    workers, players = workers_of(overrides, OVERRIDES), Worker(supabase, GFX)
    await players.applier.prepare()
    offsets, events = iter(range(10**6)), list[Change]()
    for _ in range(30):
        number, player = chance.randrange(5), chance.randrange(len(PLAYERS))
        try:
            match chance.choice(("edit", "edit", "remove", "delete", "insert", "arrive", "arrive")):
                case "edit":
                    await override(chance.choice(overrides.both), number, player)
                case "remove":
                    query = "delete from player_overrides where id = %s"
                    await chance.choice(overrides.both).run(query, str(uuid.UUID(int=200 + number)))
                case "delete":
                    gone = "delete from gfx_players where id = %s returning id"
                    if await external.run(gone, PLAYERS[player]):
                        events.append(deleted(PLAYERS[player], next(offsets)))
                case "insert":
                    await external.run(
                        "insert into gfx_players (id, player_hash, name) values (%s, %s, 'n')",
                        *[PLAYERS[player]] * 2,
                    )
                    events.append(await inserted(external, PLAYERS[player], next(offsets)))
                case "arrive":
                    if events and chance.random() < 0.5:
                        await players.apply(events.pop(0))
                    place = chance.choice(overrides.both)
                    for change in await place.captured():
                        await workers[place.site.other].apply(change)
        except (psycopg.errors.ForeignKeyViolation, psycopg.errors.UniqueViolation):
            continue  # its author is told at once
    for event in events:
        await players.apply(event)
    await settled(overrides, workers, players)
    for worker in (*workers.values(), players):
        assert await worker.parked() == []
    await overrides.must_agree("player_overrides")
    for place in overrides.both:
        ids = await place.run("select id::text, player_hash from gfx_players order by 1")
        assert ids == await external.run("select id::text, player_hash from gfx_players order by 1")
    await must_not_dangle(overrides)


async def inserted(place: Place, player: str, offset: int) -> Change:
    """As Debezium tells it."""
    image = {"id": player, "player_hash": player, "name": "n"}
    event = {"op": "c", "source": {"table": "gfx_players"}, "after": image}
    change = decode(
        "gfx_players", "gfx.gfx_players", 0, offset, player.encode(), msgspec.json.encode(event)
    )
    assert change is not None
    return change


async def test_parent_whose_unique_value_is_taken_is_not_carried(sheets: Two) -> None:
    external, supabase = sheets.both
    await add_session(supabase)
    await external.run(
        "insert into broadcast_sessions"
        " (session_code, event_name, broadcast_date, scheduled_start, created_by)"
        " values ('S1', 'another', '2026-11-24', now(), 'lee')"
    )
    await add_sheet(supabase, SHEET, 1)
    with pytest.raises(ApplyFailed, match="another row there has its unique value") as waiting:
        await external.apply(*await supabase.captured())
    assert waiting.value.entities == {("cue_sheets", SHEET)}
    assert await external.rows("cue_sheets") == []


async def test_guarded_rows_stay_as_they_are_when_what_they_refer_to_goes(least: Pair) -> None:
    async with two_places(least, RENDER_QUEUE) as two:
        external, supabase = two.both
        for place in two.both:
            await add_job(place, JOB)
            await add_job(place, OTHER)
        await supabase.run(
            "insert into render_queue (id, job_id, render_type, aep_project, aep_comp_name, gfx_data)"
            " values (%s, %s, (enum_range(null::orch_render_type))[1], 'p', 'c', '{}')",
            RENDER,
            JOB,
        )
        await external.apply(*await supabase.captured())
        # `on delete set null` updates no row here: nothing refers to it.
        await external.run("delete from job_queue where id = %s", OTHER)
        with pytest.raises(ObjectNotInPrerequisiteState, match="which supabase owns: update"):
            await external.run("delete from job_queue where id = %s", JOB)
        await supabase.run("delete from job_queue where id = %s", JOB)
        await external.apply(*await supabase.captured())
        await external.run("delete from job_queue where id = %s", JOB)
        await two.must_agree("render_queue")
        await must_not_dangle(two)


async def add_job(place: Place, key: str) -> None:
    await place.run(
        "insert into job_queue (id, job_type, job_name, created_by)"
        " values (%s, (enum_range(null::orch_job_type))[1], 'j', 'kim')",
        key,
    )


async def test_worker_may_look_at_and_put_rows_only_where_a_flow_refers_to_them(
    pair: Pair, sheets: Two
) -> None:
    role = f"apply_{pair.database}"
    async with await pair.connect(Site.EXTERNAL, role) as connection:
        query = "select ftstream.parent_image('wsop_players', array['id'], array['x'])"
        with pytest.raises(Exception, match=r"refers to public\.wsop_players"):
            await connection.execute(query)


async def test_parent_that_comes_in_batches_is_fetched_at_once(overrides: Two) -> None:
    """The next run may be a quarter of an hour away, and the change would be dead before."""
    external, supabase = overrides.both
    await external.run(
        "insert into wsop_players (id, wsop_player_id, name) values (%s, 'P', 'n')", PLAYER
    )
    await external.run(
        "insert into profile_images (id, file_path, file_name, uploaded_by, wsop_player_id)"
        " values (%s, 'p', 'f', 'kim', %s)",
        OVERRIDE,
        PLAYER,
    )
    await supabase.run(
        "insert into ftstream.sync_status"
        " (source, entity_type, status, last_synced_at, next_sync_at)"
        " values ('wsop', 'players', 'synced', now() - interval '5 minutes', now() + interval '10 minutes'),"
        " ('wsop', 'events', 'synced', now() - interval '5 minutes', now() + interval '10 minutes')"
    )
    changes = await external.captured()
    with pytest.raises(ApplyFailed):
        await supabase.apply(*changes)
    due = "select entity_type from ftstream.sync_status where next_sync_at <= clock_timestamp()"
    assert await supabase.run(due) == [("players",)]
