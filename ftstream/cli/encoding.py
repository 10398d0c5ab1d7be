"""How values that JSON does not have stand in documents for programs."""

from __future__ import annotations

from datetime import datetime, timedelta


def encoded(value: object) -> str | float:
    """Times in ISO 8601, lengths in seconds; for `json.dumps`."""
    match value:
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case _:
            raise TypeError(f"{type(value).__name__} is not to be in a document")
