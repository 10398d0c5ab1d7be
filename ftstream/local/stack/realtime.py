"""The stand-in for Supabase Realtime as a process of the local stack: see realtime_server."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ftstream.local.stack.process import Command
from ftstream.local.stack.service import probe_http

DSN_VARIABLE = "REALTIME_DSN"
KEY_VARIABLE = "REALTIME_API_KEY"


@dataclass(frozen=True)
class RealtimeProcess:
    """One server; it reaches the database when a client joins, so that either may start first."""

    folder: Path
    log: Path
    port: int
    dsn: str = field(repr=False)
    key: str = field(repr=False)

    name = "realtime"
    stop_signal = signal.SIGTERM

    def prepare(self) -> None:
        """Nothing to do: it keeps nothing."""

    def command(self) -> Command:
        argv = (sys.executable, "-m", "ftstream.local.stack.realtime_server", str(self.port))
        # In the environment: a command line is there for everybody to read.
        secrets = {DSN_VARIABLE: self.dsn, KEY_VARIABLE: self.key}
        return Command(argv, folder=self.folder, log=self.log, environment=secrets)

    def probe(self) -> str | None:
        return probe_realtime(self.port)

    def settle(self) -> None:
        """Nothing to do: the publication belongs to ftstream."""


def probe_realtime(port: int) -> str | None:
    """None once it answers, else why not."""
    return probe_http(port, "/_control")
