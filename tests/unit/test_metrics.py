"""What processes say over HTTP of themselves, and of what they have seen."""

from __future__ import annotations

import contextvars
import json
import logging
import logging.config
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from ftstream import metrics
from ftstream.flows import FLOWS, Site
from ftstream.health import HealthServer
from ftstream.logs import About, about, logging_config
from ftstream.outcomes import Outcome
from ftstream.watch.judge import Limits
from ftstream.watch.metrics import WatchMetrics
from tests.unit.sights import SIGHT


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def answering(
    port: int, unready: Sequence[str] = (), registry: CollectorRegistry | None = None
) -> AsyncIterator[str]:
    listen = f"127.0.0.1:{port}"
    server = HealthServer("worker", listen, lambda: unready, registry or CollectorRegistry())
    await server.start()
    try:
        yield f"http://{listen}"
    finally:
        await server.close()


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_a_process_that_cannot_work_says_why_and_lives() -> None:
    async with answering(free_port(), ["supabase does not answer", "no partitions"]) as url:
        assert await get(f"{url}/healthz") == (200, "ok\n")
        assert await get(f"{url}/readyz") == (503, "supabase does not answer\nno partitions\n")
    async with answering(free_port()) as url:
        assert await get(f"{url}/readyz") == (200, "ready\n")


async def test_an_address_that_is_taken_is_told_and_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    async with answering(port) as url, answering(port):
        assert await get(f"{url}/healthz") == (200, "ok\n")
    assert "address already in use" in caplog.text and "listen.worker" in caplog.text


async def test_a_watcher_exports_what_it_has_seen_and_one_that_stands_by_nothing() -> None:
    registry = CollectorRegistry()
    seen = [SIGHT]
    registry.register(WatchMetrics(FLOWS, "", Limits(), lambda: seen[0] if seen else None))
    async with answering(free_port(), registry=registry) as url:
        lines = set((await get(f"{url}/metrics"))[1].splitlines())
        seen.clear()
        _, standing_by = await get(f"{url}/metrics")
    assert {
        "ftstream_watcher_active 1.0",
        'ftstream_up{service="connect"} 0.0',
        'ftstream_up{service="external"} 1.0',
        "ftstream_workers 1.0",
        'ftstream_alerts{code="FT104",severity="critical"} 1.0',
        'ftstream_parked{flow="gfx",target="supabase"} 3.0',
        'ftstream_dead{flow="gfx",target="supabase"} 2.0',
        'ftstream_records_to_apply{flow="gfx",target="supabase"} 7.0',
        'ftstream_heartbeat_age_seconds{flow="gfx",target="supabase"} 3.0',
        'ftstream_recent_delay_seconds{flow="gfx",quantile="0.99",target="supabase"} 0.05',
        'ftstream_slot_safe_bytes{slot="gfx_slot"} 2.147483648e+10',
        'ftstream_differing_rows{table="gfx_hands"} 7.0',
        'ftstream_receiver_failing{receiver="duty"} 1.0',
    } <= lines
    assert "ftstream_watcher_active 0.0" in standing_by and "ftstream_up" not in standing_by


def test_changes_are_counted_by_what_became_of_them() -> None:
    def counted() -> float:
        labels = ("gfx", "supabase", "merged")
        return float(metrics.CHANGES.labels(*labels)._value.get())

    before = counted()
    metrics.count("gfx", Site.SUPABASE, {Outcome.MERGED: 3, Outcome.APPLIED: 1})
    assert counted() == before + 3


def test_a_line_of_the_log_as_json_says_what_it_is_about(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def line(
        *, told: dict[str, Any] | None = None, error: Exception | None = None
    ) -> dict[str, Any]:
        record = logging.LogRecord("ftstream.x", 30, "f", 1, "한글 %s", ("a",), None)
        record.__dict__ |= told or {}
        if error is not None:
            record.exc_info = (type(error), error, None)
        assert About().filter(record)
        config = logging_config("info", "json")["formatters"]["line"]
        formatter = logging.config.DictConfigurator({}).configure_formatter(dict(config))
        found: dict[str, Any] = json.loads(formatter.format(record))
        return found

    def task() -> None:
        about(flow="gfx", target="supabase")
        found = line(told={"code": "FT124"})
        assert found.pop("time").endswith("+00:00")
        assert found == {
            "level": "WARNING",
            "logger": "ftstream.x",
            "message": "한글 a",
            "flow": "gfx",
            "target": "supabase",
            "code": "FT124",
        }

    contextvars.copy_context().run(task)
    assert "flow" not in line()
    assert "ValueError" in line(error=ValueError("odd"))["error"]
