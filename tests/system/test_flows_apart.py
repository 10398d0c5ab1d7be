"""A flow that stalls or halts leaves the other flows of its worker alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import uuid
from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaProducer

from ftstream.flows import RENDER_QUEUE, Names, Site
from ftstream.kafka.clients import client_options
from ftstream.local.demo.rig import Rig
from tests.conftest import until
from tests.system.scene import Scene, Worker, set_up

FROZEN_SECONDS = float(os.environ.get("FTSTREAM_FROZEN_SECONDS", "8"))
"""`make soak` has it frozen for a minute."""


@pytest.fixture(scope="module")
def scene(rig: Rig) -> Iterator[Scene]:
    with set_up(rig) as scene:
        yield scene


@pytest.fixture
def worker(scene: Scene) -> Iterator[Worker]:
    """With a buffer that fills soon."""
    worker = scene.worker(
        FTSTREAM_APPLY__BUFFER_ROWS="200",
        FTSTREAM_APPLY__BATCH_ROWS="50",
    ).ready()
    yield worker
    if worker.process.poll() is None:
        assert worker.stop() == 0


def send_jobs(scene: Scene, number: int) -> None:
    """What a publisher of Supabase's outbox sends."""
    topic = Names(RENDER_QUEUE, scene.rig.namespace).topic(RENDER_QUEUE.tables[0], Site.SUPABASE)

    async def send() -> None:
        async with AIOKafkaProducer(**client_options(scene.rig.settings.kafka)) as producer:
            for _ in range(number):
                key = str(uuid.uuid4())
                row = {"id": key, "render_type": "custom", "aep_project": "p"}
                edit = {
                    "id": key,
                    "op": "insert",
                    "site": "supabase",
                    "version": time.time_ns() // 1_000,
                    "row": row | {"aep_comp_name": "c", "gfx_data": {}},
                }
                await producer.send(topic, json.dumps(edit).encode(), key=key.encode())
            await producer.flush()

    asyncio.run(send())


def jobs(scene: Scene) -> int:
    return int(scene.execute("external", "select count(*) from render_queue")[0][0])


def test_frozen_target_stalls_its_own_flow_only(scene: Scene, worker: Worker) -> None:
    send_jobs(scene, 20)
    until(lambda: jobs(scene) >= 20)
    with scene.load():
        scene.until_applied(200)
        scene.rig.stack.kill("supabase", signal.SIGSTOP)
        try:
            end = time.monotonic() + FROZEN_SECONDS
            while time.monotonic() < end:
                before = jobs(scene)
                send_jobs(scene, 20)
                until(lambda there=before: jobs(scene) == there + 20, 10)  # type: ignore[misc]
        finally:
            scene.rig.stack.kill("supabase", signal.SIGCONT)
        scene.until_applied(200)
    scene.must_be_in_step()


def test_halted_flow_is_told_and_the_other_goes_on(scene: Scene, worker: Worker) -> None:
    scene.execute("supabase", "alter table gfx_hands rename to mislaid")
    scene.write(300)
    worker.until_said("flow gfx halted")
    before = jobs(scene)
    send_jobs(scene, 100)
    until(lambda: jobs(scene) == before + 100)
    assert len(worker.errors) == 1
    assert "the other flows go on" in worker.errors[0]
    until(lambda: any("gfx_hands" in each for each in scene.notifications("flow_halted")))
    assert worker.stop() == 0

    scene.execute("supabase", "alter table mislaid rename to gfx_hands")
    again = scene.worker().ready()
    scene.must_be_in_step()
    assert again.stop() == 0
