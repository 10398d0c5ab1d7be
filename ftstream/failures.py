"""Every way an apply can fail, and what follows: one table from SQLSTATE to policy."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass


class Severity(enum.StrEnum):
    """How soon somebody should look."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class Policy(enum.Enum):
    """What the writer does about a failure."""

    RETRY = "retry"  # the world's fault: again, with backoff, as long as it takes
    FENCED = "fenced"  # another worker applied these records: reload the offsets, drop what is done
    REREAD = "reread"  # the log's images do not fit together: ask the owner for its rows
    WAIT = "wait"  # others hold rows: those wait alone, as long as it takes
    DIVIDE = "divide"  # too much at once: the batch is halved
    PARK = "park"  # a value does not fit: the change waits, the others go on
    HALT = "halt"  # schema or configuration: only a person can fix it

    @property
    def later(self) -> Policy:
        """The policy once the owner's rows did not help."""
        return Policy.PARK if self is Policy.REREAD else self


@dataclass(frozen=True, slots=True)
class Failure:
    """A classified error: what to do, what happened, and a hint for the operator."""

    policy: Policy
    sqlstate: str
    message: str
    hint: str
    table: str | None = None
    detail: str = ""

    @property
    def connection(self) -> bool:
        """Whether the connection was lost or could not be made."""
        return not self.sqlstate or self.sqlstate[:2] == "08"


class Halted(Exception):
    """Only a person can fix it; the message says what happened and what to do."""


class FlowHalted(Halted):
    """A flow stops, having applied nothing of what it cannot apply."""

    def __init__(self, flow: str, failure: Failure) -> None:
        hint = f" ({failure.hint})" if failure.hint else ""
        super().__init__(f"flow {flow} halted: {failure.message}{hint}")


FENCED = "FT001"
"""Raised by the offsets statement: the applied offsets are not where this worker left them."""
ROW_MISSING = "FT002"
"""Raised by the patch statement: the target lacks a row that the change completes."""

PARENT_MISSING = "FT005"
"""Raised by require_parents: a row refers to one that the target does not have."""
REFERRED_TO = "FT006"
"""Raised by release_children: a row that is to be deleted is referred to, and must not go."""
NEVER_MET = "FT007"
"""Of ftstream's own: a site may hold rows that the other one was never told of."""

NOT_LOST = "FT008"
"""Raised by require_lost: a change that seemed to have lost has not, and the batch is applied in full."""

INEXACT = "FT017"
"""Raised by inexact: a value that the target's column would round, cut or write otherwise."""
TABLE_ALTERED = "FT018"
"""Raised by require_unchanged: the statements may not fit the target's tables any more."""

OF_ANOTHER = "FT019"
"""Raised by require_rights and release: the other table of a foreign key belongs to a stranger."""

KEY_SPELT_OTHERWISE = "FT021"
"""Of ftstream's own: a key as PostgreSQL does not spell it would be another entity, of the same row."""

FROM_THE_FUTURE = "FT020"
"""Of ftstream's own: a write that says it was made later than any clock shows."""

UNDEFINED_TABLE = "42P01"
UNSUPPORTED = "0A000"
"""PostgreSQL's own, for a feature that is not supported: here, a type that cannot be carried."""

OF_ONE_TABLE = frozenset(("42P10", "42804", "42846", "428C9"))
"""SQLSTATEs of statements that fit no row of their table."""

_TYPES = (
    "the column's type on the target does not take the source's values: make both alike, or exclude it"
    " in flows.py; then `ftstream dead retry --all`"
)

_BY_STATE: dict[str, tuple[Policy, str]] = {
    FENCED: (Policy.FENCED, "another worker holds this partition now; nothing is applied twice"),
    ROW_MISSING: (Policy.REREAD, "the rows are read from their owner"),
    PARENT_MISSING: (Policy.PARK, "it waits until the row comes that it refers to"),
    REFERRED_TO: (Policy.PARK, "it waits until nothing refers to it any more"),
    OF_ANOTHER: (
        Policy.PARK,
        "nothing that belongs to another role runs with ftstream's rights: do there what the constraint"
        " says, or drop it; then `ftstream dead retry`, if it is dead by then",
    ),
    KEY_SPELT_OTHERWISE: (
        Policy.PARK,
        "no writer of ftstream's spells it so: somebody else may write to the topic; `ftstream dead drop` it",
    ),
    NOT_LOST: (Policy.RETRY, "the batch is applied without the Table"),
    INEXACT: (
        Policy.PARK,
        "give the column the other site's type (ALTER TABLE ... ALTER ... TYPE ...), or change the value"
        " there; then `ftstream dead retry`, if it is dead by then",
    ),
    TABLE_ALTERED: (Policy.RETRY, "the catalogs are read again"),
    "23505": (Policy.REREAD, "a unique value moved between rows; they are read from their owner"),
    "55P03": (Policy.WAIT, "a row is locked by another session: see pg_locks for who holds it"),
    "25006": (Policy.RETRY, "the database is read-only: out of disk, or a standby"),
    "25P02": (Policy.RETRY, "the transaction had failed before"),
    "25P03": (Policy.RETRY, "the connection was idle for too long"),
    "53100": (Policy.RETRY, "the database's disk is full: free space or grow it"),
    "57014": (Policy.DIVIDE, "a statement ran into statement_timeout"),
    "42501": (Policy.HALT, "the apply role lacks a right: run `ftstream init` again"),
    UNDEFINED_TABLE: (
        Policy.HALT,
        "a table is missing: create it on the target, or run `ftstream init`",
    ),
    UNSUPPORTED: (Policy.HALT, "fix the schema, then start the worker again"),
    "42703": (Policy.HALT, "a column is missing: the sites' tables differ"),
    # Of one table, whose changes wait; those of the flow's other tables go on.
    "42P10": (
        Policy.PARK,
        "the target's table has no unique key on its id: ALTER TABLE ... ADD PRIMARY KEY (id)"
        " there, then `ftstream dead retry --all`",
    ),
    "42804": (Policy.PARK, _TYPES),
    "42846": (Policy.PARK, _TYPES),
    "428C9": (
        Policy.PARK,
        "the target gives the column its value: make it plain or GENERATED BY DEFAULT there, or"
        " exclude it in flows.py; then `ftstream dead retry --all`",
    ),
}
_BY_CLASS: dict[str, tuple[Policy, str]] = {
    "08": (Policy.RETRY, "the connection broke or cannot be made: is the database up?"),
    "25": (Policy.RETRY, "the database ended the transaction"),
    "40": (Policy.RETRY, "another transaction was in the way"),
    "53": (Policy.RETRY, "the database is out of a resource"),
    "57": (Policy.RETRY, "the database is shutting down or starting"),
    "58": (Policy.RETRY, "the database met a system error: see its log"),
    "XX": (Policy.RETRY, "an internal error of the database, or of the pooler before it"),
    # Halting would not be better: a password may be changed there first, and here later.
    "28": (
        Policy.RETRY,
        "the database refuses the login: check dsn (user, password) in the settings",
    ),
    "3D": (Policy.RETRY, "there is no such database: check dsn in the settings"),
    "22": (Policy.PARK, "a value does not fit the target's column: compare the sites' schemas"),
    "21": (Policy.PARK, "the change does not go together with others of its batch"),
    "54": (Policy.PARK, "a value is larger than the target takes"),
    "23": (Policy.PARK, "the row breaks a constraint of the target: compare the sites' schemas"),
    "42": (Policy.HALT, "the target's schema is not what the flow needs: run `ftstream init`"),
}


_REFUSED = re.compile(r"authentication failed|role .* (does not exist|is not permitted)")


def classify(
    sqlstate: str | None, message: str, table: str | None = None, detail: str = ""
) -> Failure:
    """The failure behind an error of PostgreSQL; without a SQLSTATE the connection was lost."""
    message = " ".join(message.split())  # the library's hints are on lines of their own
    if not sqlstate:
        # libpq has no SQLSTATE for a connection that fails, only the server's words.
        policy, hint = _BY_CLASS["28" if _REFUSED.search(message) else "08"]
        return Failure(policy, "", message, hint)
    policy, hint = _BY_STATE.get(sqlstate) or _BY_CLASS.get(
        sqlstate[:2], (Policy.HALT, "an error ftstream does not know: see the message")
    )
    return Failure(policy, sqlstate, message, hint, table, detail)
