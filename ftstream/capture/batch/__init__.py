"""Runs of flows captured by batch: what differs between External and Supabase is found, and published.

It is the comparison of `verify`, in one snapshot a site. Whatever made rows differ is one case: a late
commit, an updated_at that was set into the past, a delete, an edit on Supabase, a restored database.
"""

from ftstream.capture.batch.running import (
    RowsRefused,
    RunHalted,
    RunStopped,
    RunUnderWay,
    check,
    look,
    run,
    stopped,
)
from ftstream.capture.batch.table import RunStep, Say

__all__ = [
    "RowsRefused",
    "RunHalted",
    "RunStep",
    "RunStopped",
    "RunUnderWay",
    "Say",
    "check",
    "look",
    "run",
    "stopped",
]
