"""What the person on duty should know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ftstream.failures import Severity
from ftstream.messages.change import Change


@dataclass(frozen=True, slots=True)
class Notification:
    """One thing to know; the same `kind` and `title` again is counted, not repeated, until read."""

    kind: str
    severity: Severity
    title: str
    message: str
    metadata: Mapping[str, object] = field(default_factory=dict)

    @property
    def storable(self) -> Notification:
        """The same without what no text of PostgreSQL holds: it quotes what came from topics."""
        metadata = {k: _plain(v) if isinstance(v, str) else v for k, v in self.metadata.items()}
        title, message = _plain(self.title), _plain(self.message)
        return replace(self, title=title, message=message, metadata=metadata)


def _plain(text: str) -> str:
    return text.replace("\0", "\\x00")


Notify = Callable[[Notification], None]
"""Whatever hands a notification on; it never waits and never fails."""


def halted(flow: str, reason: str) -> Notification:
    """A flow does nothing any more until somebody fixes it."""
    return Notification(
        "flow_halted", Severity.CRITICAL, f"flow {flow} halted", reason, {"flow": flow}
    )


def dead(flow: str, changes: int, reason: str) -> Notification:
    """Changes wait for a person."""
    return Notification(
        "dead_change",
        Severity.ERROR,
        f"flow {flow}: dead changes",
        f"{changes} more: {reason}. Look: ftstream dead list",
        {"flow": flow},
    )


def dead_dropped(site: str, changes: int, days: int) -> Notification:
    """The settings say how long dead changes are kept."""
    return Notification(
        "dead_dropped",
        Severity.WARNING,
        f"{site}: dead changes were dropped",
        f"{changes} had been dead for over {days} days (apply.dead_days). What they were of is in sync_log,"
        " outcome dropped",
    )


def truncated(flow: str, table: str) -> Notification:
    """A TRUNCATE is never repeated blindly."""
    return Notification(
        "truncate",
        Severity.WARNING,
        f"flow {flow}: {table} was truncated at its owner",
        "the target keeps its rows; to remove those that the owner does not have:"
        f" ftstream verify {flow} --table {table} --repair",
        {"flow": flow, "table": table},
    )


def unidentified(flow: str, table: str, instead: str) -> Notification:
    """A delete whose key the log does not hold, or may not."""
    return Notification(
        "delete_without_key",
        Severity.ERROR,
        f"flow {flow}: a delete of {table} came without its key",
        f"the log has {instead}, and no id, so that the row may still be on the target; no other row was"
        f" deleted for it. At its owner: ALTER TABLE {table} REPLICA IDENTITY DEFAULT; then: ftstream verify"
        f" {flow} --table {table} --repair",
        {"flow": flow, "table": table},
    )


def columns_differ(flow: str, table: str, columns: str) -> Notification:
    """Columns that one site has alone are not carried."""
    return Notification(
        "columns_differ",
        Severity.WARNING,
        f"flow {flow}: columns of {table} differ",
        f"not carried: {columns}. Have both sites add them, or generate them, or exclude them in flows.py;"
        " then:"
        f" ftstream verify {flow} --table {table} --repair",
        {"flow": flow, "table": table},
    )


def types_differ(flow: str, table: str, columns: str) -> Notification:
    """Columns whose type at the target may not hold every value."""
    return Notification(
        "types_differ",
        Severity.WARNING,
        f"flow {flow}: types of {table} differ",
        f"a value that the target cannot hold exactly is parked, never rounded: {columns}. Make them alike"
        f" (ALTER TABLE {table} ALTER ... TYPE ...), then: ftstream dead retry",
        {"flow": flow, "table": table},
    )


def columns_carried(flow: str, table: str, columns: str) -> Notification:
    """Columns that both sites have by now."""
    return Notification(
        "columns_carried",
        Severity.INFO,
        f"flow {flow}: columns of {table} are carried from now on: {columns}",
        f"rows written before may differ in them: ftstream verify {flow} --table {table} --repair",
        {"flow": flow, "table": table},
    )


def columns_waiting(flow: str, table: str, columns: str) -> Notification:
    """Columns that both sites have, and the schema of the messages has not."""
    return Notification(
        "columns_waiting",
        Severity.WARNING,
        f"flow {flow}: columns of {table} are on both sites, but not carried yet: {columns}",
        f"they are carried by the runs after: ftstream schemas accept {table}",
        {"flow": flow, "table": table},
    )


def setup_broken(what: str, command: str, *, lost: bool) -> Notification:
    """Something of the set-up is not as promised; `lost`: what is written meanwhile is not captured."""
    missing = " What is written meanwhile is missing on the other site until both are compared."
    return Notification(
        "setup_broken",
        Severity.CRITICAL if lost else Severity.ERROR,
        what,
        f"to mend it: {command}.{missing if lost else ''}",
    )


def setup_mended(what: str) -> Notification:
    """What was not as promised is so again."""
    return Notification(
        "setup_mended", Severity.INFO, f"over: {what}", "it is as it should be again"
    )


def gap_closed(gap: str, rows: int, kept: int) -> Notification:
    """Both sites were compared over a gap; `kept` rows were overwritten in it, perhaps untold edits."""
    message = (
        f"both sites were compared; {rows} rows were missing or different, and are brought in step"
    )
    if kept:
        message += (
            f". {kept} rows were overwritten by edits of the other site meanwhile: what they were is in"
            " ftstream.displaced there, since nobody had captured it"
        )
    return Notification(
        "gap_closed",
        Severity.WARNING if kept else Severity.INFO,
        f"gap closed: {gap}",
        message,
        {"rows": rows, "kept": kept},
    )


def gap_left(gap: str, reason: str, command: str) -> Notification:
    """A gap that does not close by itself."""
    return Notification("gap_left", Severity.ERROR, f"gap: {gap}", f"{reason}. Then: {command}")


def run_failed(flow: str, reason: str, *, halted: bool, table: str = "") -> Notification:
    """A run of a flow captured by batch, or of one table of it; `halted`: it does not go on by itself."""
    run = f"the run of {table}" if table else "a run"
    return Notification(
        "run_failed",
        Severity.CRITICAL if halted else Severity.ERROR,
        f"flow {flow}: {run} {'needs a decision' if halted else 'failed'}",
        f"{reason}{'' if halted else '. It is tried again. Look: ftstream batch status'}",
        {"flow": flow},
    )


def columns_new(flow: str, table: str, columns: str) -> Notification:
    """Columns that External has, and the kept schema has not."""
    return Notification(
        "columns_new",
        Severity.WARNING,
        f"flow {flow}: columns of {table} are new",
        f"not carried: {columns}. To carry them: ftstream schemas accept {table}",
        {"flow": flow, "table": table},
    )


def edits_undone(flow: str, table: str, rows: int) -> Notification:
    """External owns these tables."""
    return Notification(
        "edits_undone",
        Severity.WARNING,
        f"flow {flow}: rows of {table} were edited on Supabase",
        f"{rows} rows are as on External again, which owns them; how they were is in ftstream.sync_log"
        " (outcome superseded, details)",
        {"flow": flow, "table": table, "rows": rows},
    )


def edit_refused(flow: str, change: Change) -> Notification:
    """A write cannot stand at the other site; its own has taken the row as it is there."""
    now = "is deleted, as it is not there" if change.image is None else "is as that site has it"
    because = change.refusal.because if change.refusal else ""
    return Notification(
        "edit_refused",
        Severity.WARNING,
        f"flow {flow}: writes were refused by the other site",
        f"{because}. The row {now} now; all that was written is in its history:"
        f" ftstream history {change.table} {change.entity_id}",
        {"flow": flow, "table": change.table, "id": change.entity_id},
    )


def fight(flow: str, because: str, times: int) -> Notification:
    """A row is refused time and again: two writers disagree, each on a site."""
    return Notification(
        "fight",
        Severity.ERROR,
        f"flow {flow}: two writers disagree",
        f"{because}. It was refused {times} times in ten minutes, and waits. Have one of the two give way",
        {"flow": flow},
    )


def too_old(flow: str, changes: int) -> Notification:
    """A write of an entity that nobody knows, from before deletes that are forgotten."""
    return Notification(
        "write_refused",
        Severity.ERROR,
        f"flow {flow}: writes were refused",
        f"{changes} more are older than deletes that both sites have forgotten, and might bring back what"
        f" was deleted. They are in sync_log. To decide by what the sites hold: ftstream reconcile {flow}",
        {"flow": flow},
    )


def clock_ahead(flow: str, seconds: float) -> Notification:
    """Last write wins by the clocks of two servers."""
    return Notification(
        "clock_ahead",
        Severity.WARNING,
        f"flow {flow}: a site's clock is ahead",
        f"writes come {seconds:.1f} s from the future: until then they win over later ones of the other"
        " site. Set the servers' clocks by NTP",
        {"flow": flow, "seconds": round(seconds, 1)},
    )
