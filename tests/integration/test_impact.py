"""What was written in a time, where, by whom: from both sites' logs."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from ftstream.recover.impact import Impact, Period, impact
from tests.integration.conftest import Pair
from tests.integration.test_history import SETUP, TABLE, write
from tests.integration.test_outbox import NOTES
from tests.integration.two_way import Two, two_places

IDS = [str(uuid.UUID(int=n)) for n in range(1, 5)]


@pytest.fixture
async def two(least: Pair) -> AsyncIterator[Two]:
    async with two_places(least, NOTES, SETUP) as two:
        yield two


async def read(two: Two, since: datetime, until: datetime, ids: int = 5) -> list[Impact]:
    found: list[Impact] = []
    for place in two.both:
        found += await impact(place.user, place.site, [TABLE], Period(since, until), ids)
    return found


async def test_each_author_has_a_line_with_what_became_of_it(two: Two) -> None:
    begun = datetime.now(UTC)
    for key in IDS[:3]:
        await write(two.external, "kim", "by kim", key)
    await two.exchange()
    await write(two.supabase, "lee", "by lee", IDS[0])
    await write(two.supabase, "lee", None, IDS[1])
    await two.exchange()
    now = datetime.now(UTC) + timedelta(seconds=1)
    lines = {
        (e.written_on.value, e.author.partition(" (")[0], e.operation, e.changes, e.rows)
        for e in await read(two, begun, now)
        if e.outcome == "applied"
    }
    assert lines == {
        ("external", "kim", "insert", 3, 3),
        ("supabase", "lee", "update", 1, 1),
        ("supabase", "lee", "delete", 1, 1),
    }
    (kims,) = [e for e in await read(two, begun, now, ids=2) if e.operation == "insert"]
    assert list(kims.ids) == [IDS[2], IDS[1]] and kims.rows == 3
    assert begun <= kims.first <= kims.last <= now


async def test_only_what_was_written_in_that_time_counts(two: Two) -> None:
    await write(two.external, "kim", "before", IDS[0])
    await two.exchange()
    since = datetime.now(UTC)
    await write(two.external, "kim", "then", IDS[1])
    await two.exchange()
    until = datetime.now(UTC)
    await write(two.external, "kim", "afterwards", IDS[2])
    await two.exchange()
    (only,) = await read(two, since, until)
    assert list(only.ids) == [IDS[1]]
