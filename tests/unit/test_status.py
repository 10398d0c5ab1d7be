"""`ftstream status`: what it makes of what was seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ftstream.cli.status import DirectionStatus, Looked, told
from ftstream.compare.progress import Standing
from ftstream.flows import Site

STANDING = Standing("gfx", Site.SUPABASE, captures=True, to_capture=0, to_apply=0)
DONE = DirectionStatus("gfx", Site.SUPABASE, STANDING, parked=0, dead=0)


@pytest.mark.parametrize(
    ("direction", "said"),
    [
        (replace(DONE, standing=replace(STANDING, to_capture=2)), "2 changes to publish"),
        (
            replace(DONE, standing=replace(STANDING, to_apply=3), parked=1),
            "3 records to apply, 1 parked",
        ),
        (replace(DONE, standing=replace(STANDING, captures=False)), "the connector is not running"),
        (replace(DONE, standing=replace(STANDING, log_bytes=7)), "7 bytes of log to capture"),
        (replace(DONE, dead=4), "4 dead (`ftstream dead list`)"),
        (replace(DONE, standing=None, parked=5), "how far it is cannot be seen, 5 parked"),
        (replace(DONE, parked=None, dead=None), "parked changes cannot be seen"),
    ],
)
def test_whatever_is_not_applied_is_told_and_fails(direction: DirectionStatus, said: str) -> None:
    assert not direction.applied and told(direction).startswith(said)
    assert not Looked([DONE, direction]).applied


def test_nothing_left_to_do_is_success_only_if_everything_could_be_seen() -> None:
    assert told(DONE) == "everything captured is applied"
    assert Looked([DONE]).applied
    assert not Looked([DONE], problems=[OSError()]).applied
