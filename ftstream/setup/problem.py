"""One thing that keeps the flows from working, or that a person should know of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong where, and how to fix it; `fatal` ones keep `init` from starting."""

    where: str
    what: str
    hint: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.what}.{' ' if self.hint else ''}{self.hint}"
