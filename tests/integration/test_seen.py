"""What an agent has seen changes nothing: outcomes and rows are the same, whatever it says."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from ftstream.apply.merge import Batch, FromLog, Span
from ftstream.apply.offsets import Offsets
from ftstream.apply.sites import ApplyFailed
from ftstream.failures import Policy, classify
from ftstream.flows import Site
from ftstream.kafka.partition import Partition
from ftstream.last_write.rule import newest
from ftstream.last_write.seen import SeenWrite, losers
from ftstream.messages.change import Change, Entity
from tests.integration.conftest import Pair
from tests.integration.test_outbox import NOTES
from tests.integration.test_register import (
    ONE,
    SETUP,
    TwoSites,
    machine,
    write,
)
from tests.integration.two_way import Place, Two, two_places

__all__ = ["machine"]


@pytest.fixture
async def two(least: Pair) -> AsyncIterator[Two]:
    async with two_places(least, NOTES, SETUP) as two:
        yield two


def entity_of(change: Change) -> Entity:
    return change.table, change.entity_id


def seen_in(change: Change) -> SeenWrite:
    return SeenWrite(change.version, change.site, change.topic, change.partition, change.offset)


async def as_records(place: Place, *changes: Change) -> Batch:
    """The changes as the next records of their partition: where it is applied is where they begin."""
    at = Partition(f"{place.site.other}.notes", 0)
    begin = (await Offsets(place.sites).applied({at}))[at].next
    numbered = tuple(
        msgspec.structs.replace(change, topic=at.topic, partition=at.partition, offset=offset)
        for offset, change in enumerate(changes, begin)
    )
    return Batch(numbered, FromLog((Span(at, begin, begin + len(numbered), None),)))


async def arrive(place: Place, *changes: Change) -> tuple[Change, ...]:
    batch = await as_records(place, *changes)
    await place.applier.apply(batch)
    return batch.changes


@dataclass
class Account:
    """What a site's agent has read, in order, applied or not."""

    changes: list[Change] = field(default_factory=list)

    def right(self) -> dict[Entity, SeenWrite]:
        found: dict[Entity, SeenWrite] = {}
        for change in self.changes:
            known = found.get(entity_of(change))
            if known is None or change.stamp > known.stamp:
                found[entity_of(change)] = seen_in(change)
        return found

    def stale(self, chance: random.Random) -> dict[Entity, SeenWrite]:
        return Account(self.changes[: chance.randint(0, len(self.changes))]).right()

    def made_up(self, chance: random.Random) -> dict[Entity, SeenWrite]:
        """Greater than everything, in records that are applied."""
        return {
            entity: SeenWrite(seen.version + chance.choice([1, 10**9]), seen.site, *seen.at, 0)
            for entity, seen in self.right().items()
        }


class WithTable(TwoSites):
    """As the other machine, where the model says what is to be logged; and something was seen."""

    losers: ClassVar[list[Entity]]
    """Of which something that was seen said that they have lost."""

    def __init__(self) -> None:
        self.accounts = {site: Account() for site in Site}
        self.chance = random.Random(1)
        super().__init__()

    def _apply(self, site: Site, batch: list[Change]) -> None:
        if not batch:
            return
        place, account = self._place(site), self.accounts[site]
        records = self._run(as_records(place, *batch))
        kind = self.chance.choice(("nothing", "right", "ahead", "stale", "made up"))
        applied = Account([*account.changes])
        account.changes += records.changes  # read, before it is applied
        place.seen.clear()
        match kind:
            case "right":
                place.seen.update(applied.right())
            case "ahead":
                place.seen.update(account.right())
            case "stale":
                place.seen.update(applied.stale(self.chance))
            case "made up":
                place.seen.update(account.made_up(self.chance))
        self.losers.extend(losers(records.begins, newest(records.changes), place.seen.get))
        before = len(self._run(place.outcomes()))
        expected = self.models[site].receives(list(records.changes))
        self._run(place.applier.apply(records))
        logged = self._run(place.outcomes())[before:]
        assert sorted(logged) == sorted(each.value for each in expected)


def test_outcomes_and_rows_are_the_same_whatever_was_seen(machine: type[TwoSites]) -> None:
    found: list[Entity] = []
    members: dict[str, Any] = {"loop": machine.loop, "two": machine.two, "once": machine.once}
    run_state_machine_as_test(
        type("Machine", (WithTable,), members | {"losers": found}),
        settings=settings(
            max_examples=10,
            stateful_step_count=25,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert found


async def lost_twice(two: Two) -> tuple[Change, Change]:
    """Two writes of External, both applied on Supabase."""
    external, supabase = two.both
    await write(external, ONE, "old")
    await write(external, ONE, "new")
    old, new = await external.captured()
    old, new = await arrive(supabase, old, new)
    return old, new


async def while_held(pair: Pair, place: Place, change: Change) -> None:
    """Have the change arrive while a user holds its row."""
    async with await pair.connect(place.site) as connection, connection.transaction():
        await connection.execute("select from notes where id = %s for update", [ONE])
        await arrive(place, change)


async def test_change_that_was_seen_to_lose_waits_for_nobody(pair: Pair, two: Two) -> None:
    supabase = two.supabase
    old, new = await lost_twice(two)
    with pytest.raises(ApplyFailed) as waiting:
        await while_held(pair, supabase, old)
    assert waiting.value.failure.policy is Policy.WAIT
    supabase.seen[entity_of(new)] = seen_in(new)
    await while_held(pair, supabase, old)
    assert sorted(await supabase.outcomes()) == ["applied", "duplicate", "superseded"]
    await two.must_agree("notes")


async def test_change_after_a_loser_that_was_passed_by_is_judged_as_ever(two: Two) -> None:
    """The ledger is what it would have been, but for what the next change overwrites."""
    external, supabase = two.both
    old, new = await lost_twice(two)
    supabase.seen[entity_of(new)] = seen_in(new)
    await arrive(supabase, old)
    await write(supabase, ONE, "mine")
    await write(external, ONE, "theirs")
    await arrive(supabase, old, *await external.captured())
    await external.apply(*await supabase.captured())
    expected = ["applied", "applied", "duplicate", "duplicate", "superseded"]
    assert sorted(await supabase.outcomes()) == expected
    await two.must_agree("notes")


async def test_greater_write_that_is_parked_makes_no_loser(two: Two) -> None:
    """Its record is behind the applied offset, and the row does not show it."""
    external, supabase = two.both
    await write(external, ONE, "old")
    await write(external, ONE, "new")
    old, new = await external.captured()
    batch = await as_records(supabase, new)
    held = classify("55P03", "held by a user")
    await supabase.applier.apply(batch.parking({entity_of(new): held}))
    supabase.seen[entity_of(new)] = seen_in(batch.changes[0])
    await arrive(supabase, old)
    assert await supabase.outcomes() == ["parked", "applied"]
    assert [row[1] for row in await supabase.run("select * from notes")] == ["old"]


async def test_row_that_waits_beside_a_loser_waits_as_ever(pair: Pair, two: Two) -> None:
    external, supabase = two.both
    old, new = await lost_twice(two)
    supabase.seen[entity_of(new)] = seen_in(new)
    other = ONE.replace("1", "2")
    await write(external, other, "first")
    (first,) = await external.captured()
    await arrive(supabase, first)
    await write(external, other, "second")
    (second,) = await external.captured()
    async with await pair.connect(Site.SUPABASE) as user, user.transaction():
        await user.execute("select from notes where id = %s for update", [other])
        with pytest.raises(ApplyFailed) as waiting:
            await arrive(supabase, old, second)
    assert set(waiting.value.entities) == {("notes", other)}
    await arrive(supabase, old, second)
    await two.must_agree("notes")
