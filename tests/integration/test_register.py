"""Last write wins on two real databases: whatever arrives when, both end with the greatest write."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from ftstream.apply.merge import Batch, FromLog, FromParked
from ftstream.apply.sites import ApplyFailed
from ftstream.failures import Policy, classify
from ftstream.flows import Site
from ftstream.last_write.rule import newest
from ftstream.messages.change import Change, Entity, Stamp
from ftstream.outcomes import Outcome
from tests.integration.conftest import Cluster, Pair, as_ftstream, made_pair, with_least_rights
from tests.integration.test_outbox import NOTES
from tests.integration.two_way import Place, Two, two_places
from tests.register import LastWrite, arrived

SETUP = ("create table notes (id uuid primary key, body text, tags text[], doc jsonb)",)
IDS = [str(uuid.UUID(int=n)) for n in range(1, 5)]
ONE = IDS[0]


@pytest.fixture
async def two(least: Pair) -> AsyncIterator[Two]:
    async with two_places(least, NOTES, SETUP) as two:
        yield two


async def write(place: Place, key: str, body: str | None) -> None:
    """As an application does that keeps one row for a key; None deletes it."""
    if body is None:
        await place.run("delete from notes where id = %s", key)
    else:
        await place.run(
            "insert into notes values (%s, %s) on conflict (id) do update set body = excluded.body",
            key,
            body,
        )


async def skew(place: Place, seconds: float) -> None:
    """Have the site's clock run ahead, as far as its writers can tell."""
    ((text,),) = await place.run("select pg_get_functiondef('ftstream.capture()'::regprocedure)")
    ahead = f"(clock_timestamp() + interval '{seconds} s')"
    await place.user.execute(text.replace("clock_timestamp()", ahead))


class Model:
    """What last_write/rule.py says that a site knows, beside what it does know."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.last: dict[Entity, LastWrite] = {}

    def wrote(self, change: Change) -> None:
        entity, before = change.entity, None
        before = self.last.get(entity)
        assert before is None or change.version > before.stamp.version
        received = before.received if before else 0
        self.last[entity] = LastWrite(change.stamp, change.operation, received)

    def receives(self, batch: list[Change]) -> list[Outcome]:
        """What is to be logged of each change of a batch."""
        before = dict(self.last)
        greatest = newest(batch)
        outcomes = {}
        for entity, change in greatest.items():
            self.last[entity], outcomes[entity], _ = arrived(before.get(entity), change)
        return [self._of(change, before, greatest, outcomes) for change in batch]

    @staticmethod
    def _of(
        change: Change,
        before: dict[Entity, LastWrite],
        greatest: dict[Entity, Change],
        outcomes: dict[Entity, Outcome],
    ) -> Outcome:
        entity = change.entity
        if greatest[entity] is change:
            return outcomes[entity]
        known = before.get(entity)
        old = known is not None and change.version <= known.received
        return Outcome.DUPLICATE if old else Outcome.SUPERSEDED


class TwoSites(RuleBasedStateMachine):
    """Users write on both sites; changes arrive in pieces, again, out of order, while others write."""

    loop: asyncio.AbstractEventLoop
    two: Two
    once: bool
    """Each site writes each entity once and never again: overwriting hides what was lost."""

    def __init__(self) -> None:
        super().__init__()
        self.models = {place.site: Model(place) for place in self.two.both}
        self.sent: dict[Site, list[Change]] = {site: [] for site in Site}
        self.waiting: dict[Site, list[Change]] = {site: [] for site in Site}
        self.numbers = iter(range(10**6))
        self.keys = [str(uuid.uuid4()) for _ in range(100 if self.once else 4)]
        self.written: set[tuple[Site, str]] = set()
        for place in self.two.both:
            self._run(self._empty(place))

    @staticmethod
    async def _empty(place: Place) -> None:
        async with place.user.transaction():
            async with as_ftstream(place.user, place.settings, place.site):
                await place.run("delete from notes")
            await place.run("delete from ftstream.last_write")
        await place.captured()

    def _run(self, step: Any) -> Any:
        return self.loop.run_until_complete(step)

    def _place(self, site: Site) -> Place:
        return self.two.external if site is Site.EXTERNAL else self.two.supabase

    @rule(
        site=st.sampled_from(Site), number=st.integers(0, 3), gone=st.booleans(), more=st.booleans()
    )
    def somebody_writes(self, site: Site, number: int, gone: bool, more: bool) -> None:
        key = self._key(site, number)
        body = None if gone else f"{site} {next(self.numbers)}"
        place = self._place(site)
        self._run(write(place, key, body))
        if more and not self.once:
            self._run(write(place, key, f"{site} {next(self.numbers)}"))
        for change in self._run(place.captured()):
            self.models[site].wrote(change)
            self.sent[site].append(change)
            self.waiting[site].append(change)

    @rule(site=st.sampled_from(Site), count=st.integers(1, 5), seed=st.integers(0, 99))
    def changes_arrive(self, site: Site, count: int, seed: int) -> None:
        """In order and once, as Kafka has them, or not at all so."""
        chance = random.Random(seed)
        batch = self.waiting[site][:count]
        del self.waiting[site][:count]
        if chance.random() < 0.5 and self.sent[site]:
            batch += chance.choices(self.sent[site], k=2)
            chance.shuffle(batch)
        self._apply(site.other, batch)

    @rule(site=st.sampled_from(Site))
    def worker_starts_again(self, site: Site) -> None:
        self._run(self._place(site).applier.prepare())

    def _key(self, site: Site, number: int) -> str:
        if not self.once:
            return self.keys[number]
        key = next(each for each in self.keys if (site, each) not in self.written)
        self.written.add((site, key))
        return key

    def _apply(self, site: Site, batch: list[Change]) -> None:
        if not batch:
            return
        place = self._place(site)
        before = len(self._run(place.outcomes()))
        expected = self.models[site].receives(batch)
        self._run(place.apply(*batch))
        logged = self._run(place.outcomes())[before:]
        assert sorted(logged) == sorted(each.value for each in expected)

    def teardown(self) -> None:
        for site in Site:
            chance = random.Random(len(self.sent[site]))
            rest = self.waiting[site]
            if not self.once:
                chance.shuffle(rest)
            self._apply(site.other, rest)
        self._run(self.two.must_agree("notes"))
        everything = [change for changes in self.sent.values() for change in changes]
        ledger = self._run(self.two.external.ledger())
        known = {(table, key): Stamp(version, site) for table, key, version, site, _ in ledger}
        assert known == {entity: c.stamp for entity, c in newest(everything).items()}
        rows = self._run(self.two.external.run("select id::text, body from notes"))
        kept = [c for c in newest(everything).values() if c.image is not None]
        assert dict(rows) == {c.entity_id: json.loads(c.image or b"")["body"] for c in kept}


@pytest.fixture(
    params=[(0, False), (3, False), (-3, False), (3, True)],
    ids=["clocks alike", "ahead", "behind", "ahead, each once"],
)
def machine(
    clusters: dict[Site, Cluster], request: pytest.FixtureRequest
) -> Iterator[type[TwoSites]]:
    """Two databases for all runs; one of them with its clock ahead, or behind."""
    loop = asyncio.new_event_loop()
    stack = AsyncExitStack()
    with made_pair(clusters) as pair:
        opened = stack.enter_async_context(two_places(with_least_rights(pair), NOTES, SETUP))
        two = loop.run_until_complete(opened)
        seconds, once = request.param
        loop.run_until_complete(skew(two.external, seconds))
        yield type("Machine", (TwoSites,), {"loop": loop, "two": two, "once": once})
        loop.run_until_complete(stack.aclose())
    loop.close()


def test_sites_agree_on_the_greatest_write_whatever_arrives_when(machine: type[TwoSites]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=10,
            stateful_step_count=25,
            suppress_health_check=list(HealthCheck),
        ),
    )


async def until_waiting(place: Place, arriving: asyncio.Task[None]) -> None:
    """Wait until ftstream waits for a lock there, or has given way already."""
    waiting = (
        "select count(*) > 0 from pg_stat_activity"
        " where datname = current_database() and application_name = 'ftstream'"
        " and wait_event_type = 'Lock'"
    )
    while not arriving.done() and await place.run(waiting) != [(True,)]:
        await asyncio.sleep(0.01)


async def applied(place: Place, change: Change) -> None:
    """Try as a worker does, until the change is in the database."""
    while True:
        try:
            return await place.apply(change)
        except ApplyFailed as error:
            assert error.failure.policy is Policy.WAIT
            assert set(error.entities) == {change.entity}


RACES: dict[str, list[str | None]] = {
    "an insert": ["new"],
    "a delete": [None],
    "a delete and an insert": [None, "new"],
    "an update": ["changed"],
}


@pytest.mark.parametrize("incoming", ["update", "delete"])
@pytest.mark.parametrize("race", RACES)
async def test_change_that_meets_a_write_that_is_not_committed_yet(
    pair: Pair, two: Two, race: str, incoming: str
) -> None:
    """It waits, sees what was committed meanwhile, and gives way to whoever has waited longer."""
    external, supabase = two.both
    if race != "an insert":
        await write(external, ONE, "old")
        await two.exchange()
    async with await pair.connect(Site.SUPABASE) as connection:
        user = replace(supabase, user=connection)
        async with connection.transaction():
            for body in RACES[race]:
                await write(user, ONE, body)
            await write(external, ONE, "theirs")
            if incoming == "delete":
                await write(external, ONE, None)
            *_, change = await external.captured()
            arriving = asyncio.create_task(applied(supabase, change))
            await until_waiting(supabase, arriving)
        await arriving
    await two.exchange()
    await two.must_agree("notes")


async def test_ftstream_gives_way_and_never_a_user(pair: Pair, two: Two) -> None:
    """A deadlock, were nobody to give way: each holds the row that the other wants."""
    external, supabase = two.both
    first, second = IDS[:2]
    for key in (first, second):
        await write(external, key, "old")
    await two.exchange()
    async with await pair.connect(Site.SUPABASE) as connection:
        user = replace(supabase, user=connection)
        async with connection.transaction():
            await write(user, second, "mine")
            for key in (first, second):
                await write(external, key, "theirs")
            arriving = asyncio.create_task(supabase.apply(*await external.captured()))
            await until_waiting(supabase, arriving)
            await write(user, first, "mine, too")
    with pytest.raises(ApplyFailed) as given_way:
        await arriving
    assert given_way.value.failure.sqlstate == "55P03"


async def test_table_that_is_locked_is_waited_for_as_a_whole(pair: Pair, two: Two) -> None:
    external, supabase = two.both
    await write(external, ONE, "new")
    async with await pair.connect(Site.SUPABASE) as user, user.transaction():
        await user.execute("lock table notes")
        with pytest.raises(ApplyFailed) as waiting:
            await supabase.apply(*await external.captured())
    assert waiting.value.failure.policy is Policy.WAIT
    assert not waiting.value.entities


async def test_version_from_the_future_still_wins_and_somebody_is_told(two: Two) -> None:
    external, supabase = two.both
    await skew(external, 60)
    await write(external, ONE, "from the future")
    await write(supabase, ONE, "of today")
    await two.exchange()
    await two.must_agree("notes")
    assert [row[1] for row in await supabase.run("select * from notes")] == ["from the future"]
    (told,) = supabase.told
    assert told.kind == "clock_ahead" and 55 < float(str(told.metadata["seconds"])) <= 60
    # Who has seen it writes a later one, whatever the clock says.
    await write(supabase, ONE, "seen it")
    await two.exchange()
    await two.must_agree("notes")
    assert [row[1] for row in await external.run("select * from notes")] == ["seen it"]


CONFLICTS: dict[str, tuple[str | None, str | None, str]] = {
    "two updates": ("a", "b", "conflict_update_update"),
    "a delete that loses": (None, "b", "conflict_delete_update"),
    "a delete that wins": ("a", None, "conflict_update_delete"),
    "two deletes": (None, None, "superseded"),
}


@pytest.mark.parametrize("case", CONFLICTS)
async def test_conflict_is_told_where_the_loser_arrives_and_its_words_are_kept(
    two: Two, case: str
) -> None:
    first, second, outcome = CONFLICTS[case]
    external, supabase = two.both
    await write(external, ONE, "old")
    await two.exchange()
    await write(external, ONE, first)
    await write(supabase, ONE, second)  # later: it wins
    await two.exchange()
    await two.must_agree("notes")
    assert await external.outcomes() == ["applied"]
    assert await supabase.outcomes() == ["applied", outcome]
    if first is not None:
        kept = "select change->'row'->>'body' from ftstream.sync_log where outcome::text = %s"
        assert await supabase.run(kept, outcome) == [(first,)]


async def test_two_inserts_of_one_id_conflict(two: Two) -> None:
    await write(two.external, ONE, "a")
    await write(two.supabase, ONE, "b")
    await two.exchange()
    await two.must_agree("notes")
    assert await two.supabase.outcomes() == ["conflict_insert_insert"]


async def test_edit_of_what_was_seen_is_no_conflict_however_often_it_comes(two: Two) -> None:
    external, supabase = two.both
    await write(external, ONE, "a")
    seen = await external.captured()
    await supabase.apply(*seen)
    await write(supabase, ONE, "b")
    await two.exchange()
    await supabase.apply(*seen)  # Connect was killed, and sends it again
    assert await supabase.outcomes() == ["applied", "duplicate"]
    await two.must_agree("notes")


async def test_stale_repetition_takes_no_newer_change_out_of_the_parked_ones(two: Two) -> None:
    """A worker that was cut off may send an old change when its link returns."""
    external, supabase = two.both
    await write(external, ONE, "old")
    await write(external, ONE, "new")
    old, new = await external.captured()
    held = classify("55P03", "held by a user")
    await supabase.applier.apply(Batch((new,), FromLog()).parking({("notes", ONE): held}))
    await supabase.applier.apply(Batch((old,), FromLog()).settling(frozenset({("notes", ONE)})))
    waiting = "select kafka_offset from ftstream.parked_change"
    assert await supabase.run(waiting) == [(new.offset,)]
    await supabase.applier.apply(Batch((new,), FromParked()))
    await supabase.applier.apply(Batch((old,), FromLog()))
    await two.must_agree("notes")
