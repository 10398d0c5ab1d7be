"""Foreign keys while triggers are off: nothing dangles, whoever deletes or adds what meanwhile."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from psycopg.errors import ObjectNotInPrerequisiteState

from ftstream.adapters.postgres.sites import ApplyFailed
from ftstream.core.failures import PARENT_MISSING, Policy
from ftstream.flows import CUE_SHEETS, OVERRIDES, RENDER_QUEUE, Site
from tests.dangling import CHECKS
from tests.integration.conftest import Pair
from tests.integration.test_register import until_waiting
from tests.integration.two_way import Place, Two, two_places

SESSION, SHEET, OTHER, ITEM, PLAYER, OVERRIDE, JOB, RENDER = (
    str(uuid.UUID(int=n)) for n in range(1, 9)
)


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
    async with two_places(least, OVERRIDES) as two:
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
    await add_player_here(supabase)
    await add_override(supabase)
    changes = await supabase.captured()
    with pytest.raises(ApplyFailed) as waiting:
        await external.apply(*changes)
    failure = waiting.value.failure
    assert (failure.policy, failure.sqlstate) == (Policy.PARK, PARENT_MISSING)
    assert waiting.value.entities == {("player_overrides", OVERRIDE)}
    assert f"refers to public.gfx_players {PLAYER}" in failure.message
    await add_player(external)
    await external.apply(*changes)
    await overrides.must_agree("player_overrides")


async def add_player_here(place: Place) -> None:
    """As the gfx flow would have brought it."""
    async with place.user.transaction():
        await place.run("set local ftstream.applying = 'on'")
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
            arriving = asyncio.create_task(external.apply(*changes))
            await until_waiting(external, arriving)
        with pytest.raises(ApplyFailed) as first:
            await arriving
        assert first.value.failure.sqlstate in ("55P03", PARENT_MISSING)
    with pytest.raises(ApplyFailed) as second:
        await external.apply(*changes)
    assert second.value.failure.sqlstate == PARENT_MISSING
    await must_not_dangle(overrides)


async def test_delete_that_meets_a_new_child_is_refused_and_the_row_comes_back(sheets: Two) -> None:
    external, supabase = sheets.both
    await add_session(supabase)
    await add_sheet(supabase, SHEET, 1)
    await external.apply(*await supabase.captured())
    await add_sheet(supabase, OTHER, 2, parent=SHEET)
    await external.run("delete from cue_sheets where id = %s", SHEET)
    for change in await external.captured():
        await supabase.apply(change)
    assert await supabase.outcomes() == ["refused"]
    await external.apply(*await supabase.captured())
    await sheets.must_agree("cue_sheets")
    assert len(await external.rows("cue_sheets")) == 2
    await must_not_dangle(sheets)


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
