"""What can become of a change: one list of names, from sync_log to what people read."""

from __future__ import annotations

import enum


class Outcome(enum.StrEnum):
    """What became of a change, as sync_log tells it."""

    APPLIED = "applied"
    MERGED = "merged"  # its values went in with a later change of the same batch
    REREAD = "reread"  # applied as its owner held the row at that moment, later changes included
    SUPERSEDED = "superseded"  # its owner has deleted the row since: a later change says so
    RECORDED = "recorded"  # a TRUNCATE: never repeated blindly
    PARKED = "parked"  # it waits; what becomes of it has a row of its own
    DEAD = "dead"  # it waits for a person
    DROPPED = "dropped"  # a person gave it up, or the settings did
    # Of flows that both sites may write:
    DUPLICATE = "duplicate"  # it had come before
    REFUSED = "refused"  # it cannot stand here: its own site is told to take the row as it is here
    CONFLICT_UPDATE_UPDATE = "conflict_update_update"  # lost to a write that did not know of it
    CONFLICT_UPDATE_DELETE = "conflict_update_delete"
    CONFLICT_DELETE_UPDATE = "conflict_delete_update"
    CONFLICT_INSERT_INSERT = "conflict_insert_insert"
    # Of flows captured by batch:
    RUN_DONE = "run_done"
    RUN_FAILED = "run_failed"
