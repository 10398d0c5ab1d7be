"""A whole ftstream on a local stack: demo databases, connectors and workers, for demo, bench and tests.

It runs the commands that a user runs, as processes, so that what is shown is what there is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psycopg
from psycopg import sql

from ftstream.local.demo.schema import has_schema, load_schema
from ftstream.local.stack import Stack
from ftstream.local.stack.state import APPLY_ROLE, CONNECT_USER, WATCH_ROLE
from ftstream.settings import Settings

STOP_SECONDS = 40.0
"""A worker flushes for 20 s at most; then it leaves its group."""

SiteName = Literal["external", "supabase"]
SITES: tuple[SiteName, ...] = ("external", "supabase")


class CommandFailed(Exception):
    """A command ended with an error; the message is what it said."""


class FolderTaken(Exception):
    """A folder that is removed at the end must not hold anything before."""


@contextmanager
def temporary_stack(folder: Path, say: Callable[[str], None]) -> Iterator[Stack]:
    """A stack that is removed at the end. Raises FolderTaken, StackError."""
    if folder.exists() and any(folder.iterdir()):
        raise FolderTaken(
            f"{folder} is not empty, and would be removed at the end: name another with --dir, or"
            f" remove what an interrupted run left with `ftstream dev --dir {folder} down --wipe`"
        )
    stack = Stack(folder)
    try:
        stack.up(say)
        yield stack
    finally:
        stack.down(destroy=True)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off until what was started is also recorded, else nobody would stop it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread only
        return
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda n, _: caught.append(n)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        signal.raise_signal(caught[0])


class Rig:
    """A pair of databases on a running stack; a namespace keeps it apart from others there."""

    def __init__(self, stack: Stack, namespace: str = "") -> None:
        self.stack = stack
        self.namespace = namespace
        self.workers: list[subprocess.Popen[bytes]] = []
        self.overrides: dict[str, str] = {}
        """Variables that win over the rig's own, for its commands and workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_workers()

    def dsn(self, site: SiteName, user: str | None = None) -> str:
        """The URL of this rig's database; by default as its admin."""
        return self.stack.dsn(site, user=user, dbname=self.namespace or None)

    @property
    def settings(self) -> Settings:
        """This rig's settings."""
        return Settings.model_validate(self._values)

    @property
    def environment(self) -> dict[str, str]:
        """The same, as the variables that ftstream's commands read."""
        groups = {name: group for name, group in self._values.items() if isinstance(group, dict)}
        own = {
            f"FTSTREAM_{name}__{key}".upper(): value
            for name, group in groups.items()
            for key, value in group.items()
        }
        return {"FTSTREAM_NAMESPACE": self.namespace} | own | self.overrides

    @property
    def _values(self) -> dict[str, str | dict[str, str]]:
        return {
            "namespace": self.namespace,
            "external": {
                "admin_dsn": self.dsn("external"),
                "dsn": self.dsn("external", APPLY_ROLE),
                "watch_dsn": self.dsn("external", WATCH_ROLE),
            },
            "supabase": {
                "admin_dsn": self.dsn("supabase"),
                "dsn": self.dsn("supabase", APPLY_ROLE),
                "watch_dsn": self.dsn("supabase", WATCH_ROLE),
            },
            "kafka": {"bootstrap_servers": self.stack.bootstrap_servers},
            "connect": {
                "url": self.stack.connect_url,
                "username": CONNECT_USER,
                "password": self.stack.connect_password,
                "capture_password": self.stack.debezium_password,
            },
            # Several on one machine, which nobody asks.
            "listen": {"worker": "", "watcher": ""},
            "realtime": {
                "url": self.stack.realtime_url(self.namespace or None),
                "key": self.stack.realtime_key,
            },
        }

    def create_databases(self, *, keep: bool = False) -> None:
        """Databases of the rig's own, with the demo schema. A rig without a namespace uses the stack's.

        With `keep` a schema that is there already is left as it is.
        """
        for site in SITES:
            if self.namespace:
                with psycopg.connect(self.stack.dsn(site), autocommit=True) as connection:
                    connection.execute(
                        sql.SQL("create database {}").format(sql.Identifier(self.namespace))
                    )
            with psycopg.connect(self.dsn(site)) as connection:
                if not (keep and has_schema(connection)):
                    load_schema(connection)

    def run(self, *arguments: str) -> str:
        """Run an ftstream command; raises CommandFailed with what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "ftstream", *arguments],
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise CommandFailed(
                f"ftstream {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def start_worker(
        self,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a worker in a process group of its own: Ctrl-C is the rig's to pass on.

        `environment` adds to the rig's variables; `command` is a Python module and its
        arguments, if it is not ftstream's own worker.
        """
        output = (log or self.stack.folder / "logs" / "worker.log").open("ab")
        with output, _uninterrupted():
            worker = subprocess.Popen(
                [sys.executable, "-m", *(command or ("ftstream", "worker"))],
                env=os.environ | self.environment | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.workers.append(worker)
        return worker

    def remove(self) -> None:
        """Stop the workers and take connector, slot and topics away: they would go on working."""
        self.stop_workers()
        self.run("remove", "--yes")

    def stop_workers(self) -> list[int]:
        """Ask all workers to stop, wait, and return their exit codes; one that hangs is killed."""
        for worker in self.workers:
            worker.terminate()
        codes = [_end(worker) for worker in self.workers]
        self.workers.clear()
        return codes


def _end(worker: subprocess.Popen[bytes]) -> int:
    try:
        return worker.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        worker.kill()
        return worker.wait()
