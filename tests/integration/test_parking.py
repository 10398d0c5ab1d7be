"""Parked changes that wait for each other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import msgspec
import pytest

from ftstream.apply.merge import Batch, FromLog
from ftstream.apply.offsets import Offsets
from ftstream.apply.parked_store import ParkedChanges
from ftstream.apply.parking import Parking
from ftstream.apply.sites import ApplyFailed
from ftstream.flows import CUE_SHEETS
from ftstream.kafka.partition import Partition
from ftstream.messages.change import Change
from ftstream.messages.edit import decode_edit
from tests.integration.conftest import Pair
from tests.integration.test_references import OTHER, SHEET, add_session, add_sheet
from tests.integration.two_way import Place, Two, two_places

THIRD = "00000000-0000-0000-0000-0000000000ff"


@pytest.fixture
async def sheets(least: Pair) -> AsyncIterator[Two]:
    async with two_places(least, CUE_SHEETS) as two:
        for place in two.both:
            await add_session(place)
        yield two


async def park(place: Place, *changes: Change) -> None:
    """As the writer does, where each comes alone."""
    for change in changes:
        batch = Batch((change,), FromLog())
        with pytest.raises(ApplyFailed) as failed:
            await place.applier.apply(batch)
        await place.applier.apply(
            batch.parking(dict.fromkeys(batch.entities, failed.value.failure))
        )


async def retry(place: Place, *partitions: Partition) -> list[tuple[str, str, str]]:
    """What is still parked, once a worker with these partitions has tried for a while."""

    async def ends() -> None:
        return None  # no attempt counts

    parking = Parking(
        CUE_SHEETS.name,
        place.applier,
        Offsets(place.sites),
        ParkedChanges(CUE_SHEETS, place.sites),
        partial(decode_edit, place.site.other.value),
        ends,
        place.told.append,
        dead_after=600,
    )
    await parking.begin(partitions)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2.5):
            await parking.run()
    left = "select entity_id, error, hint from ftstream.parked_change"
    return [(str(row[0]), row[1], row[2]) for row in await place.run(left)]


def at(change: Change, partition: int) -> Change:
    return msgspec.structs.replace(change, partition=partition)


@pytest.mark.parametrize("partitions", [(0, 0, 0), (0, 1, 2)], ids=["one worker's", "several's"])
@pytest.mark.parametrize("first", [0, 1, 2])
async def test_rows_that_wait_for_each_other_are_applied_together(
    sheets: Two, partitions: tuple[int, int, int], first: int
) -> None:
    """A new sheet takes the order of one that has moved, and now refers to it by way of a third."""
    external, supabase = sheets.both
    await add_sheet(external, SHEET, 1)
    await sheets.exchange()
    await external.run("update cue_sheets set sheet_order = 7 where id = %s", SHEET)
    await external.run("update cue_sheets set sheet_code = 'moved' where id = %s", SHEET)
    await add_sheet(external, OTHER, 1)
    await add_sheet(external, THIRD, 3, parent=OTHER)
    await external.run("update cue_sheets set parent_version_id = %s where id = %s", THIRD, SHEET)
    *_, new, third, moved = await external.captured()
    changes = [at(c, n) for c, n in zip((new, third, moved), partitions, strict=True)]
    await park(supabase, *changes)
    assert await retry(supabase, changes[first].at) == []
    await sheets.must_agree("cue_sheets")


async def test_row_that_needs_one_which_is_not_there_waits(sheets: Two) -> None:
    external, supabase = sheets.both
    await add_sheet(external, OTHER, 1)
    await add_sheet(external, THIRD, 3, parent=OTHER)
    _, third = await external.captured()
    await park(supabase, third)
    ((waiting, error, _),) = await retry(supabase, third.at)
    assert waiting == THIRD
    assert f"refers to public.cue_sheets {OTHER}" in error
