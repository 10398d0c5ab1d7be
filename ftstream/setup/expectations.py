"""What one database should have for the flows: derived from flows.py and settings."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ftstream.flows import Capture, CaptureNames, Flow, LogCapture, Names, Site, Table, captures_of
from ftstream.settings import Database, Settings

CAPTURE_POLICY = "ftstream_capture"
APPLY_POLICY = "ftstream_apply"
WATCH_POLICY = "ftstream_watch"
DEFINER_POLICY = "ftstream_definer"
REPLICA_PARAMETER = "session_replication_role"
CAPTURE_SETTINGS = {
    # How values become text in the log: what the database or the server has reaches Debezium, too.
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    # What would end a snapshot in its middle, again and again.
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
"""What the capture role has in this database: the form that wins over all others."""
REALTIME_PUBLICATION = "supabase_realtime"
"""Supabase's own: Realtime tells of the changes of the tables in it. Others put theirs there, too."""

# What the worker's statements touch, and what people read with the same role.
_OFFSETS = ("ftstream.applied_offset", ("SELECT", "INSERT", "UPDATE"))
_LOG = ("ftstream.sync_log", ("SELECT", "INSERT"))
_DISPLACED = ("ftstream.displaced", ("SELECT", "INSERT"))
_PARKED = ("ftstream.parked_change", ("SELECT", "INSERT", "UPDATE", "DELETE"))
_LAST_WRITE = ("ftstream.last_write", ("SELECT", "INSERT", "UPDATE", "DELETE"))
_HORIZON = ("ftstream.horizon", ("SELECT", "INSERT", "UPDATE"))
_RECONCILED = ("ftstream.reconciled", ("SELECT", "INSERT", "UPDATE"))
_SETUP_SEEN = ("ftstream.setup_seen", ("SELECT", "INSERT", "UPDATE"))
_LINEAGE = ("ftstream.lineage", ("SELECT", "INSERT", "UPDATE", "DELETE"))
_GAP = ("ftstream.gap", ("SELECT", "INSERT", "UPDATE", "DELETE"))
_TURN = ("ftstream.turn", ("SELECT", "INSERT", "UPDATE"))
_OUTBOX = ("ftstream.outbox", ("SELECT", "DELETE"))
_ALERT = "ftstream.alert"
_MUTE = "ftstream.mute"
_KEPT_BY_WATCHER = ("ftstream.compared", "ftstream.receiver", "ftstream.watcher")
_FLOW_LAG = ("ftstream.flow_lag", ("SELECT", "INSERT", "UPDATE", "DELETE"))
_TO_WATCH = (
    "ftstream.applied_offset",
    "ftstream.flow_lag",
    "ftstream.last_write",
    "ftstream.lineage",
    "ftstream.parked_change",
    "ftstream.setup_seen",
    "ftstream.sync_log",
)
_TO_WATCH_ON_SUPABASE = ("ftstream.outbox", "ftstream.wake_ups")
_STATUS = ("ftstream.sync_status", ("SELECT", "UPDATE"))
_BATCH_SOURCE = ("ftstream.batch_source", ("SELECT", "INSERT", "UPDATE"))
_NOTIFICATIONS = ("ftstream.notifications", ("SELECT", "INSERT", "UPDATE", "DELETE"))
_ACTIVITY = ("ftstream.activity_log", ("SELECT", "INSERT", "DELETE"))
_WAKE_UPS = ("ftstream.wake_ups", ("SELECT", "INSERT", "UPDATE", "DELETE"))
_FUNCTIONS = (
    "ftstream.require(boolean, text, text)",
    "ftstream.inexact(text, text, text)",
    "ftstream.require_unchanged(oid[], text[])",
    "ftstream.require_exact(regclass, jsonb)",
    "ftstream.maintain_sync_log(integer)",
    "ftstream.hand_over_again(regclass, text[], bigint[], text, boolean)",
    "ftstream.refuse(regclass, text, bigint, text, bigint, text, jsonb, text[])",
    "ftstream.tell_again(regclass, text[], boolean)",
    "ftstream.missing_parents(regclass, jsonb)",
    "ftstream.key_of(regclass)",
    "ftstream.require_parents(regclass, text[])",
    "ftstream.release_children(regclass, text[], regclass[], text[])",
    "ftstream.parent_image(regclass, text[], text[])",
    "ftstream.carry_parent(regclass, jsonb)",
    "ftstream.referring(regclass, text)",
    "ftstream.beat(regclass[])",
)
_FUNCTIONS_OF_STATUS = (
    "ftstream.check_sync_health_and_notify(text)",
    "ftstream.retry_failed_syncs()",
)
_READ = ("SELECT",)
_WRITE = ("SELECT", "INSERT", "UPDATE", "DELETE")
_POOLER_HOST = ".pooler.supabase.com"

RightKind = Literal["database", "schema", "table", "function"]


class Right(NamedTuple):
    """One privilege of one role; `object` as PostgreSQL reads it (schema.table, or a signature)."""

    role: str
    kind: RightKind
    object: str
    privilege: str


@dataclass(frozen=True, slots=True)
class RowPolicy:
    """Lets a role that row level security binds see (SELECT) or see and write (ALL) every row."""

    table: str
    name: str
    role: str
    command: Literal["SELECT", "ALL"]


class TriggerKind(enum.Enum):
    """ftstream's triggers on the flows' tables, and one. They run for every writer but ftstream itself."""

    GUARD = "ftstream_guard"  # refuses edits of a table that the other site owns
    GUARD_TRUNCATE = "ftstream_guard_truncate"  # the same of TRUNCATE, which touches no row
    CAPTURE = "ftstream_capture"  # notes each change in last_write
    HAND_OVER = (
        "ftstream_hand_over"  # on last_write: hands what was noted to the outbox at the commit
    )
    TRUNCATE = "ftstream_truncate"  # refuses what the outbox cannot tell
    ROW_BY_ROW = "ftstream_row_by_row"  # never fires: has COPY log each row by itself

    @property
    def function(self) -> str:
        match self:
            case TriggerKind.GUARD | TriggerKind.GUARD_TRUNCATE:
                return "ftstream.refuse_edit()"
            case TriggerKind.CAPTURE:
                return "ftstream.capture()"
            case TriggerKind.HAND_OVER:
                return "ftstream.hand_over_noted()"
            case TriggerKind.TRUNCATE:
                return "ftstream.refuse_truncate()"
            case TriggerKind.ROW_BY_ROW:
                return "ftstream.log_row_by_row()"


@dataclass(frozen=True, slots=True)
class Trigger:
    """One of them, with its arguments."""

    kind: TriggerKind
    table: str
    flow: str
    arguments: tuple[str, ...]
    writer: str
    """The role whose writes it lets by, if they say that they are ftstream's: any login may say so."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One site's share of the flows. `database` is the name that the DSNs give.

    `staying` are others that have a share in the same connectors, where these are to go. With
    `realtime` Supabase Realtime is to tell of what is written here.
    """

    site: Site
    flows: tuple[Flow, ...]
    namespace: str
    database: str
    apply_role: str
    capture_role: str
    staying: tuple[Flow, ...] = ()
    realtime: bool = False
    watch_role: str = ""
    """Of the watcher; empty if it logs in as the worker does."""

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(table for flow in self.flows for table in flow.tables)

    @property
    def captures(self) -> tuple[LogCapture, ...]:
        """What Debezium reads from this site's log."""
        return captures_of(self.flows, self.staying) if self.site is Site.EXTERNAL else ()

    @property
    def outbox_flows(self) -> tuple[Flow, ...]:
        """The flows whose writes here go through the outbox."""
        return tuple(
            f for f in self.flows if f.capture is Capture.OUTBOX and self.site in f.sources
        )

    @property
    def told_by_realtime(self) -> tuple[Table, ...]:
        """The tables whose changes wake the publisher."""
        if not self.realtime or self.site is not Site.SUPABASE:
            return ()
        return tuple(table for flow in self.outbox_flows for table in flow.tables)

    @property
    def publications(self) -> tuple[str, ...]:
        """Those that matter here: the connectors' own, and Realtime's."""
        realtime = (REALTIME_PUBLICATION,) if self.told_by_realtime else ()
        return (*(self.names(capture).publication for capture in self.captures), *realtime)

    @property
    def applied(self) -> tuple[Flow, ...]:
        """The flows that are written here."""
        return tuple(flow for flow in self.flows if self.site in flow.targets)

    @property
    def roles(self) -> tuple[str, ...]:
        """Those that log in."""
        watching = (self.watch_role,) if self.watch_role else ()
        capturing = (self.capture_role,) if self.captures else ()
        return tuple(dict.fromkeys((self.apply_role, *watching, *capturing)))

    @property
    def worker_connections(self) -> int:
        """How many connections one worker holds here at its busiest; with nothing to do, half of them."""
        runs = 4 * sum(flow.capture is Capture.BATCH for flow in self.flows)
        # Each flow one to write, and one to read what the log lacks, or to forget old deletes.
        flows = len(self.applied) + sum(self.site in flow.sources for flow in self.flows)
        # Housekeeping, notifications, workers' signs of life, looks at the set-up, gaps that close.
        return flows + runs + bool(self.outbox_flows) + 5

    @property
    def connector_connections(self) -> int:
        """How many Debezium holds here: four a connector, one of which reads the log."""
        return 4 * len(self.captures)

    @property
    def definer_role(self) -> str:
        """The role that ftstream's functions belong to, and run as: nobody logs in with it."""
        return f"ftstream_definer_{self.namespace}" if self.namespace else "ftstream_definer"

    @property
    def reaching(self) -> tuple[Table, ...]:
        """The tables whose foreign keys ftstream looks after here."""
        flows = dict.fromkeys((*self.applied, *self.outbox_flows))
        return tuple(table for flow in flows for table in flow.tables)

    @property
    def own_tables(self) -> tuple[str, ...]:
        """ftstream's tables that the apply role works with; External is no target of a status."""
        if not (self.applied or self.outbox_flows):
            return ()
        return tuple(name for name, _ in self._own_rights())

    @property
    def capture_rights(self) -> frozenset[Right]:
        """What the capture role needs: to connect, and to read the captured tables."""
        tables = [table for capture in self.captures for table in capture.tables]
        return (
            frozenset(_reading(self.capture_role, self.database, tables)) if tables else frozenset()
        )

    @property
    def apply_rights(self) -> frozenset[Right]:
        """What the apply role needs: what the worker's statements touch, and nothing else."""
        role = self.apply_role
        rights = set(_reading(role, self.database, self.tables))
        for flow in self.applied:
            for table in flow.tables:
                rights |= {Right(role, "table", table.qualified, right) for right in _WRITE}
        if self.own_tables:
            rights.add(Right(role, "schema", "ftstream", "USAGE"))
            rights |= {Right(role, "function", name, "EXECUTE") for name in self._functions}
            rights |= {Right(role, "table", name, "SELECT") for name in self._views()}
            for name, privileges in self._own_rights():
                rights |= {Right(role, "table", name, privilege) for privilege in privileges}
        return frozenset(rights)

    @property
    def watch_rights(self) -> frozenset[Right]:
        """What the watcher needs: to see all, and to write what it keeps, and nothing that flows carry."""
        role = self.watch_role
        if not role:
            return frozenset()
        rights = set(_reading(role, self.database, self.tables))
        rights.add(Right(role, "schema", "ftstream", "USAGE"))
        functions = ("ftstream.beat(regclass[])", *self._functions_of_status)
        rights |= {Right(role, "function", name, "EXECUTE") for name in functions}
        if self.site is Site.SUPABASE:
            rights.add(Right(role, "table", "ftstream.v_sync_dashboard", "SELECT"))
        for name, privileges in self._watchers_own():
            rights |= {Right(role, "table", name, privilege) for privilege in privileges}
        return frozenset(rights)

    @property
    def policies(self) -> tuple[RowPolicy, ...]:
        """For the roles that log in; whether a table and a role need one, the catalogs tell."""
        return (
            *(
                RowPolicy(table.qualified, CAPTURE_POLICY, self.capture_role, "SELECT")
                for capture in self.captures
                for table in capture.tables
            ),
            *(
                RowPolicy(
                    table.qualified,
                    APPLY_POLICY,
                    self.apply_role,
                    "ALL" if flow in self.applied else "SELECT",
                )
                for flow in self.flows
                for table in flow.tables
            ),
            *(RowPolicy(name, APPLY_POLICY, self.apply_role, "ALL") for name in self.own_tables),
            *self._watch_policies(),
        )

    def _watch_policies(self) -> Iterator[RowPolicy]:
        if self.watch_role:
            for table in self.tables:
                yield RowPolicy(table.qualified, WATCH_POLICY, self.watch_role, "SELECT")
            for name, privileges in self._watchers_own():
                command: Literal["SELECT", "ALL"] = "SELECT" if privileges == _READ else "ALL"
                yield RowPolicy(name, WATCH_POLICY, self.watch_role, command)

    @property
    def guards(self) -> tuple[Trigger, ...]:
        return tuple(
            Trigger(
                kind, table.qualified, flow.name, (flow.name, flow.owner.value), self.apply_role
            )
            for flow in self.flows
            if flow.guarded is self.site and flow.owner is not None
            for table in flow.tables
            for kind in (TriggerKind.GUARD, TriggerKind.GUARD_TRUNCATE)
        )

    @property
    def row_by_row(self) -> tuple[Trigger, ...]:
        """What gives each row that Debezium captures a position of its own in the log."""
        return tuple(
            Trigger(TriggerKind.ROW_BY_ROW, table.qualified, capture.name, (), "")
            for capture in self.captures
            if not capture.outbox
            for table in capture.tables
        )

    @property
    def outbox_triggers(self) -> tuple[Trigger, ...]:
        """What captures the flows that leave this site by the outbox."""
        return tuple(
            trigger
            for flow in self.outbox_flows
            for table in flow.tables
            for trigger in (
                Trigger(
                    TriggerKind.CAPTURE,
                    table.qualified,
                    flow.name,
                    self._captured(table),
                    self.apply_role,
                ),
                Trigger(
                    TriggerKind.TRUNCATE,
                    table.qualified,
                    flow.name,
                    (flow.name,),
                    self.apply_role,
                ),
            )
        )

    @property
    def hand_over(self) -> Trigger | None:
        """What hands over the changes of all of them."""
        if not self.outbox_flows:
            return None
        return Trigger(TriggerKind.HAND_OVER, _LAST_WRITE[0], "", (), self.apply_role)

    def _captured(self, table: Table) -> tuple[str, ...]:
        told = self.site is Site.SUPABASE and table.notifies
        channel = (f"notify:{table.notifies}",) if told else ()
        return (self.site.value, table.qualified, table.key, *sorted(table.excluded), *channel)

    @property
    def status_rows(self) -> tuple[tuple[str, str], ...]:
        """(source, entity_type): the rows of sync_status, which only Supabase has (guidelines 4.2)."""
        if self.site is not Site.SUPABASE:
            return ()
        return tuple(
            (flow.name, flow.entity_type(table)) for flow in self.flows for table in flow.tables
        )

    def watched(self) -> dict[str, str]:
        """Qualified table to flow: those whose writes here are captured, or guarded against."""
        captured = {
            table.qualified: flow.name
            for capture in self.captures
            for flow in capture.flows
            for table in flow.tables
        }
        guarded = {guard.table: guard.flow for guard in self.guards}
        by_outbox = {trigger.table: trigger.flow for trigger in self.outbox_triggers}
        return captured | guarded | by_outbox

    def names(self, capture: LogCapture) -> CaptureNames:
        return CaptureNames(capture, self.namespace)

    def change_topics(self) -> tuple[str, ...]:
        """The topics whose applied offsets this site keeps: changes, and the heartbeats with them."""
        names = (Names(flow, self.namespace) for flow in self.applied)
        heartbeats = (
            self.names(capture).heartbeat_topic
            for capture in captures_of(self.applied, self.staying)
        )
        return (*(topic for each in names for topic in each.topics(self.site)), *heartbeats)

    @property
    def _functions(self) -> tuple[str, ...]:
        return (*_FUNCTIONS, *self._functions_of_status)

    @property
    def _functions_of_status(self) -> tuple[str, ...]:
        return _FUNCTIONS_OF_STATUS if self.site is Site.SUPABASE else ()

    def _views(self) -> Iterator[str]:
        yield "ftstream.foreign_keys"
        if self.site is Site.SUPABASE:
            yield "ftstream.v_sync_dashboard"

    def _own_rights(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        yield _OFFSETS
        yield _LOG
        yield _DISPLACED
        yield _PARKED
        yield _LAST_WRITE
        yield _HORIZON
        yield _RECONCILED
        yield _SETUP_SEEN
        yield _GAP
        yield _LINEAGE
        yield _TURN
        yield _FLOW_LAG
        yield _MUTE, _WRITE
        # With a role of its own the watcher alone tells who is active, and what is so.
        yield _ALERT, ("SELECT", "UPDATE") if self.watch_role else _WRITE
        for name in _KEPT_BY_WATCHER:
            yield name, _READ if self.watch_role else _WRITE
        if self.site is Site.SUPABASE:
            yield _STATUS
            yield _BATCH_SOURCE
            yield _NOTIFICATIONS
            yield _ACTIVITY
            yield _OUTBOX
            yield _WAKE_UPS

    def _watchers_own(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """What it reads of ftstream's, and what it keeps: a gap ends where it has compared."""
        for name in _TO_WATCH:
            yield name, _READ
        yield "ftstream.gap", ("SELECT", "DELETE")
        yield _MUTE, _READ
        for name in (_ALERT, *_KEPT_BY_WATCHER):
            yield name, _WRITE
        if self.site is Site.SUPABASE:
            for name in _TO_WATCH_ON_SUPABASE:
                yield name, _READ
            yield _STATUS
            yield "ftstream.notifications", ("SELECT", "INSERT", "UPDATE")
            yield "ftstream.activity_log", ("SELECT", "INSERT")


def wanted(
    site: Site, flows: Sequence[Flow], settings: Settings, staying: Sequence[Flow] = ()
) -> Wanted:
    """Return what `site` should have for these flows."""
    database = settings.database(site)
    worker, watcher = role_of(database), _login(database.watch_user, database.watch_host)
    return Wanted(
        site=site,
        flows=tuple(flow for flow in flows if site in (*flow.sources, *flow.targets)),
        namespace=settings.namespace,
        database=database.parameter("dbname"),
        apply_role=worker,
        capture_role=settings.connect.capture_user,
        staying=tuple(staying),
        realtime=settings.realtime.on,
        watch_role="" if watcher == worker else watcher,
    )


def role_of(database: Database) -> str:
    """The role behind the worker's DSN."""
    return _login(database.parameter("user"), database.parameter("host"))


def _login(user: str, host: str) -> str:
    """Supabase's pooler is given `role.project`."""
    return user.partition(".")[0] if host.endswith(_POOLER_HOST) else user


def _reading(role: str, database: str, tables: Iterable[Table]) -> Iterator[Right]:
    yield Right(role, "database", database, "CONNECT")
    for table in tables:
        yield Right(role, "schema", table.schema, "USAGE")
        yield Right(role, "table", table.qualified, "SELECT")
