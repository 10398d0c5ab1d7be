"""Everything that can fail fails, in random order, for as long as one likes: `make soak`.

FTSTREAM_SOAK_SEED repeats a run's order of faults; FTSTREAM_SOAK_SECONDS makes it shorter or longer;
FTSTREAM_SOAK_FAULTS is a regular expression for those that are to happen, FTSTREAM_SOAK_RATE how many changes
people and games make in a second: proxies, people and all services share the machine.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator

import pytest

from ftstream.local.demo.rig import Rig
from tests.soak.claims import Claims, false_words
from tests.system.faults import FAULTS, HEADING, World, world_of

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

SEED = int(os.environ.get("FTSTREAM_SOAK_SEED", random.randrange(10**6)))
SECONDS = float(os.environ.get("FTSTREAM_SOAK_SECONDS", "1200"))
CHOSEN = [f for f in FAULTS if re.search(os.environ.get("FTSTREAM_SOAK_FAULTS", ""), f)]
RATE = float(os.environ.get("FTSTREAM_SOAK_RATE", "100"))
LONGEST = 20.0
"""Seconds that a fault lasts at most."""
LONGER = {"workers come and go": 180.0}


@pytest.fixture(scope="module")
def world(rig: Rig) -> Iterator[World]:
    with world_of(rig) as world:
        yield world


def test_each_change_is_applied_once_whatever_fails(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    with capsys.disabled():
        print(f"\nseed {SEED}, {SECONDS:.0f} s\n{HEADING}")
    outcomes = []
    end = time.monotonic() + SECONDS
    with Claims(world.scene) as claims:
        while time.monotonic() < end:
            faults = list(CHOSEN)
            chance.shuffle(faults)
            while faults and time.monotonic() < end:
                fault = faults.pop()
                lasts = chance.uniform(1, LONGER.get(fault, LONGEST))
                outcomes.append(world.suffer(lasts, fault, rate=RATE))
                with capsys.disabled():
                    print(outcomes[-1], flush=True)
    with capsys.disabled():
        print(f"{len(outcomes)} faults, {sum(each.sent for each in outcomes)} changes")
        print(
            f"`status` asked {claims.asked} times, {claims.applied} times said that all is applied"
        )
    assert [each for each in outcomes if each.lost or each.doubled] == []
    assert claims.applied and claims.false == []
    assert false_words(world.scene) == []
    for worker in world.workers:
        assert worker.process.poll() is None, f"seed {SEED}\n{worker.log}"
