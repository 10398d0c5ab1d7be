"""Each fault once, for a moment, under load: no change is lost, none takes effect twice."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from ftstream.local.demo.rig import Rig
from tests.system.faults import FAULTS, World, world_of

pytestmark = pytest.mark.timeout(600)  # a dozen restarts of servers in a test

SECONDS = 1.0
RATE = 100.0

KINDS = ("killed", "^workers? [^-]|terminated", "frozen", "cut|late|lost", "restarted|changed")
"""Of each kind all that there are, one after another: `make soak` has each by itself, and for longer."""


@pytest.fixture(scope="module")
def world(rig: Rig) -> Iterator[World]:
    with world_of(rig) as world:
        yield world


def of_kind(kind: str) -> list[str]:
    earlier = KINDS[: KINDS.index(kind)]
    return [
        fault
        for fault in FAULTS
        if re.search(kind, fault) and not any(re.search(other, fault) for other in earlier)
    ]


def test_every_fault_is_of_a_kind() -> None:
    assert sorted(fault for kind in KINDS for fault in of_kind(kind)) == sorted(FAULTS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_change_is_lost_or_doubled(world: World, kind: str) -> None:
    outcome = world.suffer(SECONDS, *of_kind(kind), rate=RATE)
    assert outcome.sent
    assert (outcome.lost, outcome.doubled) == (0, 0)
    for worker in world.workers:
        assert worker.process.poll() is None, worker.log
