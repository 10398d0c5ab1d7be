"""One thing that keeps the flows from working, or that a person should know of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong where, and how to fix it; `fatal` ones keep `init` from starting, a `note` is well."""

    where: str
    what: str
    hint: str
    fatal: bool = True
    note: bool = False

    @property
    def level(self) -> str:
        return "error" if self.fatal else "note" if self.note else "warning"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}.{' ' if self.hint else ''}{self.hint}"
