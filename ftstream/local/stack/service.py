"""What the stack asks of each of its processes."""

from __future__ import annotations

import base64
import http.client
import signal
from pathlib import Path
from typing import Protocol

from ftstream.local.stack.process import Command


class Service(Protocol):
    """One process: how to prepare, start, probe and stop it."""

    @property
    def name(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def log(self) -> Path: ...

    @property
    def stop_signal(self) -> signal.Signals:
        """The signal that ends it cleanly and soon."""
        ...

    def prepare(self) -> None:
        """Makes its folder and configuration; keeps data that is already there."""
        ...

    def command(self) -> Command: ...

    def probe(self) -> str | None:
        """None when it does its work, else the reason why not; answers within seconds."""
        ...

    def settle(self) -> None:
        """Runs after each start, once it answers; can run again."""
        ...


def probe_http(port: int, path: str, login: tuple[str, str] | None = None) -> str | None:
    """None once what listens there answers (to user and password), else why not."""
    headers = {} if login is None else {"Authorization": _basic(*login)}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        connection.request("GET", path, headers=headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return None if status == http.HTTPStatus.OK else f"GET {path} answers {status}"


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
