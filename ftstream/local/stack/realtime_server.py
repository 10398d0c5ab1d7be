"""A stand-in for Supabase Realtime over a real PostgreSQL: its protocol, its losses, its misbehaviour.

`python -m ftstream.local.stack.realtime_server PORT`, with the superuser's DSN and the API key in the
environment. It serves the DSN's database at /realtime/v1/websocket, and any other of the cluster at
/DATABASE/realtime/v1/websocket. Values go as PostgreSQL writes them: whoever believes them errs anyway.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
from aiohttp import WSMsgType, web
from psycopg.postgres import types

from ftstream.local.stack.pgoutput import RowChange
from ftstream.local.stack.realtime import DSN_VARIABLE, KEY_VARIABLE
from ftstream.local.stack.realtime_feed import open_feed

POLL_SECONDS = 0.1
LARGEST_FRAME = 2**20
"""What realtime-py takes; above, it closes with 1009."""

Frame = Mapping[str, Any]


class Mode(enum.StrEnum):
    """How it behaves until told otherwise."""

    WELL = "well"
    SILENT = "silent"  # sockets stay open, and nothing comes any more: no event, no answer
    NO_SYSTEM = "no_system"  # joins are answered, and never followed by a subscription
    REFUSE = "refuse"  # nobody new is let in


class Act(enum.StrEnum):
    """What it does once, to all who are connected."""

    CLOSE = "close"
    DROP = "drop"
    EXPIRE_TOKEN = "expire_token"
    SYSTEM_ERROR = "system_error"
    SYSTEM_AGAIN = "system_again"  # as after an interruption of its own, in which events were lost
    HUGE_FRAME = "huge_frame"
    GO_AWAY = "go_away"


class StandIn:
    """All connections, and how they are treated."""

    def __init__(self, dsn: str, key: str) -> None:
        self.dsn = dsn
        self.mode = Mode.WELL
        self._key = key
        self._connections: set[Connection] = set()

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/realtime/v1/websocket", self._websocket),
                web.get("/{database}/realtime/v1/websocket", self._websocket),
                web.get("/_control", self._status),
                web.post("/_control", self._control),
            ]
        )
        app.on_shutdown.append(self._close_all)
        return app

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("apikey") != self._key:
            raise web.HTTPForbidden(text="the API key is wrong")
        if self.mode is Mode.REFUSE:
            raise web.HTTPServiceUnavailable
        if request.query.get("vsn") != "1.0.0":
            raise web.HTTPBadRequest(text="it speaks version 1.0.0")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        connection = Connection(self, socket, request)
        self._connections.add(connection)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await connection.receive(json.loads(message.data))
        finally:
            self._connections.discard(connection)
            await connection.leave_all()
        return socket

    async def _status(self, request: web.Request) -> web.Response:
        joined = sum(len(connection.topics) for connection in self._connections)
        known = {"mode": self.mode, "connections": len(self._connections), "joined": joined}
        return web.json_response(known)

    async def _control(self, request: web.Request) -> web.Response:
        wish = await request.json()
        try:
            self.mode = Mode(wish.get("mode", self.mode))
            act = Act(wish["act"]) if "act" in wish else None
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        if act is not None:
            for connection in list(self._connections):
                await connection.do(act)
        return await self._status(request)

    async def _close_all(self, app: web.Application) -> None:
        for connection in list(self._connections):
            await connection.do(Act.GO_AWAY)


class Connection:
    """One client's socket, and the topics that it has joined."""

    def __init__(
        self, server: StandIn, socket: web.WebSocketResponse, request: web.Request
    ) -> None:
        self._server, self._socket, self._request = server, socket, request
        self.topics: dict[str, asyncio.Task[None]] = {}
        self._ids = itertools.count(1)  # the client takes 0 for none

    async def receive(self, frame: Frame) -> None:
        topic, ref = frame["topic"], frame.get("ref")
        match frame["event"]:
            case "heartbeat" if self._server.mode is not Mode.SILENT:
                await self._reply(topic, ref, {})
            case "phx_join":
                await self._join(topic, ref, frame["payload"]["config"])
            case "phx_leave":
                await self._leave(topic)
                await self._reply(topic, ref, {})
                await self._send(topic, "phx_close", {}, ref)

    async def do(self, act: Act) -> None:
        match act:
            case Act.DROP:
                if self._request.transport is not None:
                    self._request.transport.abort()
            case Act.GO_AWAY:
                await self._socket.close(code=1001)
            case Act.HUGE_FRAME:
                await self._send("phoenix", "huge", {"x": "x" * LARGEST_FRAME})
            case Act.CLOSE:
                for topic in list(self.topics):
                    await self._leave(topic)
                    await self._send(topic, "phx_close", {})
            case Act.EXPIRE_TOKEN:
                for topic in list(self.topics):
                    await self._leave(topic)
                    await self._system(topic, "error", "Token has expired 0 seconds ago")
                    await self._send(topic, "phx_close", {})
            case Act.SYSTEM_ERROR:
                for topic in list(self.topics):
                    await self._leave(topic)
                    await self._system(topic, "error", "the database does not answer")
            case Act.SYSTEM_AGAIN:
                for topic in list(self.topics):
                    await self._system(topic, "ok", "Subscribed to PostgreSQL")

    async def leave_all(self) -> None:
        for topic in list(self.topics):
            await self._leave(topic)

    async def _join(self, topic: str, ref: str | None, config: Frame) -> None:
        # A second join ends the first, and a client may take that for the end of both.
        if topic in self.topics:
            await self._leave(topic)
            await self._send(topic, "phx_close", {})
        wishes = config.get("postgres_changes", [])
        bindings = [{"id": next(self._ids), **wish} for wish in wishes]
        await self._reply(topic, ref, {"postgres_changes": bindings})
        await self._send(topic, "presence_state", {})
        self.topics[topic] = asyncio.create_task(self._follow(topic, bindings))

    async def _leave(self, topic: str) -> None:
        task = self.topics.pop(topic, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _follow(self, topic: str, bindings: list[dict[str, Any]]) -> None:
        """Tell of changes until the topic is left, as far as the mode lets it."""
        tables = {(b.get("schema", "public"), b.get("table", "*")) for b in bindings}
        database = self._request.match_info.get("database")
        try:
            async with open_feed(self._server.dsn, database) as feed:
                if lacking := await feed.lacking(tables):
                    await self._system(topic, "error", f"{_UNABLE}: {', '.join(lacking)}")
                    return
                if self._server.mode is not Mode.NO_SYSTEM:
                    await self._system(topic, "ok", "Subscribed to PostgreSQL")
                while True:
                    for change in feed.poll():
                        await self._tell(topic, bindings, change)
                    await asyncio.sleep(POLL_SECONDS)
        except psycopg.Error as error:
            await self._system(topic, "error", f"the database does not answer: {error}")

    async def _tell(self, topic: str, bindings: list[dict[str, Any]], change: RowChange) -> None:
        ids = [binding["id"] for binding in bindings if _fits(binding, change)]
        if ids and self._server.mode is Mode.WELL:
            payload = {"data": _data(change), "ids": ids}
            await self._send(topic, "postgres_changes", payload)

    async def _system(self, topic: str, status: str, message: str) -> None:
        channel = topic.removeprefix("realtime:")
        payload = {"channel": channel, "extension": "postgres_changes"}
        await self._send(topic, "system", {**payload, "status": status, "message": message})

    async def _reply(self, topic: str, ref: str | None, response: Frame) -> None:
        await self._send(topic, "phx_reply", {"status": "ok", "response": response}, ref)

    async def _send(self, topic: str, event: str, payload: Frame, ref: str | None = None) -> None:
        frame = {"topic": topic, "event": event, "payload": payload, "ref": ref}
        # Who has gone is told nothing, and its socket ends by itself.
        with suppress(ConnectionError):
            await self._socket.send_json(frame)


_UNABLE = "Unable to subscribe to changes: the publication supabase_realtime lacks"


def _fits(binding: Frame, change: RowChange) -> bool:
    relation = change.relation
    return (
        binding["event"] in ("*", change.kind)
        and binding.get("schema", "public") in ("*", relation.schema)
        and binding.get("table", "*") in ("*", relation.table)
    )


def _data(change: RowChange) -> Frame:
    relation = change.relation
    columns = [{"name": c.name, "type": _type(c.type)} for c in relation.columns]
    data: dict[str, Any] = {
        "schema": relation.schema,
        "table": relation.table,
        "type": change.kind,
        "commit_timestamp": change.committed.astimezone(UTC).isoformat(timespec="milliseconds"),
        "columns": columns,
        "errors": None,
    }
    if change.kind != "DELETE":
        data["record"] = change.record
    if change.kind != "INSERT":
        data["old_record"] = change.old
    return data


def _type(oid: int) -> str:
    known = types.get(oid)
    return known.name if known else "unknown"


def main() -> None:
    server = StandIn(os.environ[DSN_VARIABLE], os.environ[KEY_VARIABLE])
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    print(f"{stamp} stand-in for Supabase Realtime on port {sys.argv[1]}", flush=True)
    # On loopback only: whoever reaches it may have it misbehave.
    web.run_app(
        server.app(), host="127.0.0.1", port=int(sys.argv[1]), print=None, shutdown_timeout=2
    )


if __name__ == "__main__":
    main()
