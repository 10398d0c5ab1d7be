"""Which partitions stand still, though others go on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ftstream.flows import FLOWS, GFX, Names, Site
from ftstream.watch import look
from ftstream.watch.look import Progress
from ftstream.watch.signals import Silent, SiteSignals
from tests.unit.sights import EXTERNAL, SUPABASE

TOPIC = Names(GFX).topics(Site.SUPABASE)[0]
ONE, OTHER = (TOPIC, 0), (TOPIC, 1)


class Clock:
    """Seconds that a test lets pass."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(look, "time", clock)
    return clock


def sites(one: int, other: int) -> dict[Site, SiteSignals | Silent]:
    applied = {ONE: one, OTHER: other}
    return {Site.EXTERNAL: EXTERNAL, Site.SUPABASE: replace(SUPABASE, applied=applied)}


def test_a_partition_that_is_behind_and_does_not_move_is_counted(clock: Clock) -> None:
    progress, ends = Progress(FLOWS, ""), {ONE: 10, OTHER: 10}
    assert progress.stuck(sites(5, 5), ends) == {ONE: 0.0, OTHER: 0.0}
    clock.now += 20
    assert progress.stuck(sites(5, 6), ends) == {ONE: 20.0, OTHER: 0.0}
    clock.now += 20
    assert progress.stuck(sites(5, 10), ends) == {ONE: 40.0}
    assert progress.stuck(sites(10, 10), ends) == {}


def test_of_who_is_silent_nobody_can_tell_and_it_counts_from_its_return(clock: Clock) -> None:
    progress, ends = Progress(FLOWS, ""), {ONE: 10}
    progress.stuck(sites(5, 10), ends)
    clock.now += 60
    away: dict[Site, SiteSignals | Silent] = {**sites(5, 10), Site.SUPABASE: Silent("refused")}
    assert progress.stuck(away, ends) == {}
    assert progress.stuck(sites(5, 10), ends) == {ONE: 0.0}
    clock.now += 60
    assert progress.stuck(sites(5, 10), Silent("no broker")) == {}
    assert progress.stuck(sites(5, 10), ends) == {ONE: 0.0}
