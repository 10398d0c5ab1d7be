"""`connectors apply` where a row is too large for Kafka: nothing is left out and not told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import pytest

from ftstream.capture import oversize
from ftstream.capture.connectors import PASSING, connector_config, snapshot_over
from ftstream.capture.heartbeat import RecordCounts
from ftstream.capture.oversize import LargeRow
from ftstream.capture.render import example_settings
from ftstream.cli import connectors_apply as connectors
from ftstream.cli.connectors_apply import apply_all
from ftstream.cli.errors import CommandFailure
from ftstream.connect.client import ConnectorStatus, Part
from ftstream.connect.errors import TaskFailed
from ftstream.flows import GFX, OVERRIDES, CaptureNames, Flow, log_captures

SETTINGS = example_settings()
LARGE = LargeRow("gfx_sessions", "7", 18_000_000)


def names_of(flow: Flow) -> CaptureNames:
    (capture,) = log_captures([flow])
    return CaptureNames(capture, "")


NAMES, OUTBOX = names_of(GFX), names_of(OVERRIDES)


class Connect:
    """Kafka Connect with the connector of gfx, whose task has met the large row."""

    def __init__(self, *, first_snapshot: bool) -> None:
        self.configs = {
            NAMES.connector: connector_config(NAMES, SETTINGS, first_snapshot=first_snapshot)
        }
        self.met = {NAMES.connector}
        self.passed: list[str] = []
        self.running_fails: Exception | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    async def debezium_version(self) -> str:
        return "3.7"

    async def status(self, name: str) -> ConnectorStatus | None:
        if name not in self.configs:
            return None
        state, trace = ("FAILED", oversize.CAUSE) if name in self.met else ("RUNNING", "")
        return ConnectorStatus(name, Part(None, "RUNNING", "w"), (Part(0, state, "w", trace),))

    async def get_config(self, name: str) -> dict[str, str] | None:
        return self.configs.get(name)

    async def put_config(self, name: str, config: Mapping[str, str]) -> None:
        self.configs[name] = dict(config)
        if config.items() >= PASSING.items():
            self.passed.append(name)

    async def validate(self, name: str, config: Mapping[str, str]) -> list[str]:
        return []

    async def wait_running(self, name: str, *_: object) -> None:
        if self.running_fails is not None and name == NAMES.connector:
            raise self.running_fails

    async def check(self, name: str) -> None:
        """It runs."""


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[LargeRow]:
    """Rows that the worker is asked to read."""
    found: list[LargeRow] = []

    async def large_rows(*_: object) -> list[LargeRow]:
        return [LARGE]

    async def request(settings: object, flow: Flow, rows: Sequence[LargeRow]) -> None:
        found.extend(rows)

    async def nothing(*_: object) -> list[str]:
        return []

    monkeypatch.setattr(connectors, "_large_rows", large_rows)
    monkeypatch.setattr(connectors, "_request", request)
    monkeypatch.setattr(connectors, "ensure_topics", nothing)
    monkeypatch.setattr(connectors, "_require_slot", nothing)
    return found


@pytest.fixture
def apply(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(connect: Connect, *captures: CaptureNames, passing: bool) -> None:
        monkeypatch.setattr(connectors, "ConnectClient", lambda _: connect)
        asyncio.run(apply_all(SETTINGS, captures, False, passing))

    return run


def fail_in(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    async def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(connectors, name, fail)


@pytest.mark.parametrize(
    "error",
    [TaskFailed("gfx", 0, "no", ""), asyncio.CancelledError()],
    ids=["failed", "interrupted"],
)
def test_first_snapshot_that_is_not_over_does_not_count_as_over(
    monkeypatch: pytest.MonkeyPatch,
    apply: Callable[..., None],
    requested: list[LargeRow],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
) -> None:
    async def none(*_: object) -> RecordCounts:
        return RecordCounts(0, 0)

    monkeypatch.setattr(connectors, "written", none)
    fail_in(monkeypatch, "_wait_streaming", error)
    connect = Connect(first_snapshot=True)
    with pytest.raises(type(error)):
        apply(connect, NAMES, passing=True)
    assert connect.passed == [NAMES.connector]
    deployed = connect.configs[NAMES.connector]
    assert not snapshot_over(deployed)
    assert deployed == connector_config(NAMES, SETTINGS, first_snapshot=True)
    assert requested == [LARGE]
    assert "verify gfx --repair" in capsys.readouterr().out


@pytest.mark.parametrize(
    "where", ["_read_on", "wait_running"], ids=["reading on", "waiting for the task"]
)
def test_rows_left_out_are_read_and_told_though_reading_on_fails(
    monkeypatch: pytest.MonkeyPatch,
    apply: Callable[..., None],
    requested: list[LargeRow],
    capsys: pytest.CaptureFixture[str],
    where: str,
) -> None:
    connect, error = Connect(first_snapshot=False), TaskFailed("gfx", 0, "no", "")
    if where == "wait_running":
        connect.running_fails = error
    else:
        fail_in(monkeypatch, where, error)
    with pytest.raises(TaskFailed):
        apply(connect, NAMES, passing=True)
    assert connect.passed == [NAMES.connector]
    assert connect.configs[NAMES.connector] == connector_config(NAMES, SETTINGS)
    assert requested == [LARGE]
    assert "verify gfx --repair" in capsys.readouterr().out


@pytest.mark.usefixtures("requested")
def test_row_too_large_for_one_connector_keeps_no_other_from_being_applied(
    apply: Callable[..., None],
) -> None:
    connect = Connect(first_snapshot=False)
    with pytest.raises(CommandFailure, match="gfx_sessions 7"):
        apply(connect, NAMES, OUTBOX, passing=False)
    assert connect.configs[OUTBOX.connector] == connector_config(OUTBOX, SETTINGS)


@pytest.mark.usefixtures("requested")
def test_what_has_failed_is_told_of_each_connector(
    monkeypatch: pytest.MonkeyPatch, apply: Callable[..., None]
) -> None:
    fail_in(monkeypatch, "_apply", TaskFailed("outbox", 0, "no slot", "its trace"))
    with pytest.raises(CommandFailure) as told:
        apply(Connect(first_snapshot=False), NAMES, OUTBOX, passing=False)
    assert "gfx_sessions 7" in told.value.message
    assert told.value.message.endswith(
        "outbox, task 0 failed: no slot"
    )  # Java's trace is for the log
