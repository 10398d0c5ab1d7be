"""What cannot stand at the other site waits or is refused; whatever happens, these promises hold."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.two_writers import World

RUNS = int(os.environ.get("FTSTREAM_MODEL_RUNS", "10"))
SKEWS = (0, 3, -3, 50, -50, 1000, -1000)


def must_agree(world: World) -> None:
    external, supabase = world.places
    assert external.rows == supabase.rows
    assert {n: last.stamp for n, last in external.last.items() if last.stamp.version} == {
        n: last.stamp for n, last in supabase.last.items() if last.stamp.version
    }
    assert not external.parked and not supabase.parked
    for number, row in external.rows.items():
        committed = world.images[number]
        assert row in committed or row in {c and c._replace(parent=None) for c in committed}


@pytest.mark.parametrize("mode", ["one", "disjoint"])
@pytest.mark.parametrize("skew", SKEWS)
def test_rows_that_one_site_alone_writes_end_as_it_left_them(mode: str, skew: int) -> None:
    for seed in range(RUNS):
        world = World(seed, mode, skew)
        world.run()
        must_agree(world)
        assert {n: world.places[0].rows.get(n) for n in world.left} == world.left, seed
        assert not world.counts["refused"]


@pytest.mark.parametrize("skew", SKEWS)
def test_sites_that_fight_over_few_values_end_equal(skew: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(RUNS):
        world = World(seed, "both", skew)
        world.run()
        must_agree(world)
        counts += world.counts
    assert counts["refused"] and counts["rows taken back"]
    print(f"skew {skew}, {RUNS} runs: {dict(counts)}")


@pytest.mark.parametrize("skew", SKEWS)
def test_a_fight_leaves_rows_alone_that_have_no_part_in_it(skew: int) -> None:
    apart = 0
    for seed in range(RUNS):
        world = World(seed, "both", skew, rows=20, values=400)
        world.run()
        must_agree(world)
        for number in world.left.keys() - world.contested():
            apart += 1
            assert world.places[0].rows.get(number) == world.left[number], seed
    assert apart
