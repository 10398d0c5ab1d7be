"""Kafka Connect's REST API, as far as ftstream needs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_exponential

from ftstream.connect.errors import (
    ConnectRefused,
    ConnectUnreachable,
    NotRunning,
    NotStopped,
    PluginMissing,
    TaskFailed,
)
from ftstream.connect.masking import scrubbed
from ftstream.settings import ConnectSettings

REQUEST_SECONDS = 30.0
LOOK_SECONDS = 8.0
"""For what Connect answers from memory; what changes something may wait for the database."""

REBALANCE_SECONDS = 60.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.5

STEADY_SECONDS = 2.0
"""How long a state must last to count: Connect goes on showing the old one for a moment."""

CONNECTOR_CLASS = "io.debezium.connector.postgresql.PostgresConnector"

OLDEST_DEBEZIUM = (3, 7)
"""Rows of a COPY share positions in the log: before it, a restart in their middle lost 126 of 60,000."""

TRACE_LINES = 20
MESSAGE_LENGTH = 2_000
CAUSE_END = 200

RUNNING = "RUNNING"
FAILED = "FAILED"
STOPPED = "STOPPED"
PAUSED = "PAUSED"

# A worker that is just joining answers so, whatever it was asked; "already exists" is a 409 too,
# but no waiting helps there.
_REBALANCE_STATUS = (HTTPStatus.CONFLICT, HTTPStatus.INTERNAL_SERVER_ERROR)
_REBALANCING = ("rebalance", "no known leader", "stale configuration")


@dataclass(frozen=True, slots=True)
class Part:
    """The connector (`task` None) or one of its tasks; `trace` is empty unless it failed."""

    task: int | None
    state: str
    worker: str
    trace: str = ""

    @property
    def cause(self) -> str:
        return root_cause(self.trace)


@dataclass(frozen=True, slots=True)
class ConnectorStatus:
    """What Connect says of one connector."""

    name: str
    connector: Part
    tasks: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        return (self.connector, *self.tasks)

    @property
    def running(self) -> bool:
        """A connector without a task runs in name only."""
        return bool(self.tasks) and all(part.state == RUNNING for part in self.parts)

    @property
    def stopped(self) -> bool:
        return self.connector.state == STOPPED and not self.tasks

    @property
    def held(self) -> bool:
        """Whether a person has paused or stopped it: no new configuration starts it again."""
        return self.connector.state in (PAUSED, STOPPED)

    @property
    def failed(self) -> Part | None:
        return next((part for part in self.parts if part.state == FAILED), None)

    def __str__(self) -> str:
        tasks = ", ".join(f"task {part.state.lower()}" for part in self.tasks) or "no task"
        return f"connector {self.connector.state.lower()}, {tasks}"


class ConnectClient:
    """An async context manager; every method may raise ConnectUnreachable or ConnectRefused.

    A request refused because the workers are rebalancing is repeated for a minute.
    """

    def __init__(self, connect: ConnectSettings) -> None:
        self._url = connect.url.rstrip("/")
        # Also without a body: aiohttp would name another type, which Connect refuses (415).
        self._headers = {"Content-Type": "application/json"}
        if connect.username:
            login = f"{connect.username}:{connect.password.get_secret_value()}".encode()
            self._headers["Authorization"] = f"Basic {b64encode(login).decode()}"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers=self._headers)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def debezium_version(self) -> str:
        """The version of the worker's Debezium plugin. Raises PluginMissing."""
        plugins = await self._request("GET", "/connector-plugins")
        version = next((p["version"] for p in plugins if p["class"] == CONNECTOR_CLASS), None)
        if version is None:
            raise PluginMissing(
                f"Kafka Connect at {self._url} has no {CONNECTOR_CLASS}: unpack Debezium's "
                "PostgreSQL connector into a folder of its plugin.path and restart it"
            )
        if _version_number(version) < OLDEST_DEBEZIUM:
            raise PluginMissing(
                f"Kafka Connect at {self._url} has Debezium {version}; ftstream needs 3.7 or later: "
                "before it a restart in the middle of a COPY loses rows, and nothing says so"
            )
        return str(version)

    async def validate(self, name: str, config: Mapping[str, str]) -> tuple[str, ...]:
        """Return what is wrong with a configuration, one line a setting; it connects to the database."""
        path = f"/connector-plugins/{_quoted(config['connector.class'])}/config/validate"
        answer = await self._request("PUT", path, {**config, "name": name}, secrets=config)
        return tuple(
            scrubbed(f"{item['value']['name']}: {message}", config)
            for item in answer["configs"]
            for message in item["value"]["errors"]
        )

    async def get_config(self, name: str) -> dict[str, str] | None:
        """The deployed configuration, secrets and all if it holds any; None without a connector."""
        config: dict[str, str] | None = await self._get_or_none(f"{_path(name)}/config")
        return config

    async def put_config(self, name: str, config: Mapping[str, str]) -> None:
        """Create the connector, or give it this configuration."""
        await self._request("PUT", f"{_path(name)}/config", dict(config), secrets=config)

    async def status(self, name: str) -> ConnectorStatus | None:
        """None without a connector, and for a moment after it was created."""
        answer = await self._get_or_none(f"{_path(name)}/status")
        return None if answer is None else _status(answer)

    async def restart(self, name: str, *, only_failed: bool = False) -> None:
        """Restart the connector and its tasks."""
        query = f"includeTasks=true&onlyFailed={str(only_failed).lower()}"
        await self._request("POST", f"{_path(name)}/restart?{query}")

    async def delete(self, name: str) -> bool:
        """False if there was none. Its offsets stay, and slot and publication in PostgreSQL."""
        try:
            await self._request("DELETE", _path(name))
        except ConnectRefused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            raise
        return True

    async def stop(self, name: str) -> None:
        """End the tasks and keep the connector: what changing its offsets needs."""
        await self._request("PUT", f"{_path(name)}/stop")

    async def position(self, name: str) -> int:
        """Return how far it has read External's log, in bytes; 0 if it has not begun."""
        answer = await self._get_or_none(f"{_path(name)}/offsets") or {"offsets": []}
        found = [entry.get("offset") or {} for entry in answer["offsets"]]
        return max((int(offset.get("lsn") or 0) for offset in found), default=0)

    async def resume(self, name: str) -> None:
        """Have a connector that was paused or stopped go on where it was."""
        await self._request("PUT", f"{_path(name)}/resume")

    async def forget_offsets(self, name: str) -> None:
        """Stop the connector, if there is one, and forget where it was in its source."""
        if await self.get_config(name) is None:
            return
        deadline = time.monotonic() + STOP_SECONDS
        while await self.status(name) is None:  # for a moment after it was created
            if time.monotonic() > deadline:
                raise NotStopped(f"{name} has no status yet: its position is not forgotten")
            await asyncio.sleep(POLL_SECONDS)
        await self.stop(name)
        await self._wait_stopped(name)
        await self._request("DELETE", f"{_path(name)}/offsets")

    async def wait_running(
        self, name: str, timeout: float, progress: Callable[[str], None] = lambda _: None
    ) -> ConnectorStatus:
        """Wait until the connector and at least one task run, all of them, for STEADY_SECONDS.

        Raises TaskFailed once a failure has lasted as long, NotRunning after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        seen, since = "", time.monotonic()
        while True:
            status = await self.status(name)
            shown = "not there yet" if status is None else str(status)
            if shown != seen:
                progress(shown)
                seen, since = shown, time.monotonic()
            if status is not None and time.monotonic() - since >= STEADY_SECONDS:
                _raise_failed(status)
                if status.running:
                    return status
            if time.monotonic() > deadline:
                raise NotRunning(
                    f"{name} did not run within {timeout:.0f} s ({shown}); see Connect's log"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def check(self, name: str) -> None:
        """Raises TaskFailed if the connector or a task of it has failed."""
        if status := await self.status(name):
            _raise_failed(status)

    async def _wait_stopped(self, name: str) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while (status := await self.status(name)) and not status.stopped:
            if time.monotonic() > deadline:
                raise NotStopped(f"{name} did not stop within {STOP_SECONDS:.0f} s ({status})")
            await asyncio.sleep(POLL_SECONDS)

    async def _get_or_none(self, path: str) -> Any:
        try:
            return await self._request("GET", path)
        except ConnectRefused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, str] | None = None,
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> Any:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_is_rebalance),
            wait=wait_exponential(multiplier=0.2, max=2),
            stop=stop_after_delay(REBALANCE_SECONDS),
            reraise=True,
        ):
            with attempt:
                return await self._send(method, path, body, secrets)
        raise AssertionError("tenacity ends by returning or raising")

    async def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, str] | None,
        secrets: Mapping[str, str] | None,
    ) -> Any:
        if self._session is None:
            raise RuntimeError("ConnectClient is used outside its `async with`")
        try:
            limit = aiohttp.ClientTimeout(total=_patience(method))
            async with self._session.request(
                method, self._url + path, json=body, timeout=limit
            ) as response:
                if response.status >= HTTPStatus.BAD_REQUEST:
                    raise ConnectRefused(response.status, await _message(response, secrets))
                return await response.json() if response.status == HTTPStatus.OK else None
        except TimeoutError as error:
            raise ConnectUnreachable(
                self._url, f"no answer in {_patience(method):.0f} s"
            ) from error
        except (aiohttp.ClientError, ValueError) as error:
            # Whatever answers there, it is not Connect, or it broke off.
            raise ConnectUnreachable(self._url, scrubbed(str(error))) from error


def _patience(method: str) -> float:
    return LOOK_SECONDS if method == "GET" else REQUEST_SECONDS


def root_cause(trace: str) -> str:
    """The line of a Java stack trace that says what happened: the innermost cause."""
    lines = trace.strip().splitlines()
    causes = [line for line in lines if line.startswith("Caused by: ")]
    line = causes[-1].removeprefix("Caused by: ") if causes else next(iter(lines), "")
    return _shortened(line) or "no reason given; see Connect's log"


def _shortened(line: str) -> str:
    """Without its middle: Debezium prints whole offsets between the beginning and the point."""
    if len(line) <= 2 * CAUSE_END:
        return line
    return f"{line[:CAUSE_END]} ... {line[-CAUSE_END:]}"


async def _message(response: aiohttp.ClientResponse, secrets: Mapping[str, str] | None) -> str:
    text = await response.text()
    # Not JSON: a proxy's page, or Jetty's, shown as it is.
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(text)["message"])
    return scrubbed(text.strip()[:MESSAGE_LENGTH] or str(response.reason), secrets)


def _is_rebalance(error: BaseException) -> bool:
    # A restart that meets a rebalance is answered by 500.
    if not isinstance(error, ConnectRefused) or error.status not in _REBALANCE_STATUS:
        return False
    message = error.message.lower()
    return any(words in message for words in _REBALANCING)


def _status(answer: Mapping[str, Any]) -> ConnectorStatus:
    return ConnectorStatus(
        name=answer["name"],
        connector=_part(None, answer["connector"]),
        tasks=tuple(_part(task["id"], task) for task in answer["tasks"]),
    )


def _part(task: int | None, answer: Mapping[str, Any]) -> Part:
    trace = scrubbed(answer.get("trace", ""))
    return Part(task, answer["state"], answer.get("worker_id", ""), trace)


def _raise_failed(status: ConnectorStatus) -> None:
    if part := status.failed:
        first = "\n".join(map(_shortened, part.trace.splitlines()[:TRACE_LINES]))
        raise TaskFailed(status.name, part.task, part.cause, first)


def _version_number(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split(".")[:2] if number.isdigit())


def _path(name: str) -> str:
    return f"/connectors/{_quoted(name)}"


def _quoted(name: str) -> str:
    return quote(name, safe="")
