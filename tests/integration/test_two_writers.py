"""People move unique values and references about on two real databases, as in tests/two_writers.py."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from ftstream.flows import CUE_SHEETS, Site
from ftstream.messages.change import Change
from tests.integration.conftest import Cluster, as_ftstream, made_pair, with_least_rights
from tests.integration.test_references import SESSION, add_session
from tests.integration.test_register import skew
from tests.integration.two_way import Place, Two, Worker, two_places

EXAMPLES = int(os.environ.get("FTSTREAM_EXAMPLES", "8"))
ROWS, VALUES = 5, 8
KEYS = [str(uuid.UUID(int=number)) for number in range(ROWS + 4)]


class Row(NamedTuple):
    """A row: two unique values, and the row that it refers to."""

    a: int
    b: int
    parent: str | None = None


Rows = Mapping[str, Row | None]


class People(RuleBasedStateMachine):
    """Rules are what may happen; at the end everything arrives, and both sites are compared."""

    loop: asyncio.AbstractEventLoop
    two: Two
    sites: tuple[Site, ...]
    """Those at which people write."""
    totals: Counter[str]
    capture: str
    """The function that notes a write, with a clock that is right."""

    def __init__(self) -> None:
        super().__init__()
        self.places = {place.site: place for place in self.two.both}
        self.workers = {site: Worker(place, CUE_SHEETS) for site, place in self.places.items()}
        self.on_the_way: dict[Site, dict[str, deque[Change]]] = {
            site: defaultdict(deque) for site in Site
        }
        self.offsets: Counter[Site] = Counter()
        self.committed: dict[str, set[Row | None]] = {key: {None} for key in KEYS}
        self.left: dict[str, Row | None] = {}

    def _run(self, step: Any) -> Any:
        return self.loop.run_until_complete(step)

    @initialize(ahead=st.sampled_from((0, 60, -60)))
    def begin(self, ahead: int) -> None:
        self._run(self._empty())
        self._run(self.two.external.user.execute(self.capture))
        self._run(skew(self.two.external, ahead))
        place = self.places[self.sites[0]]
        for number, key in enumerate(KEYS[:ROWS]):
            self._write(place, [{key: Row(number, number)}])
        self._settle()

    async def _empty(self) -> None:
        for place in self.places.values():
            async with place.user.transaction():
                async with as_ftstream(place.user, place.settings, place.site):
                    await place.run("delete from cue_sheets")
                await place.run("delete from ftstream.last_write")
                await place.run("delete from ftstream.parked_change")
                await place.run("delete from ftstream.sync_log")
            await place.captured()

    # -- what people do, each in one transaction

    @rule(site=st.integers(0, 1), seed=st.integers(0, 999), cycle=st.booleans())
    def people_swap(self, site: int, seed: int, cycle: bool) -> None:
        place, chance = self._somebody(site, seed)
        here = self._run(self._rows(place))
        if len(here) < 3:
            return
        ring = chance.sample(sorted(here), 3 if cycle else 2)
        column = chance.choice("ab")
        values = [getattr(here[key], column) for key in ring]
        away = {key: here[key]._replace(**{column: -1 - n}) for n, key in enumerate(ring[1:])}
        moved = {
            key: here[key]._replace(**{column: value})
            for key, value in zip(ring, values[1:] + values[:1], strict=True)
        }
        self._write(place, [{k: r} for k, r in (*away.items(), *moved.items())])

    @rule(site=st.integers(0, 1), seed=st.integers(0, 999))
    def somebody_moves_a_row(self, site: int, seed: int) -> None:
        place, chance = self._somebody(site, seed)
        here = self._run(self._rows(place))
        if here:
            key, column = chance.choice(sorted(here)), chance.choice("ab")
            row = here[key]._replace(**{column: chance.randrange(VALUES)})
            self._write(place, [{key: row}])

    @rule(site=st.integers(0, 1), seed=st.integers(0, 999))
    def somebody_inserts(self, site: int, seed: int) -> None:
        place, chance = self._somebody(site, seed)
        here = self._run(self._rows(place))
        parent = chance.choice([None, None, *sorted(here)])
        row = Row(chance.randrange(VALUES), chance.randrange(VALUES), parent)
        if new := [key for key in KEYS if key not in here]:
            self._write(place, [{chance.choice(new): row}])

    @rule(site=st.integers(0, 1), seed=st.integers(0, 999))
    def a_new_row_takes_the_place_of_one_that_refers_to_it(self, site: int, seed: int) -> None:
        place, chance = self._somebody(site, seed)
        here = self._run(self._rows(place))
        new = [key for key in KEYS if key not in here]
        if here and new:
            comer, mover = chance.choice(new), chance.choice(sorted(here))
            away = here[mover]._replace(a=chance.randrange(VALUES))
            row = Row(here[mover].a, chance.randrange(VALUES))
            self._write(place, [{mover: away}, {comer: row}, {mover: away._replace(parent=comer)}])

    @rule(site=st.integers(0, 1), seed=st.integers(0, 999))
    def somebody_deletes(self, site: int, seed: int) -> None:
        place, chance = self._somebody(site, seed)
        if here := sorted(self._run(self._rows(place))):
            self._write(place, [{chance.choice(here): None}])

    @rule(site=st.integers(0, 1), seed=st.integers(0, 999))
    def somebody_refers(self, site: int, seed: int) -> None:
        place, chance = self._somebody(site, seed)
        here = self._run(self._rows(place))
        if here:
            key = chance.choice(sorted(here))
            parent = chance.choice([None, *(k for k in sorted(here) if k != key)])
            self._write(place, [{key: here[key]._replace(parent=parent)}])

    # -- what happens to changes

    @rule(site=st.sampled_from(Site), seed=st.integers(0, 999), count=st.integers(1, 5))
    def changes_arrive(self, site: Site, seed: int, count: int) -> None:
        """Of any rows, each row's in order; and again, where Connect was killed."""
        self._capture()
        chance, queues = random.Random(seed), self.on_the_way[site]
        for _ in range(count):
            if waiting := sorted(key for key, queue in queues.items() if queue):
                queue = queues[chance.choice(waiting)]
                change = queue.popleft()
                if chance.random() < 0.1:
                    queue.appendleft(change)
                self._run(self._arrive(site, change))

    @rule(site=st.sampled_from(Site))
    def parked_changes_are_tried(self, site: Site) -> None:
        self._run(self.workers[site].retry())

    @rule(site=st.sampled_from(Site))
    def worker_is_killed(self, site: Site) -> None:
        self.workers[site].start()
        self._run(self.places[site].applier.prepare())

    async def _arrive(self, site: Site, change: Change) -> None:
        self.offsets[site] += 1
        record = msgspec.structs.replace(change, offset=self.offsets[site])
        await self.workers[site.other].apply(record)

    def _capture(self) -> None:
        for site, place in self.places.items():
            for change in self._run(place.captured()):
                self.on_the_way[site][change.entity_id].append(change)

    # -- the promises

    def teardown(self) -> None:
        self._settle()
        self._run(self.two.must_agree("cue_sheets"))
        waiting = {site: self._run(worker.parked()) for site, worker in self.workers.items()}
        assert not any(waiting.values()), waiting
        rows = self._run(self._rows(self.two.external))
        for key, row in rows.items():
            spared = {each and each._replace(parent=None) for each in self.committed[key]}
            assert row in self.committed[key] or row in spared
        outcomes = Counter(self._run(self.two.external.outcomes()))
        outcomes += Counter(self._run(self.two.supabase.outcomes()))
        self.totals += outcomes
        if len(self.sites) == 1:
            assert not outcomes["refused"]
            assert {key: rows.get(key) for key in self.left} == self.left

    def _settle(self) -> None:
        for _ in range(200):
            self._capture()
            moved = False
            for site, queues in self.on_the_way.items():
                for queue in queues.values():
                    while queue:
                        moved = True
                        self._run(self._arrive(site, queue.popleft()))
            for worker in self.workers.values():
                moved |= self._run(worker.retry())
            self._capture()
            if not moved and not any(any(q.values()) for q in self.on_the_way.values()):
                return
        raise AssertionError("it goes on for ever")

    # -- how

    def _somebody(self, site: int, seed: int) -> tuple[Place, random.Random]:
        return self.places[self.sites[site % len(self.sites)]], random.Random(seed)

    async def _rows(self, place: Place) -> dict[str, Row]:
        found = await place.run(
            "select id::text, sheet_order, sheet_code::int, parent_version_id::text from cue_sheets"
        )
        return {key: Row(a, b, parent) for key, a, b, parent in found}

    def _write(self, place: Place, steps: list[Rows]) -> None:
        if self._run(self._committed(place, steps)):
            for step in steps:
                self.left |= step
            for key in {key for step in steps for key in step}:
                self.committed[key].add(self.left[key])

    async def _committed(self, place: Place, steps: list[Rows]) -> bool:
        """Whether the transaction was committed; else its author was told at once."""
        try:
            async with place.user.transaction():
                for key, row in ((key, row) for step in steps for key, row in step.items()):
                    if row is None:
                        await place.run("delete from cue_sheets where id = %s", key)
                    else:
                        await place.run(
                            "insert into cue_sheets (id, session_id, sheet_name, created_by,"
                            "  sheet_order, sheet_code, parent_version_id)"
                            " values (%s, %s, 'name', 'kim', %s, %s, %s) on conflict (id) do update"
                            " set sheet_order = excluded.sheet_order, sheet_code = excluded.sheet_code,"
                            "     parent_version_id = excluded.parent_version_id",
                            key,
                            SESSION,
                            row.a,
                            str(row.b),
                            row.parent,
                        )
        except (psycopg.errors.UniqueViolation, psycopg.errors.ForeignKeyViolation):
            return False
        return True


@pytest.fixture(params=["external alone", "supabase alone", "both"])
def machine(
    clusters: dict[Site, Cluster], request: pytest.FixtureRequest
) -> Iterator[type[People]]:
    """Two databases for all runs."""
    loop = asyncio.new_event_loop()
    stack = AsyncExitStack()
    with made_pair(clusters) as pair:
        opened = stack.enter_async_context(two_places(with_least_rights(pair), CUE_SHEETS))
        two = loop.run_until_complete(opened)
        for place in two.both:
            loop.run_until_complete(add_session(place))
        writing = request.param.removesuffix(" alone")
        sites = tuple(Site) if writing == "both" else (Site(writing),)
        definition = two.external.run(
            "select pg_get_functiondef('ftstream.capture()'::regprocedure)"
        )
        ((capture,),) = loop.run_until_complete(definition)
        about = {
            "loop": loop,
            "two": two,
            "sites": sites,
            "totals": Counter(),
            "capture": capture,
        }
        yield type("Machine", (People,), about)
        loop.run_until_complete(stack.aclose())
    loop.close()


def test_sites_end_equal_and_one_that_writes_alone_is_never_overruled(
    machine: type[People],
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{machine.sites}: {dict(machine.totals)}")
