"""Who is told of alerts, in tests: what takes Slack's webhooks and heartbeats, and a mail server."""

from __future__ import annotations

import email
import email.policy
import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller

from ftstream.local.stack.ports import choose_ports
from tests.conftest import until


@dataclass(frozen=True, slots=True)
class Taken:
    """A message, and when it came."""

    text: str
    at: float


class _Told:
    """What has come so far, to wait for more."""

    taken: list[Taken]

    def told(self, code: str, *, over: bool = False) -> list[Taken]:
        """The messages of this code, of its end or of anything else."""
        return [
            each
            for each in list(self.taken)
            if f"[{code}]" in each.text and ("(over)" in each.text) is over
        ]

    def wait_for(
        self, code: str, *, over: bool = False, since: int = 0, seconds: float = 90.0
    ) -> Taken:
        """Wait for one more message of this code than there were before."""
        try:
            until(lambda: len(self.told(code, over=over)) > since, seconds)
        except AssertionError:
            texts = "\n".join(each.text for each in self.taken)
            raise AssertionError(
                f"{code} {'over ' if over else ''}was not told:\n{texts}"
            ) from None
        return self.told(code, over=over)[since]


class Receiver(_Told):
    """A context manager; `url` is one of watch.receivers, for Apprise."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self.beats: list[float] = []
        self.refuses = False
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not receiver.refuses:
                    receiver.taken.append(Taken(document["text"], time.monotonic()))
                self._answer(500 if receiver.refuses else 200)

            def do_GET(self) -> None:
                receiver.beats.append(time.monotonic())
                self._answer(200)

            def _answer(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing: the test looks at what was taken."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"mmost://127.0.0.1:{self._server.server_port}/{'a' * 24}?image=no"

    @property
    def environment(self) -> dict[str, str]:
        """Settings of a watcher that looks every second, and tells this receiver."""
        return self.environment_with()

    def environment_with(self, *others: str) -> dict[str, str]:
        """The same, with receivers at these URLs besides."""
        who = [
            {"name": f"duty {n}", "url": url, "least": "info"}
            for n, url in enumerate((self.url, *others), 1)
        ]
        return {
            "FTSTREAM_WATCH__RECEIVERS": json.dumps(who),
            "FTSTREAM_WATCH__HEARTBEAT_URL": f"http://127.0.0.1:{self._server.server_port}/",
            "FTSTREAM_WATCH__HEARTBEAT_SECONDS": "1",
            "FTSTREAM_WATCH__LANGUAGE": "en",
            "FTSTREAM_WATCH__MORNING": "23:59",
            "FTSTREAM_WATCH__LOOK_SECONDS": "2",
            "FTSTREAM_WATCH__SECONDS": "3",
        }


class Mailbox(_Told):
    """A context manager: a mail server on loopback; `url` is one of watch.receivers."""

    def __init__(self) -> None:
        self.taken = []
        self._port = choose_ports(1)[0]
        self._server = Controller(self, hostname="127.0.0.1", port=self._port)

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        """Keep a mail as its subject and text."""
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        part = message.get_body(("plain", "html"))
        text = part.get_content() if part is not None else ""
        self.taken.append(Taken(f"{message['Subject']}\n{text}", time.monotonic()))
        return "250 OK"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        return (
            f"mailto://127.0.0.1:{self._port}?from=ftstream@crew.tv&to=duty@crew.tv&mode=insecure"
        )
