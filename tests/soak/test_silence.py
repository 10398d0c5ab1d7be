"""While everything is restarted in turn, nothing is told that is not so: FTSTREAM_QUIET_SECONDS long."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator

import pytest

from ftstream.flows import GFX, OVERRIDES
from ftstream.local.demo.rig import Rig
from tests.conftest import until
from tests.soak.claims import Claims, false_words
from tests.system.edits import Edits
from tests.system.scene import Scene, set_up

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

SECONDS = float(os.environ.get("FTSTREAM_QUIET_SECONDS", "900"))
SERVICES = ("connect", "kafka", "external", "supabase", "realtime")
PAUSE_SECONDS = 15.0
"""Between two restarts: flows are in step again, and the set-up has been looked at."""


@pytest.fixture
def scene(rig: Rig) -> Iterator[Scene]:
    with set_up(rig, (GFX, OVERRIDES), spoilt=True) as scene:
        yield scene


def test_nothing_false_is_told_while_everything_is_restarted(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = [scene.worker().ready(), scene.worker().ready()]
    end, restarts = time.monotonic() + SECONDS, 0
    with scene.load(rate=100, patient=True), Edits(scene), Claims(scene) as claims:
        for name in itertools.cycle((*SERVICES, "worker")):
            if time.monotonic() > end:
                break
            if name == "worker":
                assert workers.pop(0).stop() == 0
                workers.append(scene.worker().ready())
            else:
                scene.rig.stack.stop(name)
                scene.rig.stack.start(name)
            restarts += 1
            time.sleep(PAUSE_SECONDS)
    scene.must_be_equal()
    told = json.loads(scene.command("notifications", "--all", "--json").stdout)
    kinds = sorted({each["type"] for each in told})
    with capsys.disabled():
        print(
            f"\n{SECONDS:.0f} s, {restarts} restarts; `status` asked {claims.asked} times,"
            f" {claims.applied} times said that all is applied; told: {', '.join(kinds)}"
        )
    assert claims.applied and claims.false == []
    assert false_words(scene) == []
    until(lambda: scene.command("status").returncode == 0, 60)
