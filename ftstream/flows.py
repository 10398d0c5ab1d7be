"""The five flows as frozen values, from which topics, connectors, triggers and agents derive."""

from __future__ import annotations

import enum
from collections.abc import Iterable
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
    """A synced table; excluded columns are left out of capture, apply and comparison alike.

    `written` is the column that says when a row was written, where the row is older than ftstream. Writes
    on Supabase are announced to whoever listens to the channel `notifies` (guidelines 5.2): all writers
    that notify commit one after the other, so only where somebody does.
    """

    name: str
    schema: str = "public"
    key: str = "id"
    written: str = "updated_at"
    excluded: frozenset[str] = frozenset()
    notifies: str = ""

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Flow:
    """A group of tables with one way of capture, one direction and one conflict rule."""

    name: str
    tables: tuple[Table, ...]
    capture: Capture
    sources: tuple[Site, ...]
    conflict: Conflict

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
    def two_way(self) -> bool:
        """Whether both sites may write: of two writes of a row the last one stays."""
        return self.capture is Capture.OUTBOX and self.owner is None

    @property
    def guarded(self) -> Site | None:
        """The site that refuses edits of this flow's tables."""
        return None if self.owner is None else self.owner.other

    def entity_type(self, table: Table) -> str:
        """Return what sync_status calls a table: without its flow's prefix (guidelines 4.2)."""
        return table.name.removeprefix(f"{self.name}_")

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
    tables=(
        Table("player_overrides", notifies="override_changes"),
        Table("profile_images", written="uploaded_at"),
    ),
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


@dataclass(frozen=True, slots=True)
class LogCapture:
    """What one Debezium connector reads from External's write-ahead log.

    A flow captured from the log has one of its own. Those captured by outbox share one, which reads
    the outbox and gives each change the topic of its table.
    """

    name: str
    tables: tuple[Table, ...]
    flows: tuple[Flow, ...]

    @property
    def outbox(self) -> bool:
        return self.tables == (OUTBOX,)


OUTBOX = Table("outbox", schema="ftstream")


def log_captures(flows: Iterable[Flow]) -> tuple[LogCapture, ...]:
    """The connectors of these flows."""
    flows = tuple(flow for flow in flows if Site.EXTERNAL in flow.sources)
    by_outbox = tuple(flow for flow in flows if flow.capture is Capture.OUTBOX)
    return (
        *(LogCapture(f.name, f.tables, (f,)) for f in flows if f.capture is Capture.LOG),
        *((LogCapture("outbox", (OUTBOX,), by_outbox),) if by_outbox else ()),
    )


def captures_of(flows: Iterable[Flow], staying: Iterable[Flow]) -> tuple[LogCapture, ...]:
    """The connectors that go with these flows: none that a flow which stays has a share in."""
    shared = {capture.name for capture in log_captures(staying)}
    return tuple(capture for capture in log_captures(flows) if capture.name not in shared)


HEARTBEAT_PREFIX = "ftstream_hb"
"""Of the messages in the log that a connector's heartbeats are."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a flow's topics are called.

    A namespace in front keeps two installations (production and rehearsal, or two tests) apart
    on one Kafka; without one the names are those of the guidelines (3.1).
    """

    flow: Flow
    namespace: str = ""

    def topic(self, table: Table, source: Site) -> str:
        return f"{self.topic_prefix(source)}{table.name}"

    def topic_prefix(self, source: Site) -> str:
        """Return what stands before the table's name."""
        origin = source.value if self.flow.capture is Capture.OUTBOX else self.flow.name
        return f"{_dotted(self.namespace)}{origin}."

    def topics(self, target: Site) -> tuple[str, ...]:
        """The change topics that the agent for this target reads, in the order of the tables."""
        return tuple(self.topic(table, target.other) for table in self.flow.tables)

    def last_write(self, target: Site) -> str:
        """The Faust Table of the agent for this target."""
        return f"last_write-{self.flow.name}-{target}"

    def changelog(self, target: Site) -> str:
        """The topic that Faust keeps that Table in."""
        return f"{app_id(self.namespace)}-{self.last_write(target)}-changelog"


@dataclass(frozen=True, slots=True)
class CaptureNames:
    """What a connector's things are called in Kafka, Connect and PostgreSQL."""

    capture: LogCapture
    namespace: str = ""

    @property
    def topics(self) -> tuple[str, ...]:
        """The change topics that it writes."""
        names = (Names(flow, self.namespace) for flow in self.capture.flows)
        return tuple(topic for each in names for topic in each.topics(Site.SUPABASE))

    @property
    def heartbeat_topic(self) -> str:
        return f"{self._dotted}heartbeat"

    @property
    def signal_topic(self) -> str:
        return f"{self._dotted}signal"

    @property
    def notification_topic(self) -> str:
        return f"{self._dotted}notification"

    @property
    def prefix(self) -> str:
        """Debezium's topic.prefix."""
        return f"{_dotted(self.namespace)}{self.capture.name}_cdc"

    @property
    def keepalive_topic(self) -> str:
        """Debezium's own heartbeat, which only moves Connect's offsets."""
        return f"__debezium-heartbeat.{self.prefix}"

    @property
    def connector(self) -> str:
        before = f"{self.namespace}-" if self.namespace else ""
        return f"{before}{self.capture.name}-postgres-connector"

    @property
    def slot(self) -> str:
        return f"{self._scored}slot"

    @property
    def publication(self) -> str:
        return f"{self._scored}publication"

    @property
    def _dotted(self) -> str:
        return f"{_dotted(self.namespace)}{self.capture.name}."

    @property
    def _scored(self) -> str:
        before = f"{self.namespace}_" if self.namespace else ""
        return f"{before}{self.capture.name}_"


def app_id(namespace: str) -> str:
    """Return what Faust's app is called, and so the workers' consumer group."""
    return f"{_dotted(namespace)}ftstream"


def _dotted(namespace: str) -> str:
    return f"{namespace}." if namespace else ""
