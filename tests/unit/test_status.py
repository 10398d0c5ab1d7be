"""`ftstream status`: what it makes of what was seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ftstream.cli.status import Looked, told
from ftstream.flows import Site
from ftstream.progress import Standing

DONE = Standing("gfx", Site.SUPABASE, captures=True, to_capture=0, to_apply=0, parked=0, dead=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"to_capture": 2}, "2 changes to publish"),
        ({"to_apply": 3, "parked": 1}, "3 records to apply, 1 parked"),
        ({"dead": 4}, "4 dead"),
        ({"captures": False}, "the connector is not running (`ftstream connectors status`)"),
    ],
)
def test_whatever_is_not_applied_is_told_and_fails(changes: dict[str, int], said: str) -> None:
    standing = replace(DONE, **changes)  # type: ignore[arg-type]
    assert not standing.applied and told(standing) == said
    assert not Looked(flows=[DONE, standing]).applied


def test_nothing_left_to_do_is_success_only_if_everything_could_be_seen() -> None:
    assert told(DONE) == "everything captured is applied"
    assert Looked(flows=[DONE]).applied
    assert not Looked(flows=[DONE], problems=[OSError()]).applied
