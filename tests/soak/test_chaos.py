"""Everything that can fail fails, in random order, for as long as one likes: `pytest -m soak`.

FTSTREAM_SOAK_SEED repeats a run's order of faults; FTSTREAM_SOAK_ROUNDS makes it longer.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

import pytest

from ftstream.demo.rig import Rig
from tests.system.scene import Scene, Worker, set_up

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

SEED = int(os.environ.get("FTSTREAM_SOAK_SEED", random.randrange(10**6)))
ROUNDS = int(os.environ.get("FTSTREAM_SOAK_ROUNDS", "40"))
MOST_WORKERS = 3


@pytest.fixture(scope="module")
def scene(rig: Rig) -> Iterator[Scene]:
    with set_up(rig) as scene:
        yield scene


class Chaos:
    """Faults, chosen by chance; one worker at least is there after each."""

    def __init__(self, scene: Scene, chance: random.Random) -> None:
        self._scene, self._chance = scene, chance
        self.workers: list[Worker] = [scene.worker()]
        self.faults: tuple[Callable[[], None], ...] = (
            self.kill_a_worker,
            self.stop_a_worker,
            self.add_a_worker,
            self.end_sessions,
            self.restart_supabase,
            self.kill_supabase,
            self.restart_external,
            self.restart_kafka,
        )

    def strike(self) -> str:
        fault = self._chance.choice(self.faults)
        fault()
        if not self.workers:
            self.workers.append(self._scene.worker())
        return fault.__name__

    def kill_a_worker(self) -> None:
        self._taken().kill()

    def stop_a_worker(self) -> None:
        worker = self._taken()
        assert worker.stop() == 0, worker.log

    def add_a_worker(self) -> None:
        if len(self.workers) < MOST_WORKERS:
            self.workers.append(self._scene.worker())

    def end_sessions(self) -> None:
        end = (
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'ftstream' and pid <> pg_backend_pid()"
        )
        self._scene.execute("supabase", end)
        self._scene.execute("external", end)

    def restart_supabase(self) -> None:
        self._scene.rig.stack.stop("supabase")
        self._scene.rig.stack.start("supabase")

    def kill_supabase(self) -> None:
        self._scene.rig.stack.kill("supabase")
        self._scene.rig.stack.start("supabase")

    def restart_external(self) -> None:
        self._scene.rig.stack.stop("external")
        self._scene.rig.stack.start("external")
        self._scene.rig.run("connectors", "apply")

    def restart_kafka(self) -> None:
        self._scene.rig.stack.stop("kafka")
        self._scene.rig.stack.start("kafka")
        self._scene.rig.run("connectors", "apply")

    def _taken(self) -> Worker:
        return self.workers.pop(self._chance.randrange(len(self.workers)))


def test_sites_are_equal_and_each_change_is_applied_once_whatever_fails(scene: Scene) -> None:
    chance = random.Random(SEED)
    chaos = Chaos(scene, chance)
    struck: list[str] = []
    for _ in range(ROUNDS):
        scene.write(chance.randrange(100, 3_000))
        struck.append(chaos.strike())
        if chance.random() < 0.2:
            scene.must_be_in_step()
    scene.must_be_in_step()
    for worker in chaos.workers:
        assert worker.process.poll() is None, f"seed {SEED}: {struck}\n{worker.log}"
