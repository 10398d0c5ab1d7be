"""What is said of rows that are too large for Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CAUSE = "RecordTooLargeException"
"""In the trace of a task that has met one; it names neither row nor table."""


@dataclass(frozen=True, slots=True)
class LargeRow:
    """A row, and the bytes that its values take in a record."""

    table: str
    id: str
    bytes: int

    def __str__(self) -> str:
        return f"{self.table} {self.id} ({self.bytes:,} bytes)"


def told(rows: Sequence[LargeRow], limit: int, flow: str) -> str:
    """Return which rows hold up a flow, and the way on."""
    named = "; ".join(map(str, rows)) or (
        "none as External holds it now. It was shortened or deleted since, and the log has it as it was, or"
        " an update carries it twice (REPLICA IDENTITY FULL)"
    )
    return (
        f"a row is too large for Kafka, which takes {limit:,} bytes: {named}. To carry on:"
        f" ftstream connectors apply {flow} --pass-too-large"
    )
