"""The Connect client against a server that answers as Connect does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ftstream.connect.client import ConnectClient
from ftstream.connect.errors import ConnectRefused, ConnectUnreachable, PluginMissing, TaskFailed
from ftstream.settings import ConnectSettings

Answer = tuple[int, Any]


@asynccontextmanager
async def connect(*answers: Answer) -> AsyncIterator[tuple[ConnectClient, list[web.Request]]]:
    """A client of a server that gives these answers in turn, the last one for ever."""
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        status, body = answers[min(len(asked), len(answers) - 1)]
        asked.append(request)
        return web.json_response(body, status=status)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    async with (
        TestServer(application) as server,
        ConnectClient(ConnectSettings(url=str(server.make_url("/")))) as client,
    ):
        yield client, asked


def refusal(status: int, message: str) -> Answer:
    return status, {"error_code": status, "message": message}


def status_of(state: str, trace: str = "") -> Answer:
    task = {"id": 0, "state": state, "worker_id": "w", "trace": trace}
    return 200, {"name": "c", "connector": {"state": "RUNNING", "worker_id": "w"}, "tasks": [task]}


@pytest.mark.parametrize(
    "message",
    [
        "Cannot complete request momentarily due to stale configuration (typically caused by ...)",
        "Cannot complete request because of a conflicting operation (e.g. worker rebalance)",
        "Cannot complete request momentarily due to no known leader URL",
    ],
)
async def test_a_rebalance_is_waited_for(message: str) -> None:
    async with connect(refusal(409, message), refusal(409, message), (200, {})) as (client, asked):
        await client.put_config("c", {"a": "1"})
    assert len(asked) == 3


async def test_a_restart_that_meets_a_rebalance_is_repeated() -> None:
    refused = refusal(500, "Request cannot be completed because a rebalance is expected")
    async with connect(refused, (202, {})) as (client, asked):
        await client.restart("c")
    assert len(asked) == 2


async def test_an_existing_connector_is_not_waited_for() -> None:
    async with connect(refusal(409, "Connector c already exists")) as (client, asked):
        with pytest.raises(ConnectRefused, match="already exists"):
            await client.put_config("c", {"a": "1"})
    assert len(asked) == 1


async def test_a_refusal_does_not_echo_the_secret_it_was_sent() -> None:
    async with connect(refusal(400, "bad value hunter2 for database.password")) as (client, _):
        with pytest.raises(ConnectRefused) as caught:
            await client.put_config("c", {"database.password": "hunter2"})
    assert "hunter2" not in str(caught.value)


async def test_a_wrong_login_names_the_settings() -> None:
    async with connect(refusal(401, "User cannot access the resource.")) as (client, _):
        with pytest.raises(ConnectRefused, match=r"connect\.username and connect\.password"):
            await client.get_config("c")


async def test_requests_without_a_body_name_the_type_connect_wants() -> None:
    async with connect((202, {})) as (client, asked):
        await client.restart("c", only_failed=True)
    assert asked[0].content_type == "application/json"
    assert asked[0].query == {"includeTasks": "true", "onlyFailed": "true"}


async def test_a_status_that_is_not_there_yet_is_none() -> None:
    async with connect(refusal(404, "No status found for connector c")) as (client, _):
        assert await client.status("c") is None


async def test_running_is_awaited_through_what_comes_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _quick(monkeypatch)
    none = refusal(404, "No status found")
    shown: list[str] = []
    async with connect(none, status_of("UNASSIGNED"), status_of("RUNNING")) as (client, _):
        status = await client.wait_running("c", 5, shown.append)
    assert status.running
    assert shown == [
        "not there yet",
        "connector running, task unassigned",
        "connector running, task running",
    ]


async def test_the_failure_from_before_a_new_configuration_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _quick(monkeypatch)
    async with connect(status_of("FAILED", "old"), status_of("RUNNING")) as (client, _):
        assert (await client.wait_running("c", 5)).running


async def test_a_lasting_failure_tells_its_root_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    _quick(monkeypatch)
    trace = "ConnectException: stopped\n\tat a\nCaused by: PSQLException: FATAL: no such slot\n"
    async with connect(status_of("FAILED", trace)) as (client, _):
        with pytest.raises(TaskFailed, match="task 0 failed: PSQLException: FATAL: no such slot"):
            await client.wait_running("c", 5)


@pytest.mark.parametrize("version", [None, "3.6.3.Final"])
async def test_a_missing_or_old_plugin_is_named(version: str | None) -> None:
    name = "io.debezium.connector.postgresql.PostgresConnector"
    plugins = [] if version is None else [{"class": name, "version": version}]
    async with connect((200, plugins)) as (client, _):
        with pytest.raises(PluginMissing, match=r"Debezium|PostgresConnector"):
            await client.debezium_version()


async def test_nobody_there_is_said_with_the_url() -> None:
    async with ConnectClient(ConnectSettings(url="http://127.0.0.1:1")) as client:
        with pytest.raises(ConnectUnreachable, match=r"http://127\.0\.0\.1:1"):
            await client.status("c")


def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "ftstream.connect.client"
    monkeypatch.setattr(f"{module}.POLL_SECONDS", 0.02)
    monkeypatch.setattr(f"{module}.STEADY_SECONDS", 0.1)
