"""While everything is restarted in turn, nothing is told that is not so: FTSTREAM_QUIET_SECONDS long."""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections.abc import Iterator
from typing import NamedTuple

import psutil
import pytest

from ftstream.flows import FLOWS
from ftstream.local.demo.rig import Rig
from tests.conftest import until
from tests.soak.claims import Claims, false_words
from tests.system.edits import Edits
from tests.system.receiver import Receiver, Taken
from tests.system.scene import Scene, set_up

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

SECONDS = float(os.environ.get("FTSTREAM_QUIET_SECONDS", "900"))
SERVICES = ("connect", "kafka", "external", "supabase", "realtime")
PAUSE_SECONDS = 15.0
"""Between two restarts: flows are in step again, and the set-up has been looked at."""

OF = {
    "FT101": ("external",),
    "FT102": ("supabase",),
    "FT103": ("kafka",),
    "FT104": ("connect", "kafka"),
    "FT110": ("connect", "kafka", "external"),
    "FT111": ("connect", "external"),
    "FT161": ("realtime", "supabase"),
}
"""What may be told while which of them is restarted: it is so."""

AFTER_SECONDS = 20.0
"""In which whoever depends on it is back, too."""


class Restart(NamedTuple):
    """From when to when something did not run."""

    name: str
    begun: float
    ended: float

    def explains(self, told: Taken) -> bool:
        (code,) = re.findall(r"\[(FT\d+)\]", told.text)
        return self.name in OF.get(code, ()) and self.begun <= told.at <= self.ended + AFTER_SECONDS


@pytest.fixture
def scene(rig: Rig) -> Iterator[Scene]:
    with set_up(rig, FLOWS, spoilt=True) as scene:
        yield scene


def test_nothing_false_is_told_while_everything_is_restarted(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = [scene.worker().ready(), scene.worker().ready()]
    restarts: list[Restart] = []
    with Receiver() as receiver:
        environment = receiver.environment | {
            "FTSTREAM_WATCH__LOOK_SECONDS": "5",
            "FTSTREAM_WATCH__SECONDS": "10",
            "FTSTREAM_WATCH__VERIFY_SECONDS": "300",
        }
        watcher = scene.worker(command=("ftstream", "watch"), **environment)
        watcher.until_said("INFO active")
        used, since = cpu_seconds(watcher.process.pid), time.monotonic()
        end = since + SECONDS
        with scene.load(rate=100, patient=True), Edits(scene), Claims(scene) as claims:
            for name in itertools.cycle((*SERVICES, "worker")):
                if time.monotonic() > end:
                    break
                begun = time.monotonic()
                if name == "worker":
                    assert workers.pop(0).stop() == 0
                    workers.append(scene.worker().ready())
                else:
                    scene.rig.stack.stop(name)
                    scene.rig.stack.start(name)
                restarts.append(Restart(name, begun, time.monotonic()))
                time.sleep(PAUSE_SECONDS)
        used = (cpu_seconds(watcher.process.pid) - used) / (time.monotonic() - since)
        scene.must_be_equal()
        until(lambda: scene.command("alerts", "list").returncode == 0, 90)
        alerts = [each for each in receiver.taken if "(over)" not in each.text]
    told = json.loads(scene.command("notifications", "--all", "--json").stdout)
    kinds = sorted({each["type"] for each in told})
    codes = sorted(re.findall(r"\[(FT\d+)\]", " ".join(each.text for each in alerts)))
    with capsys.disabled():
        print(
            f"\n{SECONDS:.0f} s, {len(restarts)} restarts; `status` asked {claims.asked} times,"
            f" {claims.applied} times said that all is applied; told: {', '.join(kinds)};"
            f" alerts: {', '.join(codes) or 'none'}; the watcher took {used:.1%} of a core"
        )
    assert claims.applied and claims.false == []
    assert false_words(scene) == []
    false = [each.text for each in alerts if not any(r.explains(each) for r in restarts)]
    assert false == []
    until(lambda: scene.command("status").returncode == 0, 60)


def cpu_seconds(pid: int) -> float:
    """Of a process that runs."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
