"""The five flows as frozen values, from which topics, connectors, triggers and agents derive."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Site(enum.StrEnum):
    """One of the two databases."""

    EXTERNAL = "external"
    SUPABASE = "supabase"

    @property
    def other(self) -> Site:
        return Site.SUPABASE if self is Site.EXTERNAL else Site.EXTERNAL


class Capture(enum.StrEnum):
    """How a flow learns of changes."""

    LOG = "log"  # Debezium reads the tables from External's write-ahead log
    BATCH = "batch"  # a comparison of both sites, on a schedule
    OUTBOX = "outbox"  # a trigger writes to ftstream.outbox in the writer's own transaction


class Conflict(enum.StrEnum):
    """Who wins when both sites hold a different row (guidelines 5.1)."""

    EXTERNAL_OWNS = "external owns"
    SUPABASE_OWNS = "supabase owns"
    LAST_WRITE_WINS = "last write wins"


@dataclass(frozen=True, slots=True)
class Table:
    """A synced table; excluded columns are left out of capture, apply and comparison alike."""

    name: str
    schema: str = "public"
    key: str = "id"
    excluded: frozenset[str] = frozenset()

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Flow:
    """A group of tables with one way of capture, one direction and one conflict rule.

    `ready` says that the flow has an agent: `init` and `connectors apply` touch no other flow.
    """

    name: str
    tables: tuple[Table, ...]
    capture: Capture
    sources: tuple[Site, ...]
    conflict: Conflict
    tie: Site = Site.SUPABASE
    ready: bool = False

    @property
    def targets(self) -> tuple[Site, ...]:
        return tuple(site.other for site in self.sources)

    @property
    def owner(self) -> Site | None:
        """The site that always wins, or None where the last write does."""
        match self.conflict:
            case Conflict.EXTERNAL_OWNS:
                return Site.EXTERNAL
            case Conflict.SUPABASE_OWNS:
                return Site.SUPABASE
            case Conflict.LAST_WRITE_WINS:
                return None

    @property
    def guarded(self) -> Site | None:
        """The site that refuses edits of this flow's tables."""
        return None if self.owner is None else self.owner.other

    def table(self, name: str) -> Table:
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(f"flow {self.name} has no table {name}")


def _tables(*names: str) -> tuple[Table, ...]:
    return tuple(Table(name) for name in names)


GFX = Flow(
    name="gfx",
    tables=_tables("gfx_sessions", "gfx_hands", "gfx_hand_players", "gfx_players"),
    capture=Capture.LOG,
    sources=(Site.EXTERNAL,),
    conflict=Conflict.EXTERNAL_OWNS,
    ready=True,
)
WSOP = Flow(
    name="wsop",
    tables=_tables("wsop_events", "wsop_players", "wsop_chip_counts"),
    capture=Capture.BATCH,
    sources=(Site.EXTERNAL,),
    conflict=Conflict.EXTERNAL_OWNS,
)
OVERRIDES = Flow(
    name="overrides",
    tables=_tables("player_overrides", "profile_images"),
    capture=Capture.OUTBOX,
    sources=(Site.EXTERNAL, Site.SUPABASE),
    conflict=Conflict.LAST_WRITE_WINS,
)
CUE_SHEETS = Flow(
    name="cue_sheets",
    tables=_tables("cue_sheets"),
    capture=Capture.OUTBOX,
    sources=(Site.EXTERNAL, Site.SUPABASE),
    conflict=Conflict.LAST_WRITE_WINS,
)
RENDER_QUEUE = Flow(
    name="render_queue",
    tables=_tables("render_queue"),
    capture=Capture.OUTBOX,
    sources=(Site.SUPABASE,),
    conflict=Conflict.SUPABASE_OWNS,
)

FLOWS: tuple[Flow, ...] = (GFX, WSOP, OVERRIDES, CUE_SHEETS, RENDER_QUEUE)
READY: tuple[Flow, ...] = tuple(flow for flow in FLOWS if flow.ready)


def flow_named(name: str) -> Flow:
    """The flow of that name; KeyError names the flows there are."""
    for flow in FLOWS:
        if flow.name == name:
            return flow
    raise KeyError(f"no flow {name!r}; the flows are {', '.join(f.name for f in FLOWS)}")


HEARTBEAT_PREFIX = "ftstream_hb"
"""Of the messages in the log that a flow's heartbeats are."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a flow's things are called in Kafka, Connect and PostgreSQL.

    A namespace in front keeps two installations (production and rehearsal, or two tests) apart
    on one Kafka; without one the names are those of the guidelines (3.1).
    """

    flow: Flow
    namespace: str = ""

    @property
    def _dotted(self) -> str:
        return f"{self.namespace}." if self.namespace else ""

    @property
    def _scored(self) -> str:
        return f"{self.namespace}_" if self.namespace else ""

    def topic(self, table: Table, source: Site) -> str:
        origin = source.value if self.flow.capture is Capture.OUTBOX else self.flow.name
        return f"{self._dotted}{origin}.{table.name}"

    def topics(self, target: Site) -> tuple[str, ...]:
        """The change topics that the agent for this target reads, in the order of the tables."""
        return tuple(self.topic(table, target.other) for table in self.flow.tables)

    @property
    def heartbeat_topic(self) -> str:
        return f"{self._dotted}{self.flow.name}.heartbeat"

    @property
    def signal_topic(self) -> str:
        return f"{self._dotted}{self.flow.name}.signal"

    @property
    def notification_topic(self) -> str:
        return f"{self._dotted}{self.flow.name}.notification"

    @property
    def capture_prefix(self) -> str:
        return f"{self._dotted}{self.flow.name}_cdc"

    @property
    def keepalive_topic(self) -> str:
        """Debezium's own heartbeat, which only moves Connect's offsets."""
        return f"__debezium-heartbeat.{self.capture_prefix}"

    @property
    def connector(self) -> str:
        prefix = f"{self.namespace}-" if self.namespace else ""
        return f"{prefix}{self.flow.name}-postgres-connector"

    @property
    def slot(self) -> str:
        return f"{self._scored}{self.flow.name}_slot"

    @property
    def publication(self) -> str:
        return f"{self._scored}{self.flow.name}_publication"
