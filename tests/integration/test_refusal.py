"""Unique values that move, or that both sites give away at once."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import psycopg
import pytest

from ftstream.apply.merge import Batch, FromLog
from ftstream.apply.sites import ApplyFailed
from ftstream.failures import Policy
from ftstream.flows import Site
from ftstream.messages.change import Change
from tests.integration.conftest import Pair, as_ftstream
from tests.integration.test_outbox import NOTES
from tests.integration.test_register import skew
from tests.integration.two_way import Place, Two, two_places

SETUP = ("create table notes (id uuid primary key, place int unique, body text)",)
A, B, C = (str(uuid.UUID(int=n)) for n in (1, 2, 3))


@pytest.fixture
async def two(least: Pair) -> AsyncIterator[Two]:
    async with two_places(least, NOTES, SETUP) as two:
        yield two


async def put(place: Place, key: str, where: int | None, body: str = "") -> None:
    await place.run(
        "insert into notes values (%s, %s, %s)"
        " on conflict (id) do update set place = excluded.place, body = excluded.body",
        key,
        where,
        body,
    )


class Link:
    """One direction: changes arrive in order; those that are refused a place are tried again."""

    def __init__(self, here: Place, there: Place) -> None:
        self.here, self.there = here, there
        self.parked: dict[str, Change] = {}

    async def carry(self, *, together: bool) -> bool:
        """Whether anything came."""
        changes = await self.here.captured()
        batches = [changes] if together else [[change] for change in changes]
        for batch in batches:
            if batch:
                await self._apply(batch)
        return bool(changes)

    async def retry(self) -> bool:
        """All that is parked together, as the agent does; then each by itself."""
        before = dict(self.parked)
        if before:
            self.parked.clear()
            await self._apply(list(before.values()))
        return self.parked != before

    async def _apply(self, batch: list[Change]) -> None:
        try:
            await self.there.apply(*batch)
        except ApplyFailed as error:
            assert error.failure.policy in (Policy.DIVIDE, Policy.PARK)
            if len(batch) > 1:  # as the writer does
                first, second = Batch(tuple(batch), FromLog()).halves()
                await self._apply(list(first.changes))
                await self._apply(list(second.changes))
            else:
                self.parked[batch[0].entity_id] = batch[0]
        else:
            for change in batch:
                self.parked.pop(change.entity_id, None)


async def settle(two: Two, *, together: bool = True) -> list[Link]:
    links = [Link(two.external, two.supabase), Link(two.supabase, two.external)]
    for _ in range(100):
        moved = [await link.carry(together=together) for link in links]
        moved += [await link.retry() for link in links]
        if not any(moved):
            return links
    raise AssertionError("it goes on for ever")


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "a batch each"])
@pytest.mark.parametrize("size", [2, 3])
async def test_values_that_swap_arrive_whole(two: Two, size: int, together: bool) -> None:
    keys = [A, B, C][:size]
    for number, key in enumerate(keys):
        await put(two.external, key, number)
    await settle(two)
    async with two.external.user.transaction():
        await two.external.run("update notes set place = -1 - place")
        await two.external.run("update notes set place = mod(-place, %s)", size)
    await settle(two, together=together)
    await two.must_agree("notes")
    assert await two.supabase.run("select place from notes order by id") == [
        ((number + 1) % size,) for number in range(size)
    ]


async def test_both_sites_give_two_rows_the_same_value(two: Two) -> None:
    """The later one keeps it; the other row is as it was before, and its writer's words are kept."""
    await put(two.external, A, 1, "a")
    await put(two.external, B, 2, "b")
    await settle(two)
    await put(two.external, A, 3, "a wants it")
    await put(two.supabase, B, 3, "b wants it, later")
    links = await settle(two)
    await two.must_agree("notes")
    assert [link.parked for link in links] == [{}, {}]
    assert await two.external.run("select place, body from notes order by id") == [
        (1, "a"),
        (3, "b wants it, later"),
    ]
    kept = "select change->'row'->>'body' from ftstream.sync_log where outcome = 'refused'"
    assert await two.supabase.run(kept) == [("a wants it",)]


async def test_both_sites_insert_different_rows_with_the_same_value(two: Two) -> None:
    await put(two.external, A, 1, "first")
    await put(two.supabase, B, 1, "second")
    await settle(two)
    await two.must_agree("notes")
    assert await two.external.run("select body from notes") == [("second",)]
    kept = "select change->'row'->>'body' from ftstream.sync_log where outcome = 'refused'"
    assert await two.supabase.run(kept) == [("first",)]


async def test_refusal_of_a_row_that_was_written_since_has_no_effect(two: Two) -> None:
    """Neither at once nor when it comes again, later, or after it was taken."""
    external, supabase = two.both
    await put(external, A, 1, "a")
    await put(external, B, 2, "b")
    await settle(two)
    await put(external, A, 3, "a wants it")
    await put(supabase, B, 3, "b wants it, later")
    (wanted,) = await external.captured()
    await supabase.apply(wanted)
    *moved, refusal = await supabase.captured()
    assert refusal.refusal is not None and refusal.site == "external"
    assert refusal.version == wanted.version + 1
    await put(external, A, 4, "a thinks again")
    await external.apply(*moved, refusal)
    assert await external.run("select place, body from notes where id = %s", A) == [
        (4, "a thinks again")
    ]
    await settle(two)
    await external.apply(refusal)
    await supabase.apply(wanted)
    await two.must_agree("notes")
    assert await supabase.run("select body from notes order by id") == [
        ("a thinks again",),
        ("b wants it, later",),
    ]


async def test_refusal_takes_nothing_over_that_was_written_in_its_very_version(two: Two) -> None:
    """As where a clock is behind what it has received: each write there is in the next version."""
    external, supabase = two.both
    await skew(external, 60)
    await put(external, A, 1, "a")
    await put(external, B, 2, "b")
    await settle(two)
    await put(supabase, A, 3, "a wants it")
    (wanted,) = await supabase.captured()
    await put(external, B, 3, "b has it, later")
    await external.apply(wanted)
    await put(supabase, A, 4, "a thinks again")
    (again,) = await supabase.captured()
    *moved, refusal = await external.captured()
    assert refusal.refusal is not None and refusal.version == again.version
    await supabase.apply(*moved, refusal)
    await external.apply(again)
    await settle(two)
    await two.must_agree("notes")
    assert await external.run("select body from notes where id = %s", A) == [("a thinks again",)]


async def test_only_the_write_that_was_refused_counts_as_refused(two: Two) -> None:
    external, supabase = two.both
    await put(external, A, 1, "first")
    await put(external, A, 1, "again")
    await put(supabase, B, 1, "second")
    await supabase.apply(*await external.captured())
    assert sorted(await supabase.outcomes()) == ["refused", "superseded"]


async def test_row_that_was_refused_is_written_later_than_what_the_other_site_takes(
    two: Two,
) -> None:
    """Also by a clock that is behind: else the row as it is taken back would overrule its writer."""
    external, supabase = two.both
    await put(external, A, 1, "a")
    await put(external, B, 2, "b")
    await settle(two)
    await skew(external, 60)
    await put(external, A, 3, "a wants it")
    await skew(supabase, 120)
    await put(supabase, B, 3, "b wants it, later")
    (wanted,) = await external.captured()
    await supabase.apply(wanted)
    await skew(supabase, -60)
    await put(supabase, A, 1, "written after the refusal")
    await settle(two)
    await two.must_agree("notes")
    assert await external.run("select body from notes where id = %s", A) == [
        ("written after the refusal",)
    ]


async def test_row_that_is_refused_time_and_again_waits_and_somebody_is_told(two: Two) -> None:
    external, supabase = two.both
    await put(external, A, 1, "first")
    await put(supabase, B, 1, "second")
    await supabase.run(
        "insert into ftstream.sync_log"
        " (operation, outcome, table_name, entity_id, topic, kafka_partition, kafka_offset)"
        " select 'update', 'refused', 'notes', %s, 't', 0, n from generate_series(1, 50) n",
        A,
    )
    (wanted,) = await external.captured()
    with pytest.raises(ApplyFailed) as failed:
        await supabase.apply(wanted)
    assert failed.value.failure.policy is Policy.PARK
    assert [each.kind for each in supabase.told] == ["fight"]
    assert A in supabase.told[0].message and B in supabase.told[0].message


async def test_row_that_is_handed_over_has_what_a_user_commits_meanwhile(
    pair: Pair, two: Two
) -> None:
    """Else the other site would get the row as it was before, in a greater version."""
    await put(two.supabase, A, 1, "old")
    async with await pair.connect(Site.SUPABASE) as connection:
        user = replace(two.supabase, user=connection)
        async with connection.transaction():
            await put(user, A, 1, "edit")
            again = (
                "select ftstream.hand_over_again('public.notes', array[%s], array[1], 'x', false)"
            )
            answering = asyncio.create_task(two.supabase.run(again, A))
            waiting = (
                "select count(*) > 0 from pg_stat_activity"
                " where datname = current_database() and wait_event_type = 'Lock'"
            )
            while await user.run(waiting) != [(True,)]:
                await asyncio.sleep(0.01)
        await answering
    await settle(two)
    await two.must_agree("notes")
    assert await two.external.run("select body from notes") == [("edit",)]


async def test_what_the_target_has_alone_survives_a_swap(pair: Pair, two: Two) -> None:
    await two.supabase.run("alter table notes add own text default 'default'")
    await two.supabase.applier.prepare()
    for number, key in enumerate((A, B)):
        await put(two.external, key, number)
    await settle(two)
    supabase = two.supabase
    async with (
        supabase.user.transaction(),
        as_ftstream(supabase.user, supabase.settings, supabase.site),
    ):
        await supabase.run("update notes set own = body || place")
    async with two.external.user.transaction():
        await two.external.run("update notes set place = place + 10")
        await two.external.run("update notes set place = 11 - place")
    await settle(two)
    assert await two.supabase.run("select place, own from notes order by id") == [
        (1, "0"),
        (0, "1"),
    ]


@pytest.mark.parametrize("seed", range(4))
async def test_sites_agree_however_values_are_given_away(two: Two, seed: int) -> None:
    """The rule of the model in the design, on real databases."""
    chance = random.Random(seed)
    keys = [str(uuid.UUID(int=n)) for n in range(1, 6)]
    links = [Link(two.external, two.supabase), Link(two.supabase, two.external)]
    for number in range(40):
        place = chance.choice(two.both)
        try:
            if chance.random() < 0.15:
                await place.run("delete from notes where id = %s", chance.choice(keys))
            else:
                await put(place, chance.choice(keys), chance.randrange(5), f"{place.site} {number}")
        except psycopg.errors.UniqueViolation:
            continue  # the user is told at once
        if chance.random() < 0.5:
            await chance.choice(links).carry(together=chance.random() < 0.5)
    for _ in range(100):
        moved = [await link.carry(together=chance.random() < 0.5) for link in links]
        moved += [await link.retry() for link in links]
        if not any(moved):
            break
    assert [link.parked for link in links] == [{}, {}]
    await two.must_agree("notes")
