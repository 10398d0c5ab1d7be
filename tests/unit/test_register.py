"""The last-writer-wins register by itself: whatever arrives when, both sites end with the greatest write."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ftstream.last_write.rule import newest
from ftstream.messages.change import Change, Operation, Refusal, Stamp
from ftstream.outcomes import Outcome
from tests.register import LastWrite, arrived, prevails, refused, written

SITES = ("external", "supabase")
CONFLICTS = {outcome for outcome in Outcome if outcome.value.startswith("conflict_")}


def change(stamp: Stamp, operation: Operation, offset: int) -> Change:
    image = None if operation is Operation.DELETE else b'{"id":"1"}'
    return Change(
        "notes",
        "1",
        operation,
        image,
        False,
        f"{stamp.site}.notes",
        0,
        offset,
        None,
        None,
        version=stamp.version,
        site=stamp.site,
    )


class Site:
    """What one site knows of an entity, and which write its row shows."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.last: LastWrite | None = None
        self.row: Stamp | None = None
        self.seen: set[Stamp] = set()
        self.known: dict[Stamp, frozenset[Stamp]] = {}

    def write(self, clock: int, operation: Operation, offset: int) -> Change:
        self.last = written(self.last, operation, clock, self.name)
        self.row = self.last.stamp
        self.known[self.row] = frozenset(self.seen)
        return change(self.row, operation, offset)

    def receive(self, incoming: Change) -> Outcome:
        self.last, outcome, effect = arrived(self.last, incoming)
        if effect:
            self.row = incoming.stamp
        self.seen.add(incoming.stamp)
        return outcome


STEPS = st.lists(
    st.tuples(
        st.sampled_from(SITES),
        st.integers(0, 12),  # clocks that stand still, jump and go back
        st.sampled_from((Operation.UPDATE, Operation.DELETE, Operation.INSERT)),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=25,
)


@given(STEPS, st.integers(0, 999))
def test_both_sites_end_with_the_greatest_write(
    steps: list[tuple[str, int, Operation, int]], seed: int
) -> None:
    chance = random.Random(seed)
    sites = {name: Site(name) for name in SITES}
    sent: dict[str, list[Change]] = {name: [] for name in SITES}
    waiting: dict[str, list[Change]] = {name: [] for name in SITES}
    for offset, (name, clock, operation, arrivals) in enumerate(steps):
        made = sites[name].write(clock, operation, offset)
        assert all(made.version > other.version for other in sent[name])
        sent[name].append(made)
        waiting[name].append(made)
        for _ in range(arrivals):
            origin = chance.choice(SITES)
            pool = sent[origin] if chance.random() < 0.3 else waiting[origin]
            if pool:
                sites[_other(origin)].receive(chance.choice(pool))
    for name in SITES:
        rest = [*sent[name]]
        chance.shuffle(rest)
        for each in rest:
            sites[_other(name)].receive(each)
    greatest = newest([*sent["external"], *sent["supabase"]])["notes", "1"]
    for site in sites.values():
        assert site.last is not None
        assert site.last.stamp == site.row == greatest.stamp


@given(STEPS, st.integers(0, 999))
def test_a_conflict_is_a_loss_to_a_write_that_did_not_know_of_it(
    steps: list[tuple[str, int, Operation, int]], seed: int
) -> None:
    """Changes come in order here, as Kafka has them, and may come again."""
    chance = random.Random(seed)
    sites = {name: Site(name) for name in SITES}
    sent: dict[str, list[Change]] = {name: [] for name in SITES}
    arrived_of = dict.fromkeys(SITES, 0)
    for offset, (name, clock, operation, arrivals) in enumerate(steps):
        sent[name].append(sites[name].write(clock, operation, offset))
        for _ in range(arrivals):
            origin = chance.choice(SITES)
            again = chance.random() < 0.3 and arrived_of[origin]
            at = chance.randrange(arrived_of[origin]) if again else arrived_of[origin]
            if at >= len(sent[origin]):
                continue
            arrived_of[origin] = max(arrived_of[origin], at + 1)
            here, incoming = sites[_other(origin)], sent[origin][at]
            outcome = here.receive(incoming)
            assert here.last is not None
            if outcome in CONFLICTS:
                assert not again
                winner = here.last.stamp
                assert winner.site == here.name
                assert incoming.stamp not in here.known[winner]
            if again:
                assert outcome in (Outcome.DUPLICATE, Outcome.APPLIED, Outcome.SUPERSEDED)


def _other(name: str) -> str:
    return SITES[1 - SITES.index(name)]


def test_same_version_on_both_sites_is_supabase_s() -> None:
    assert Stamp(5, "supabase") > Stamp(5, "external")
    assert Stamp(6, "external") > Stamp(5, "supabase")


def test_refusal_takes_the_place_of_the_write_that_it_is_over_and_of_no_other() -> None:
    over, stamp = Stamp(7, "supabase"), Stamp(8, "supabase")
    refusal = msgspec.structs.replace(
        change(stamp, Operation.UPDATE, 1), refusal=Refusal(over, Stamp(3, "external"), "")
    )
    last = LastWrite(over, Operation.INSERT)
    assert arrived(last, refusal)[0].stamp == stamp
    for other in (Stamp(8, "supabase"), Stamp(9, "external"), Stamp(6, "supabase")):
        known = LastWrite(other, Operation.UPDATE)
        assert arrived(known, refusal) == (known, Outcome.SUPERSEDED, False)
    assert not prevails(None, refusal)


def test_write_that_was_refused_comes_too_late_and_later_ones_here_are_greater() -> None:
    known = refused(None, Stamp(7, "supabase"), Stamp(8, "supabase"), "external")
    assert not prevails(known, change(Stamp(7, "supabase"), Operation.INSERT, 1))
    assert prevails(known, change(Stamp(8, "supabase"), Operation.UPDATE, 1))
    assert written(known, Operation.INSERT, 5, "external").stamp == Stamp(9, "external")
