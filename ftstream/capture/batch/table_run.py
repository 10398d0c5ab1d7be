"""What a run of a flow captured by batch finds and does in one table, and what it must not do by itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ftstream.compare.comparison import DifferenceKind

MOST_NAMED = 20
"""Rows that cannot travel, of which a run tells."""


@dataclass(slots=True)
class TableRun:
    """One table's share of a run."""

    table: str
    entity_type: str
    rows: int = 0
    """Of the source."""
    held: int = 0
    """Of the target, before."""
    kinds: Counter[DifferenceKind] = field(default_factory=Counter)
    """What differs."""
    published: int = 0
    """Messages that Kafka has, deletes among them."""
    deleted: int = 0
    undone: int = 0
    """Rows that were edited at the target since the last run."""
    waiting: int = 0
    """Rows that wait at the target already, or are dead: a delete, a value that does not fit there."""
    returned: int = 0
    """Rows that were gone in the snapshot, and have come again since."""
    withheld: int = 0
    """Rows whose delete waits until a person allows it."""
    referred: int = 0
    """Rows whose delete waits: at the target rows refer to them that do not go with this run."""
    doubt: str = ""
    """What a person is to decide, before this table's deletes are published, or any of it."""
    failure: str = ""
    """Why nothing of the table, or not all, is published."""
    refused: int = 0
    """Rows that cannot travel."""
    reasons: list[str] = field(default_factory=list)
    """Why the first of them cannot."""
    uncarried: tuple[str, ...] = ()
    """Columns that the kept schema does not have yet."""
    seconds: float = 0.0

    @property
    def found(self) -> int:
        """Rows that are to be published."""
        return self.kinds.total() - self.withheld

    @property
    def problem(self) -> str:
        """Why the run of this table is not done; empty if it is."""
        return self.doubt or self.failure or (_refusals(self) if self.refused else "")

    @property
    def details(self) -> dict[str, object]:
        """As sync_log has them."""
        return {
            "rows": self.rows,
            "found": self.found,
            "published": self.published,
            "deleted": self.deleted,
            "undone": self.undone,
            "waiting": self.waiting,
            "returned": self.returned,
            "withheld": self.withheld,
            "referred": self.referred,
            "refused": self.refused,
            "seconds": round(self.seconds, 3),
        }

    def refuse(self, reason: str) -> None:
        """A row cannot travel."""
        self.refused += 1
        if len(self.reasons) < MOST_NAMED:
            self.reasons.append(reason)

    def excess(self, most: int, percent: float, least: int) -> str:
        """Why so many deletes are not done without being asked for; empty if they may be.

        Up to `least` are done whatever the share, but not where the source has no row left.
        """
        deletes = self.kinds[DifferenceKind.EXTRA]
        if deletes <= least and self.rows:
            return ""
        if deletes <= most and deletes * 100 <= self.held * percent:
            return ""
        return (
            f"{self.table}: {deletes:,} of {self.held:,} rows would be deleted, since External does not have"
            f" them; without being told to, a run deletes {most:,} or {percent:g} %, whichever is less"
            f" (and {least:,} in any case, unless External's table is empty)"
        )


def _refusals(run: TableRun) -> str:
    told = "; ".join(run.reasons)
    more = (
        f", and {run.refused - len(run.reasons):,} more" if run.refused > len(run.reasons) else ""
    )
    return f"{run.refused:,} rows cannot travel, all others do: {told}{more}"
