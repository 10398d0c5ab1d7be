"""How many rows a comparison may delete without being told to."""

from __future__ import annotations

from ftstream.settings import BatchSettings


def too_many(deletes: int, rows: int, bounds: BatchSettings) -> str:
    """Say why so many deletes are a person's to decide; empty if they are not."""
    few = deletes <= bounds.least_deletes and (deletes < rows or not deletes)
    share = deletes * 100 <= rows * bounds.most_deleted_percent
    if few or (deletes <= bounds.most_deletes and share):
        return ""
    return (
        f"{deletes:,} of {rows:,} rows would be deleted; without being told to, {bounds.most_deletes:,} or"
        f" {bounds.most_deleted_percent:g} % are, whichever is less"
    )
