"""Starts, watches and stops one child process in a session of its own."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TypedDict

import psutil

from ftstream.local.stack.errors import StackError, StartFailed

LOG_LIMIT = 50 * 1024 * 1024
POLL_SECONDS = 0.1
KILL_SECONDS = 10.0

# Linux derives a start time from the boot time, which moves when the clock is set.
START_TIME_TOLERANCE = 2.0

# Kept so that a child that ends is reaped: a zombie would still count as a process.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Identity:
    """A process: a pid alone may belong to another program after a crash or a reboot.

    `started` is in seconds since the epoch, as psutil tells it.
    """

    pid: int
    started: float


@dataclass(frozen=True)
class Command:
    """What to run; `user` is set only where root starts a program that refuses to be root."""

    argv: tuple[str, ...]
    folder: Path
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None


class AsUser(TypedDict, total=False):
    user: str
    group: int
    extra_groups: list[int]


def spawn(command: Command) -> Identity:
    """Starts the process, detached from this terminal, its output appended to its log."""
    _rotate(command.log)
    with command.log.open("ab") as log:
        child = subprocess.Popen(
            command.argv,
            cwd=command.folder,
            env={**_environment(), **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **as_user(command.user),
        )
    _children[child.pid] = child
    return Identity(child.pid, psutil.Process(child.pid).create_time())


def run(argv: tuple[str, ...], folder: Path, user: str | None = None) -> None:
    """Runs a tool to its end. Raises StackError with what it printed."""
    done = subprocess.run(
        argv,
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **as_user(user),
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        raise StackError(f"{Path(argv[0]).name} failed ({done.returncode}):\n{said}")


def alive(identity: Identity | None) -> bool:
    """Say whether this very process still runs (not another one with its pid, not a zombie)."""
    return _find(identity) is not None


def send(identity: Identity | None, number: signal.Signals) -> None:
    """Sends a signal; what cannot be caught goes to the descendants as well.

    PostgreSQL puts each backend in a session of its own, so a signal to the group misses them,
    and a new postmaster refuses to start while one of them lives.
    """
    process = _find(identity)
    if process is None:
        return
    whole = number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT)
    targets = [process, *(process.children(recursive=True) if whole else [])]
    for target in targets:
        _signal(target, number)
    if number == signal.SIGKILL and not _wait_for_end(targets, KILL_SECONDS):
        raise StackError(f"process {process.pid} did not end although it was killed")


def stop(identity: Identity | None, gentle: signal.Signals, patience: float) -> None:
    """Asks the process to end, waits `patience` seconds, then kills it and its descendants."""
    process = _find(identity)
    if process is None:
        return
    send(identity, signal.SIGCONT)  # one that a test has frozen would not hear the request
    _signal(process, gentle)
    if not _wait_for_end([process], patience):
        send(identity, signal.SIGKILL)


def wait_until_ready(
    name: str,
    identity: Identity,
    log: Path,
    probe: Callable[[], str | None],
    seconds: float,
    cancelled: Event,
) -> None:
    """Waits until `probe` returns None; else it returns why the process is not ready.

    Raises StartFailed when the process ends first or the deadline passes.
    """
    deadline = time.monotonic() + seconds
    while reason := probe():
        if not alive(identity):
            raise StartFailed(name, "ended before it was ready.", log)
        if time.monotonic() > deadline:
            raise StartFailed(name, f"was not ready after {seconds:.0f} s: {reason}.", log)
        if cancelled.wait(POLL_SECONDS):
            raise StackError(f"{name} was starting when the start was given up")
    if not alive(identity):  # then another program answered in its place
        raise StartFailed(name, "ended, yet something answers on its port.", log)


def as_user(user: str | None) -> AsUser:
    """Arguments of Popen that run it as another user (root only)."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _find(identity: Identity | None) -> psutil.Process | None:
    if identity is None:
        return None
    _reap(identity.pid)
    try:
        process = psutil.Process(identity.pid)
        started = process.create_time()
    except psutil.NoSuchProcess:
        return None
    same = abs(started - identity.started) <= START_TIME_TOLERANCE
    return process if same and _runs(process) else None


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return  # it ended by itself meanwhile: what the caller wants


def _wait_for_end(processes: list[psutil.Process], seconds: float) -> bool:
    """Say whether all of them ended in time.

    Not psutil's own wait: it counts a zombie as running, and the init process that inherits ours
    may take seconds to reap it.
    """
    deadline = time.monotonic() + seconds
    while any(_runs(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS / 2)
    return True


def _runs(process: psutil.Process) -> bool:
    _reap(process.pid)
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_zombie(pid: int) -> bool:
    """Say whether a process has ended but its parent has not taken note of it yet."""
    _reap(pid)
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _reap(pid: int) -> None:
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        _children.pop(pid, None)


def _environment() -> dict[str, str]:
    """This environment without PG*: PGOPTIONS or PGDATA of the user would change the cluster."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _rotate(log: Path) -> None:
    """Keeps one older log, so that a stack used for months does not fill the disk."""
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
