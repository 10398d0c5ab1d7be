"""Everything that would keep the flows from working, found before anything is changed.

Pure: judges what was read of both sites. Each problem says what is wrong and a hint how to fix it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ftstream.flows import Capture, Flow, LogCapture, Site, Table
from ftstream.postgres import codec, exact
from ftstream.postgres.catalog import Column, carried
from ftstream.setup.expectations import REALTIME_PUBLICATION, Wanted
from ftstream.setup.preflight_roles import role_problems
from ftstream.setup.problem import Problem
from ftstream.setup.provision import publication_tables, untold
from ftstream.setup.site_state import SiteState

OLDEST = 140_000
_COLUMN_LISTS = 150_000
_KEY_TYPES = frozenset(("uuid", "text", "varchar", "int2", "int4", "int8"))
"""Types whose text is the same in a Kafka key, in Debezium's JSON and in PostgreSQL."""


def site_problems(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    """Return what is wrong with one database by itself."""
    yield from _server(wanted, state)
    yield from _tables(wanted, state)
    yield from _schema(wanted, state)
    yield from role_problems(wanted, state)
    yield from _capture(wanted, state)
    yield from _realtime(wanted, state)


def pair_problems(flow: Flow, source: SiteState, target: SiteState, at: Site) -> Iterator[Problem]:
    """Return what keeps a flow from being carried to the site `at`, besides missing tables."""
    for table in flow.tables:
        here, there = (state.columns.get(table.qualified) for state in (source, target))
        if not (here and there):
            continue
        yield from _columns(table, here, there, target, at)
        yield from _key(table, source, target, at)
        if flow.two_way and at is flow.targets[0]:
            yield from _numbers(table, carried(here, there))
        if flow.capture is Capture.LOG:
            yield from _log(table, [column for column, _ in carried(here, there)], source, at.other)


def _server(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    where, server = wanted.site.value, state.server
    if server.version < OLDEST:
        yield Problem(
            where,
            f"PostgreSQL {server.version // 10_000} is older than 14",
            "Upgrade it: before 14 the heartbeat cannot be written to the log",
        )
    if server.standby:
        yield Problem(
            where, "is a standby, which nobody can write to", "Give the primary's address"
        )
    needed = wanted.worker_connections + wanted.connector_connections
    left = max(server.free_connections, 0)
    if not state.pooled and left < needed:
        yield Problem(
            where,
            f"of {server.max_connections} connections {left} are left, and a worker with Kafka Connect takes"
            f" up to {needed}",
            "End sessions that nobody needs (pg_stat_activity), or raise max_connections",
            fatal=False,
        )
    if state.pooled and wanted.captures:
        yield Problem(
            where,
            "admin_dsn leads through a connection pooler",
            f"Give the database's own address in {where}.admin_dsn: replication slots need it",
        )
    elif state.pooled:
        yield Problem(
            where,
            "admin_dsn leads through a connection pooler",
            "That works; with a session pooler or the direct address, errors are told better",
            fatal=False,
        )


def _tables(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    where = wanted.site.value
    for flow in wanted.flows:
        for name in (table.qualified for table in flow.tables):
            table = state.tables.get(name)
            if table is None:
                hint = "Create it, the same on both sites"
                yield Problem(where, f"table {name} of flow {flow.name} does not exist", hint)
            elif table.kind not in "rp":
                yield Problem(
                    where, f"{name} is not a table", "Flows carry tables only: see flows.py"
                )
            elif not table.owned:
                yield Problem(
                    where,
                    f"{state.server.admin} does not own {name}, {table.owner} does",
                    f"Give admin_dsn a role that does, or: "
                    f'GRANT "{table.owner}" TO "{state.server.admin}"',
                )
            elif table.persistence != "p" and _logged(flow, wanted):
                hint = f"ALTER TABLE {name} SET LOGGED"
                yield Problem(where, f"{name} is not logged, so changes cannot be captured", hint)


def _logged(flow: Flow, wanted: Wanted) -> bool:
    """Say whether the flow is read from this site's log."""
    return flow.capture is Capture.LOG and wanted.site in flow.sources


def _schema(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    server, where = state.server, wanted.site.value
    if server.owns_schema is False:
        yield Problem(
            where,
            f"schema ftstream belongs to another role than {server.admin}",
            f"Use the role that ran `init` first in {where}.admin_dsn",
        )
    publishes = any(name not in state.publications for name in wanted.publications)
    if not server.may_create and (server.owns_schema is None or publishes):
        yield Problem(
            where,
            f"{server.admin} may not create schemas or publications",
            f'GRANT CREATE ON DATABASE "{server.database}" TO "{server.admin}"',
        )


def _capture(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    if not wanted.captures:
        return
    where, server = wanted.site.value, state.server
    if server.wal_level != "logical":
        yield Problem(
            where,
            f"wal_level is {server.wal_level}, so the log does not hold the changes",
            "ALTER SYSTEM SET wal_level = logical, then restart PostgreSQL",
        )
    for each in server.labelless:
        kind, name = each.split(" ", 1)
        what = "an enum without labels" if kind == "TYPE" else "a domain over an enum"
        hint = (
            f"ALTER TYPE {name} ADD VALUE '...', or: DROP TYPE {name}"
            if kind == "TYPE"
            else f"Use the enum itself, then: DROP DOMAIN {name}"
        )
        yield Problem(
            where,
            f"type {name} is {what}: Debezium cannot start in a database that has one, used or not",
            hint,
        )
    for capture in wanted.captures:
        yield from _slot(wanted, capture, state)
        yield from _publication(wanted, capture, state)
    yield from _room(wanted, state)


def _realtime(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    there = state.publications.get(REALTIME_PUBLICATION)
    if there is not None and not there.owned and (missing := untold(wanted, state)):
        yield Problem(
            wanted.site.value,
            f"publication {REALTIME_PUBLICATION} lacks {', '.join(missing)}, and belongs to another role",
            f'ALTER PUBLICATION "{REALTIME_PUBLICATION}" OWNER TO "{state.server.admin}"',
        )


def _slot(wanted: Wanted, capture: LogCapture, state: SiteState) -> Iterator[Problem]:
    where, name = wanted.site.value, wanted.names(capture).slot
    slot = state.slots.get(name)
    drop = f"SELECT pg_drop_replication_slot('{name}')"
    if slot is None:
        return
    if slot.plugin != "pgoutput" or slot.database != state.server.database:
        yield Problem(
            where,
            f"slot {name} is of plugin {slot.plugin}, database {slot.database}",
            f"Set another namespace, or, if nobody needs it: {drop}",
        )
    elif slot.lost:
        flows = " ".join(flow.name for flow in capture.flows)
        yield Problem(
            where,
            f"slot {name} is lost: PostgreSQL removed a part of the log that it had not read"
            " (max_slot_wal_keep_size); another one is made",
            f"Then: ftstream connectors apply {flows}. What is missing on the target a worker finds by"
            " comparing",
            fatal=False,
        )
    elif slot.unreadable:
        flows = " ".join(flow.name for flow in capture.flows)
        yield Problem(
            where,
            f"slot {name} cannot be read ({slot.unreadable}, when its next change was written); another one"
            " is made",
            f"Then: ftstream connectors apply {flows}. What is missing on the target a worker finds by"
            " comparing",
            fatal=False,
        )


def _publication(wanted: Wanted, capture: LogCapture, state: SiteState) -> Iterator[Problem]:
    where, name = wanted.site.value, wanted.names(capture).publication
    there = state.publications.get(name)
    tables = publication_tables(capture, state)
    if there is not None and there.all_tables:
        hint = f'Set another namespace, or, if nobody needs it: DROP PUBLICATION "{name}"'
        yield Problem(where, f"publication {name} is FOR ALL TABLES", hint)
    elif (
        there is not None
        and not there.owned
        and not (there.whole and there.tables == tables and not there.filtered)
    ):
        hint = f'ALTER PUBLICATION "{name}" OWNER TO "{state.server.admin}"'
        yield Problem(where, f"publication {name} must change, and belongs to another role", hint)
    if any(tables.values()) and state.server.version < _COLUMN_LISTS:
        yield Problem(
            where,
            f"{capture.name} excludes columns, and PostgreSQL 14 publishes whole tables",
            "The connector leaves them out, yet they travel to it: upgrade to 15, or exclude none",
        )


def _room(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    where, server = wanted.site.value, state.server
    new = sum(wanted.names(capture).slot not in state.slots for capture in wanted.captures)
    if not new:
        return
    if not server.may_replicate:
        hint = f'ALTER ROLE "{server.admin}" REPLICATION'
        yield Problem(where, f"{server.admin} may not make a replication slot", hint)
    for parameter, free in (
        ("max_replication_slots", server.free_slots),
        ("max_wal_senders", server.free_senders),
    ):
        if free < new:
            yield Problem(
                where,
                f"{parameter} leaves room for {max(free, 0)} more, and {new} is needed",
                f"Raise {parameter} and restart PostgreSQL, or drop what nobody uses"
                " (pg_replication_slots, pg_stat_replication)",
            )


def _columns(
    table: Table,
    source: tuple[Column, ...],
    target: tuple[Column, ...],
    state: SiteState,
    at: Site,
) -> Iterator[Problem]:
    names = {column.name for column, _ in carried(source, target)}
    for column in source:
        if column.name not in names and not column.generated:
            yield Problem(
                at.value,
                f"{table.qualified} lacks column {column.name}, which is not carried",
                "Add it here, or exclude it in flows.py",
                fatal=False,
            )
    for name in sorted(set(state.tables[table.qualified].required) - names - table.excluded):
        yield Problem(
            at.value,
            f"{table.qualified}.{name} must have a value, and {at.other} has no such column",
            f"Give it a default, or: ALTER TABLE {table.qualified} ALTER {name} DROP NOT NULL",
        )
    for here, there in carried(source, target):
        if here.type != there.type:
            yield Problem(
                at.value,
                f"{table.qualified}.{here.name} is {there.type} here and {here.type} on {at.other}",
                "Values that it cannot hold exactly are parked: make them alike"
                if exact.inexact(here, there)
                else "It holds every value; make them alike",
                fatal=False,
            )


def _numbers(table: Table, pairs: Sequence[tuple[Column, Column]]) -> Iterator[Problem]:
    """Sequences do not travel: two that count alike give rows of both sites the same numbers."""
    for here, there in pairs:
        if abs(here.step) == 1 and abs(there.step) == 1:
            key = here.name == table.key
            what = "and rows of one id are one row" if key else "which clash where they are unique"
            yield Problem(
                "both sites",
                f"{table.qualified}.{here.name} counts by one on each, so both give the same numbers, {what}",
                f"Have one count 1, 3, 5 and the other 2, 4, 6: ALTER TABLE {table.qualified} ALTER"
                f" {here.name} SET INCREMENT BY 2, RESTART WITH ... (for a serial column ALTER SEQUENCE)",
                fatal=key,
            )


def _key(table: Table, source: SiteState, target: SiteState, at: Site) -> Iterator[Problem]:
    here, there = source.tables[table.qualified], target.tables[table.qualified]
    column = next((c for c in source.columns[table.qualified] if c.name == table.key), None)
    if column is None or column.base_name not in _KEY_TYPES or column.is_array:
        found = "missing" if column is None else f"of type {column.type}"
        yield Problem(
            at.other.value,
            f"the key {table.qualified}.{table.key} is {found}",
            f"A key is one column of type {', '.join(sorted(_KEY_TYPES))}: see flows.py",
        )
    if here.primary_key != [table.key]:
        yield Problem(
            at.other.value,
            f"{table.key} is not the primary key of {table.qualified}",
            f"ALTER TABLE {table.qualified} ADD PRIMARY KEY ({table.key}): changes go by it",
        )
    if table.key not in there.unique_columns:
        yield Problem(
            at.value,
            f"{table.qualified} has no unique index on {table.key}",
            f"ALTER TABLE {table.qualified} ADD PRIMARY KEY ({table.key})",
        )


def _log(
    table: Table, columns: Sequence[Column], state: SiteState, site: Site
) -> Iterator[Problem]:
    for column in columns:
        try:
            codec.debezium_codec(column)
        except codec.UnsupportedType as error:
            yield Problem(site.value, f"{table.qualified}: {error}", "")
    if table.key in state.tables[table.qualified].literal_defaults:
        yield Problem(
            site.value,
            f"the key {table.qualified}.{table.key} has a constant as its default, which Debezium"
            " sends where the log does not hold the key: another row could be deleted",
            f"ALTER TABLE {table.qualified} ALTER {table.key} DROP DEFAULT",
            fatal=False,
        )
    yield from identity_problems(table, columns, state, site)


def identity_problems(
    table: Table, columns: Sequence[Column], state: SiteState, site: Site
) -> Iterator[Problem]:
    """Say what the log does not hold of a change of these columns' values."""
    identity = state.tables[table.qualified].replica_identity
    for column in columns:
        if codec.hides_unchanged(column) and identity != "f":
            yield Problem(
                site.value,
                f"{table.qualified}.{column.name} is of type {column.type}, whose unchanged large"
                " values cannot be told from NULL in the log",
                f"ALTER TABLE {table.qualified} REPLICA IDENTITY FULL",
            )
    held = state.tables[table.qualified].logged_columns
    if identity == "n" or (identity == "i" and table.key not in held):
        yield Problem(
            site.value,
            f"the log does not tell which row of {table.qualified} changed (replica identity"
            f" {'nothing' if identity == 'n' else 'index'})",
            f"ALTER TABLE {table.qualified} REPLICA IDENTITY DEFAULT",
        )
