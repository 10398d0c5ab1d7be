"""Who watches tells once what is wrong, and once that it is over, and does not die with what it tells of."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from ftstream.connect.client import ConnectClient
from ftstream.flows import FLOWS
from ftstream.local.demo.rig import Rig
from tests.conftest import until
from tests.system.receiver import Receiver
from tests.system.scene import Scene, Worker, set_up


@pytest.fixture(scope="module")
def scene(rig: Rig) -> Iterator[Scene]:
    with set_up(rig, FLOWS) as scene:
        yield scene


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def watcher(scene: Scene, receiver: Receiver) -> Worker:
    watcher = scene.worker(command=("ftstream", "watch"), **receiver.environment)
    watcher.until_said("INFO active")
    return watcher


def alerts(scene: Scene) -> list[dict[str, Any]]:
    """What is open now."""
    found: list[dict[str, Any]] = json.loads(scene.command("alerts", "list", "--json").stdout)
    return found


def test_workers_that_are_killed_are_told_once_and_their_return_too(
    scene: Scene, receiver: Receiver, watcher: Worker
) -> None:
    scene.worker().ready()
    until(lambda: len(receiver.beats) > 2)
    until(lambda: not [a for a in alerts(scene) if a["code"] in ("FT106", "FT121")], 60)
    before = len(receiver.told("FT106"))
    for worker in scene.rig.workers:
        if worker is not watcher.process:
            worker.send_signal(signal.SIGKILL)
    told = receiver.wait_for("FT106", since=before)
    assert "no worker runs" in told.text and "Then: ftstream worker" in told.text
    assert "FT106" in {each["code"] for each in alerts(scene)}
    assert scene.command("alerts", "ack", "FT106").returncode == 0
    scene.worker().ready()
    receiver.wait_for("FT106", over=True, since=before)
    assert len(receiver.told("FT106")) == before + 1


def test_heartbeats_go_the_whole_way_of_every_flow_though_nobody_writes(
    scene: Scene, watcher: Worker
) -> None:
    query = "select flow from ftstream.flow_lag where heartbeat_at > now() - interval '20 s'"
    for site, flows in {
        "external": {"overrides", "cue_sheets", "render_queue"},
        "supabase": {"gfx", "overrides", "cue_sheets"},
    }.items():
        until(lambda: {row[0] for row in scene.execute(site, query)} >= flows, 40)  # type: ignore[arg-type]  # noqa: B023
    until(
        lambda: (
            not scene.execute(
                "supabase",
                "select from ftstream.v_sync_dashboard"
                " where source = 'render_queue' and health_status <> 'HEALTHY'",
            )
        )
    )


def test_a_paused_connector_is_told_with_what_to_do(
    scene: Scene, receiver: Receiver, watcher: Worker
) -> None:
    async def pause() -> None:
        async with ConnectClient(scene.rig.settings.connect) as client:
            await client.stop(scene.capture.connector)

    asyncio.run(pause())
    told = receiver.wait_for("FT110")
    assert "is stopped" in told.text and "Then: ftstream connectors apply gfx" in told.text
    assert scene.command("connectors", "apply", "gfx").returncode == 0
    receiver.wait_for("FT110", over=True)
    assert len(receiver.told("FT110")) == 1


def test_the_second_watcher_takes_over_and_tells_nothing_twice(
    scene: Scene, receiver: Receiver, watcher: Worker
) -> None:
    second = scene.worker(command=("ftstream", "watch"), **receiver.environment)
    before = len(receiver.taken)
    watcher.kill()
    second.until_said("INFO active", seconds=60)
    beats = len(receiver.beats)
    until(lambda: len(receiver.beats) > beats + 2)
    assert len(receiver.taken) == before
    assert second.stop() == 0


def test_a_code_is_explained(scene: Scene) -> None:
    said = scene.command("explain", "ft110").stdout.decode()
    assert "ftstream connectors apply" in said and "Connector" in said
    assert scene.command("explain", "FT999").returncode == 2
