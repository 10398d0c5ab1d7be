"""What can go wrong with the local stack; every message says what happened and what to do."""

from __future__ import annotations

from pathlib import Path


class StackError(Exception):
    """The local stack could not do what was asked."""


class MissingPrerequisites(StackError):
    """Programs that the stack needs are not installed; the message lists all of them."""


class StartFailed(StackError):
    """A process ended early, or did not answer before its deadline; shows the end of its log."""

    def __init__(self, name: str, what: str, log: Path) -> None:
        self.name = name
        self.log = log
        super().__init__(f"{name} {what}\nThe end of {log}:\n{tail(log)}")


def tail(log: Path, lines: int = 25, size: int = 64 * 1024) -> str:
    """The last lines of a file, indented, reading at most `size` bytes of it."""
    if not log.exists():
        return "  (there is no such file)"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - size))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (it is empty)"
