"""`ftstream status` where something does not answer: it says so, and shows the rest."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr

from ftstream.capture import wake_ups
from ftstream.cli import main
from ftstream.flows import FLOWS
from ftstream.local.stack.ports import choose_ports
from ftstream.settings import Settings
from ftstream.setup import run_init
from ftstream.supabase.wake_up import WakeUps, Way

from .conftest import MemoryTopics, Pair

SINCE = datetime(2026, 11, 24, 10, tzinfo=UTC)


@pytest.fixture
async def noted(pair: Pair) -> Pair:
    """Set up, with two workers that were seen; there is no Kafka."""
    async for _ in run_init(pair.settings, MemoryTopics()):
        pass
    await wake_ups.note(pair.settings, "host:1", WakeUps(Way.REALTIME, SINCE))
    await wake_ups.note(pair.settings, "host:2", WakeUps(Way.POLLING, SINCE, "HTTP 503"))
    return pair


def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, *options: str) -> Result:
    values = {
        "NAMESPACE": settings.namespace,
        "EXTERNAL__DSN": settings.external.dsn.get_secret_value(),
        "SUPABASE__DSN": settings.supabase.dsn.get_secret_value(),
        "KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{choose_ports(1)[0]}",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"FTSTREAM_{name}", value)
    return CliRunner().invoke(main, ["status", *options])


async def test_without_kafka_the_workers_are_shown(
    noted: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = await asyncio.to_thread(run, noted.settings, monkeypatch)
    assert result.exit_code == 3, result.output
    since = SINCE.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert f"worker host:1: woken by Realtime since {since}\n" in result.stdout
    assert f"worker host:2: polling since {since}: HTTP 503\n" in result.stdout
    assert "flow gfx to supabase: how far it is cannot be seen\n" in result.stdout
    assert "Kafka" in result.stderr


async def test_programs_are_told_the_same(noted: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    result = await asyncio.to_thread(run, noted.settings, monkeypatch, "--json")
    found = json.loads(result.stdout)
    assert found["applied"] is False and len(found["problems"]) == 1
    gfx, *others = found["flows"]
    assert {flow["flow"] for flow in others} == {flow.name for flow in FLOWS} - {"gfx"}
    assert (gfx["flow"], gfx["target"], gfx["standing"]) == ("gfx", "supabase", None)
    assert (gfx["parked"], gfx["dead"], gfx["applied"]) == (0, 0, False)
    assert [(w["worker"], w["way"]) for w in found["workers"]] == [
        ("host:1", "realtime"),
        ("host:2", "polling"),
    ]


async def test_a_database_that_does_not_answer_is_told(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = SecretStr(f"postgresql://a:b@127.0.0.1:{choose_ports(1)[0]}/db")
    supabase = pair.settings.supabase.model_copy(update={"dsn": away})
    settings = pair.settings.model_copy(update={"supabase": supabase})
    result = await asyncio.to_thread(run, settings, monkeypatch)
    assert result.exit_code == 3
    assert result.stderr.count("Connection refused") == 1


async def test_where_init_has_not_run_it_says_so(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    external = pair.settings.external.model_copy(update={"dsn": pair.settings.external.admin_dsn})
    settings = pair.settings.model_copy(update={"external": external})
    result = await asyncio.to_thread(run, settings, monkeypatch)
    assert "ftstream init" in result.stderr and "Traceback" not in result.output
