"""What goes wrong with Kafka Connect, in words for the operator and without secrets."""

from __future__ import annotations

from http import HTTPStatus

LOGIN = ". Are connect.username and connect.password right?"


class ConnectError(Exception):
    """Something that was asked of Kafka Connect did not work; the message says what to do."""


class ConnectUnreachable(ConnectError):
    """Nothing answers at the URL, or not in time."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"Kafka Connect does not answer at {url} ({reason}). "
            "Is it running, and is connect.url right?"
        )


class ConnectRefused(ConnectError):
    """Connect answered with an error; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        hint = LOGIN if status == HTTPStatus.UNAUTHORIZED else ""
        super().__init__(f"Kafka Connect refused ({status}): {message}{hint}")
        self.status = status
        self.message = message


class PluginMissing(ConnectError):
    """The worker lacks the Debezium plugin, or has one that is too old."""


class TaskFailed(ConnectError):
    """A connector (`task` None) or one of its tasks has failed; `trace` are its first lines."""

    def __init__(self, connector: str, task: int | None, cause: str, trace: str) -> None:
        part = connector if task is None else f"{connector}, task {task}"
        super().__init__(f"{part} failed: {cause}")
        self.connector = connector
        self.task = task
        self.cause = cause
        self.trace = trace


class NotStopped(ConnectError):
    """The connector did not stop in time."""


class NotRunning(ConnectError):
    """The connector did not come to run in time."""
