"""Who watches tells once what is wrong, and once that it is over, and does not die with what it tells of."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftstream.connect.client import ConnectClient
from ftstream.flows import FLOWS
from ftstream.local.demo.rig import SITES, Rig
from ftstream.local.stack.ports import choose_ports
from tests.conftest import until
from tests.system.receiver import Receiver
from tests.system.scene import Scene, Worker, set_up

WORKER_PORT, WATCHER_PORT = choose_ports(2)
DOCKER = Path(__file__).parents[2] / "docker"


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
    listen = {"FTSTREAM_LISTEN__WATCHER": f"127.0.0.1:{WATCHER_PORT}"}
    watcher = scene.worker(command=("ftstream", "watch"), **receiver.environment, **listen)
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


def test_every_metric_that_rules_and_dashboard_name_is_there(
    scene: Scene, receiver: Receiver
) -> None:
    listen = f"127.0.0.1:{WORKER_PORT}"
    worker = scene.worker(FTSTREAM_LISTEN__WORKER=listen).ready()
    watcher = scene.worker(
        command=("ftstream", "watch"),
        **receiver.environment,
        FTSTREAM_LISTEN__WATCHER=f"127.0.0.1:{WATCHER_PORT}",
    )
    watcher.until_said("INFO active", seconds=60)
    watching, working = f"http://127.0.0.1:{WATCHER_PORT}", f"http://{listen}"
    until(lambda: "ftstream_looked_timestamp_seconds" in answer(f"{watching}/metrics"), 60)
    until(lambda: answer(f"{working}/readyz") == "ready\n", 60)
    scene.write(20)
    scene.caught_up()
    exported = "".join(
        answer(url)
        for url in (
            f"{working}/metrics",
            f"{watching}/metrics",
            scene.rig.stack.connect_metrics_url,
        )
    )
    there = set(re.findall(r"^# TYPE (\w+)", exported, re.MULTILINE))
    named = {
        name.removesuffix("_bucket")
        for file in ("prometheus/rules.yml", "grafana/dashboards/ftstream.json")
        for name in re.findall(
            r"\b(?:ftstream|kafka_connect|debezium)_\w+", expressions(DOCKER / file)
        )
    }
    assert len(named) > 20 and named - there == set()
    applied = re.findall(
        r'ftstream_changes_total\{flow="gfx",outcome="applied",target="supabase"\} (\S+)', exported
    )
    assert float(applied[0]) > 0
    assert 'ftstream_up{service="supabase"} 1.0' in exported
    assert watcher.stop() == 0 and worker.stop() == 0


def test_the_watcher_has_a_login_of_its_own_that_writes_nothing_flows_carry(scene: Scene) -> None:
    for site in SITES:
        held = scene.execute(
            site,
            "select c.relname::text, p.privilege from pg_class c,"
            " unnest(array['insert', 'update', 'delete', 'truncate', 'trigger']) as p(privilege)"
            " where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')"
            " and has_table_privilege('ftstream_watch', c.oid, p.privilege)",
        )
        assert held == []


def answer(url: str) -> str:
    """What is answered, whatever the status; nothing while nobody does."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())
    except OSError:
        return ""


def expressions(file: Path) -> str:
    """The queries in a file of rules or panels."""
    found = yaml.safe_load(file.read_text())  # JSON is YAML, too
    rules = [rule["expr"] for group in found.get("groups", ()) for rule in group["rules"]]
    panels = [t["expr"] for panel in found.get("panels", ()) for t in panel["targets"]]
    return "\n".join(rules + panels)


def test_a_code_is_explained(scene: Scene) -> None:
    said = scene.command("explain", "ft110").stdout.decode()
    assert "ftstream connectors apply" in said and "Connector" in said
    assert scene.command("explain", "FT999").returncode == 2
