"""The plan of `init`: the statements that turn a database as it is into one the flows can use.

Pure: a plan is made of what was read (site_state) and what is wanted, so that what `--dry-run`
prints is what `init` runs.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import assert_never

from psycopg import sql

from ftstream.flows import LogCapture, Site, Table
from ftstream.postgres.queries import Queries, statement
from ftstream.setup import migrate
from ftstream.setup.expectations import (
    CAPTURE_SETTINGS,
    DEFINER_POLICY,
    REALTIME_PUBLICATION,
    Right,
    RowPolicy,
    Trigger,
    TriggerKind,
    Wanted,
)
from ftstream.setup.migrate import Migration
from ftstream.setup.rights import all_policies
from ftstream.setup.site_state import Publication, Role, SiteState, TriggerState

QUERIES = Queries.load(__package__, "provision.sql")
MASK = "********"
CAPTURE_COMMENT = "ftstream capture: Debezium reads the flows' tables and the log with it"
WATCH_COMMENT = "ftstream watch: the watcher reads with it, and keeps what it has told"
APPLY_COMMENT = "ftstream apply: the worker reads and writes the flows' tables with it"
DEFINER_COMMENT = "ftstream definer: its functions run with the rights of this role"
_FOLD = "the migrations of older versions are one baseline now"
_REPLICATION = "login replication"
_QUOTED = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement and why it is run; `secret` is the value in it that nobody may read."""

    sql: sql.SQL | sql.Composed
    why: str
    secret: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """The text for people: the secret masked."""
        text = self.sql.as_string(None)
        return text.replace(self.secret, MASK) if self.secret else text

    def __repr__(self) -> str:
        return f"Statement({self.shown!r}, why={self.why!r})"


class Stage(enum.IntEnum):
    """When a step is taken. Those of one stage and site are in one transaction, but the slots."""

    FIRST = 1
    SLOTS = 2  # each by itself: a slot cannot be made in a transaction that has written
    CAPTURE = 3  # what is captured before there is a slot to keep it would be lost


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the plan; without statements it is unchanged."""

    site: Site
    title: str
    statements: tuple[Statement, ...]
    stage: Stage = Stage.FIRST


Verifiers = Mapping[str, str]
"""Role to SCRAM verifier: the server never sees a password in clear."""


def plan_site(wanted: Wanted, state: SiteState, verifiers: Verifiers) -> tuple[Step, ...]:
    """Return what `init` does at one site, in order. Raises MigrationChanged."""
    applied = migrate.folded(wanted.site, state.applied)
    due = migrate.pending(migrate.migrations(wanted.site), applied)
    return (
        Step(wanted.site, "schema ftstream", tuple(_migrations(due, wanted.site))),
        *_provisions(wanted, state, verifiers),
        *(
            Step(
                wanted.site,
                f"replication slot {wanted.names(capture).slot}",
                tuple(_slot(wanted, capture, state)),
                Stage.SLOTS,
            )
            for capture in wanted.captures
        ),
        *_outbox(wanted, state),
    )


def plan_file(wanted: Wanted, state: SiteState) -> tuple[Step, ...]:
    """The same for a file that any database may run, whatever it has already; no secret in it."""
    known = migrate.migrations(wanted.site)
    return (
        Step(
            wanted.site,
            "schema ftstream",
            (
                Statement(
                    migrate.bootstrap(), "ftstream's schema, and the record of its migrations"
                ),
                Statement(migrate.fold(wanted.site), _FOLD),
                *(Statement(migrate.once(m), f"migration {m.label}") for m in known),
            ),
        ),
        *_provisions(wanted, state.without_ftstream(wanted), {}),
        *_outbox(wanted, state.without_ftstream(wanted)),
    )


def needs_policy(policy: RowPolicy, state: SiteState) -> bool:
    """Say whether row level security hides rows of the table from the role."""
    role, table = state.roles.get(policy.role), state.tables.get(policy.table)
    if role is not None and role.bypasses_policies:
        return False
    if policy.name == DEFINER_POLICY and state.may_bypass:
        return False  # it is made so
    if table is None:  # one that a migration makes: the administrator owns it
        return policy.role != state.server.admin
    owns = policy.role in table.owner_roles and not table.forced
    return table.row_security and not owns


def missing_rights(wanted: Wanted, state: SiteState) -> frozenset[Right]:
    """Return what `init` would grant; the administrator grants itself nothing."""
    lacking = state.rights(wanted) - state.held
    return frozenset(right for right in lacking if right.role != state.server.admin)


def missing_policies(wanted: Wanted, state: SiteState) -> tuple[RowPolicy, ...]:
    """The policies that `init` would make, or make again."""
    every = all_policies(wanted, state.reached)
    due = (policy for policy in every if needs_policy(policy, state))
    return tuple(policy for policy in due if policy not in state.policies)


def wants_replica_right(wanted: Wanted, state: SiteState) -> bool:
    """Say whether the apply role must be granted the right to switch triggers off."""
    role, login = state.roles.get(wanted.apply_role), state.logins.get(wanted.apply_role)
    may = state.may_set_replica or (role is not None and role.superuser)
    return bool(wanted.applied) and not (may or (login is not None and login.may_replicate))


def publication_tables(capture: LogCapture, state: SiteState) -> dict[str, list[str] | None]:
    """Table to the columns that are published: all of them, unless flows.py excludes some."""
    return {
        table.qualified: (
            sorted(c.name for c in state.columns.get(table.qualified, ()) if not c.generated)
            if table.excluded
            else None
        )
        for table in capture.tables
    }


def _migrations(due: Sequence[Migration], site: Site) -> Iterator[Statement]:
    if due:
        yield Statement(migrate.bootstrap(), "ftstream's schema, and the record of its migrations")
        yield Statement(migrate.fold(site), _FOLD)
    for migration in due:
        yield Statement(migrate.script(migration), f"migration {migration.label}")
        yield Statement(migrate.record(migration), "is applied now")


def _provisions(wanted: Wanted, state: SiteState, verifiers: Verifiers) -> Iterator[Step]:
    """All but schema and slots; each statement may be run again."""
    site = wanted.site
    if wanted.captures:
        made = tuple(_role(wanted.capture_role, _REPLICATION, CAPTURE_COMMENT, state, verifiers))
        yield Step(site, f"capture role {wanted.capture_role}", made)
        pinned = tuple(_pinned(wanted, state))
        yield Step(site, f"settings of {wanted.capture_role}", pinned)
    if wanted.apply_role not in (state.server.admin, *_capture(wanted)):
        made = tuple(_role(wanted.apply_role, "login", APPLY_COMMENT, state, verifiers))
        yield Step(site, f"apply role {wanted.apply_role}", made)
    if wanted.watch_role not in ("", state.server.admin, *_capture(wanted)):
        made = tuple(_role(wanted.watch_role, "login", WATCH_COMMENT, state, verifiers))
        yield Step(site, f"watch role {wanted.watch_role}", made)
    yield Step(site, f"role {wanted.definer_role}", tuple(_definer(wanted, state)))
    for role in dict.fromkeys((*reversed(wanted.roles), wanted.definer_role)):
        yield Step(site, f"rights of {role}", tuple(_rights(role, wanted, state)))
    owned = tuple(_owned(wanted, state))
    yield Step(site, f"functions of {wanted.definer_role}", owned)
    for capture in wanted.captures:
        name = wanted.names(capture).publication
        yield Step(site, f"publication {name}", tuple(_publication(wanted, capture, state)))
    if wanted.row_by_row:
        made = tuple(s for trigger in wanted.row_by_row for s in _trigger(trigger, state))
        yield Step(site, "positions in the log, one a row", made)
    if wanted.told_by_realtime:
        made = tuple(_realtime(wanted, state))
        yield Step(site, f"publication {REALTIME_PUBLICATION}", made)
    for flow_name, guards in groupby(wanted.guards, lambda guard: guard.flow):
        made = tuple(s for guard in guards for s in _trigger(guard, state))
        yield Step(site, f"guards of flow {flow_name}", made)
    if wanted.status_rows:
        yield Step(site, "rows of sync_status", tuple(_status(wanted, state)))


def _outbox(wanted: Wanted, state: SiteState) -> Iterator[Step]:
    if wanted.hand_over is not None:
        made = tuple(_handed_over(wanted.hand_over, wanted, state))
        yield Step(wanted.site, "hand-over of what is captured", made, Stage.CAPTURE)
    for flow_name, triggers in groupby(wanted.outbox_triggers, lambda trigger: trigger.flow):
        made = tuple(s for trigger in triggers for s in _captured(trigger, state))
        yield Step(wanted.site, f"capture of flow {flow_name}", made, Stage.CAPTURE)


def _handed_over(trigger: Trigger, wanted: Wanted, state: SiteState) -> Iterator[Statement]:
    made = tuple(_trigger(trigger, state))
    captured = [t.name for flow in wanted.outbox_flows for t in flow.tables if _is_unseen(t, state)]
    if made and captured:
        unknown = build("drop_reconciled", tables=sql.Literal(captured))
        yield Statement(unknown, "what was captured meanwhile was not handed over")
    yield from made


def _captured(trigger: Trigger, state: SiteState) -> Iterator[Statement]:
    """The trigger, and whether the table holds rows from before it."""
    made = tuple(_trigger(trigger, state))
    if not made or trigger.kind is not TriggerKind.CAPTURE or trigger.table in state.seen:
        yield from made
        return
    name = sql.Literal(trigger.table.partition(".")[2])
    table = sql.Literal(trigger.table)
    yield Statement(build("see_all"), "to look at all of its rows")
    forgotten = build("forget_uncaptured", name=name, table=table)
    yield Statement(forgotten, "what was written without it is unknown to the other site")
    yield from made
    noted = build("note_empty", name=name, table=identifier(trigger.table))
    yield Statement(noted, "no rows from before: nothing to reconcile")


def _capture(wanted: Wanted) -> tuple[str, ...]:
    return (wanted.capture_role,) if wanted.captures else ()


def _role(
    name: str, options: str, comment: str, state: SiteState, verifiers: Verifiers
) -> Iterator[Statement]:
    """Make the role, or give one of ours what it lacks; others' roles are left as they are."""
    role, verifier = state.roles.get(name), verifiers.get(name, "")
    parts = {"role": sql.Identifier(name), "options": statement(options)}
    if role is None and verifier:
        made = build("create_role", **parts, password=sql.Literal(verifier))
        yield Statement(made, "the password goes as a verifier, never in clear", verifier)
        yield Statement(
            build("comment_role", **parts, comment=sql.Literal(comment)), "made by ftstream"
        )
    elif role is None:
        literals = {"name": sql.Literal(name), "comment": sql.Literal(comment)}
        made = build("create_role_if_missing", **parts, **literals)
        yield Statement(made, "`ftstream init` sets its password")
    elif role.ours:
        yield from _completed(role, parts, state, verifier)


def _completed(
    role: Role, parts: Mapping[str, sql.Composable], state: SiteState, verifier: str
) -> Iterator[Statement]:
    replicates = "replication" not in parts["options"].as_string(None) or role.replication
    if not (role.login and replicates):
        yield Statement(build("alter_role", **parts), "it lacks an attribute")
    login = state.logins.get(role.name)
    if verifier and login is not None and login.refused:
        changed = build("set_password", role=parts["role"], password=sql.Literal(verifier))
        yield Statement(changed, "it refuses the password of the settings", verifier)


def _definer(wanted: Wanted, state: SiteState) -> Iterator[Statement]:
    """Make the role, without a login; who gives things to it must be a member."""
    name, role = wanted.definer_role, state.roles.get(wanted.definer_role)
    options = "nologin bypassrls" if state.may_bypass else "nologin"
    parts = {"role": sql.Identifier(name), "options": statement(options)}
    if role is None:
        literals = {"name": sql.Literal(name), "comment": sql.Literal(DEFINER_COMMENT)}
        yield Statement(
            build("create_role_if_missing", **parts, **literals), "nobody logs in with it"
        )
    elif role.ours and (role.login or (state.may_bypass and not role.bypasses_policies)):
        yield Statement(build("alter_role", **parts), "it has what it must not, or lacks a right")
    if not state.server.superuser and (role is None or not role.inherited):
        member = sql.Identifier(state.server.admin)
        yield Statement(
            build("join_role", **parts, member=member), "functions and tables are given to it"
        )


def _owned(wanted: Wanted, state: SiteState) -> Iterator[Statement]:
    """Give it ftstream's functions, once there are such."""
    due = migrate.pending(
        migrate.migrations(wanted.site), migrate.folded(wanted.site, state.applied)
    )
    if due or state.misowned:
        given = build("give_functions", role=sql.Literal(wanted.definer_role))
        yield Statement(given, "they run with its rights, and with no administrator's")


def unpinned(wanted: Wanted, state: SiteState) -> dict[str, str]:
    """The settings that the capture role lacks in this database."""
    if not wanted.captures:
        return {}
    there = state.settings.get(wanted.capture_role, {})
    return {k: v for k, v in CAPTURE_SETTINGS.items() if there.get(k) != v}


def _pinned(wanted: Wanted, state: SiteState) -> Iterator[Statement]:
    for name, value in unpinned(wanted, state).items():
        pinned = build(
            "pin_setting",
            role=sql.Identifier(wanted.capture_role),
            database=sql.Identifier(state.server.database),
            setting=sql.Identifier(name),
            value=sql.Literal(value),
        )
        yield Statement(
            pinned, "else the database's or the server's own would reach what Debezium reads"
        )


def _rights(role: str, wanted: Wanted, state: SiteState) -> Iterator[Statement]:
    missing = [right for right in missing_rights(wanted, state) if right.role == role]
    yield from grants("grant", missing, "least rights: what its statements touch")
    # The administrator cannot give itself what it lacks: the preflight says so.
    granted = role == wanted.apply_role and role != state.server.admin
    if granted and wants_replica_right(wanted, state):
        grants_it = state.server.superuser or state.may_grant_replica
        query = "grant_replica" if grants_it else "replica_at_login"
        right = build(query, role=sql.Identifier(role))
        yield Statement(right, "triggers of the tables must not run again while applying")
    for policy in missing_policies(wanted, state):
        if policy.role == role:
            yield from _policy(policy)


def grants(verb: str, rights: Iterable[Right], why: str) -> Iterator[Statement]:
    """One GRANT or REVOKE for each object, in a fixed order."""
    ordered = sorted(rights, key=lambda right: (right.role, right.kind, right.object))
    for (role, kind, name), group in groupby(ordered, lambda r: (r.role, r.kind, r.object)):
        granted = build(
            verb,
            privileges=statement(", ".join(sorted(right.privilege for right in group))),
            kind=statement(kind),
            object=statement(name) if kind == "function" else identifier(name, kind),
            role=sql.Identifier(role),
        )
        yield Statement(granted, why)


def identifier(name: str, kind: str = "table") -> sql.Identifier:
    """schema.table, each as PostgreSQL quotes it, as one identifier; anything else is a plain name."""
    if kind != "table":
        return sql.Identifier(name)
    parts = _QUOTED.findall(name)
    return sql.Identifier(*(quoted.replace('""', '"') or plain for quoted, plain in parts))


def _policy(policy: RowPolicy) -> Iterator[Statement]:
    parts = {"name": sql.Identifier(policy.name), "table": identifier(policy.table)}
    yield Statement(build("drop_policy", **parts), "recreated")
    query = "policy_select" if policy.command == "SELECT" else "policy_all"
    why = f"row level security would hide every row from {policy.role}, without an error"
    yield Statement(build(query, **parts, role=sql.Identifier(policy.role)), why)


def _publication(wanted: Wanted, capture: LogCapture, state: SiteState) -> Iterator[Statement]:
    name = wanted.names(capture).publication
    tables = publication_tables(capture, state)
    parts = {
        "name": sql.Identifier(name),
        "tables": sql.SQL(", ").join(_published(*item) for item in tables.items()),
    }
    match state.publications.get(name):
        case None:
            yield Statement(
                build("create_publication", **parts), f"exactly what {capture.name} captures"
            )
        case Publication(tables=published, whole=whole, filtered=filtered):
            if published != tables or filtered:
                why = f"the tables that {capture.name} captures have changed"
                yield Statement(build("set_publication_tables", **parts), why)
            if not whole:
                changed = build("set_publication_options", name=parts["name"])
                yield Statement(changed, "every kind of change, partitions as one table")


def untold(wanted: Wanted, state: SiteState) -> tuple[str, ...]:
    """The tables that Realtime is to tell of, and does not yet."""
    there = state.publications.get(REALTIME_PUBLICATION)
    names = (table.qualified for table in wanted.told_by_realtime)
    if there is None:
        return tuple(names)
    return () if there.all_tables else tuple(n for n in names if n not in there.tables)


def _realtime(wanted: Wanted, state: SiteState) -> Iterator[Statement]:
    """Add what is missing; what others have put there stays. A file may meet it in any state."""
    parts = {"name": sql.Identifier(REALTIME_PUBLICATION)}
    literal = {"publication": sql.Literal(REALTIME_PUBLICATION)}
    if REALTIME_PUBLICATION not in state.publications:
        made = build("create_realtime", **parts, **literal)
        yield Statement(made, "Supabase Realtime reads it")
    for name in untold(wanted, state):
        added = build(
            "add_to_realtime",
            **parts,
            **literal,
            table=identifier(name),
            regclass=sql.Literal(name),
        )
        yield Statement(added, f"{name}: its changes wake the publisher")


def _published(table: str, columns: list[str] | None) -> sql.Composable:
    if columns is None:
        return identifier(table)
    listed = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL("{} ({})").format(identifier(table), listed)


_EVENTS = {
    TriggerKind.GUARD: 31,
    TriggerKind.GUARD_TRUNCATE: 34,
    TriggerKind.CAPTURE: 29,
    TriggerKind.HAND_OVER: 21,
    TriggerKind.TRUNCATE: 34,
    TriggerKind.ROW_BY_ROW: 7,
}
"""PostgreSQL's tgtype: see the statement `triggers` of site_state.sql."""


def as_made(trigger: Trigger) -> TriggerState:
    """Return what the catalogs hold once it is as it should be."""
    kind = trigger.kind
    return TriggerState(
        table=trigger.table,
        name=kind.value,
        always=True,
        events=_EVENTS[kind],
        function=kind.function,
        arguments=list(trigger.arguments),
        condition=_condition(trigger),
    )


def _condition(trigger: Trigger) -> str:
    """Return WHEN as PostgreSQL writes it: whoever is not the worker, or does not say that it is."""
    writer = sql.Literal(trigger.writer).as_string(None)
    others = (
        "((current_setting('ftstream.applying'::text, true) IS DISTINCT FROM 'on'::text)"
        f" OR (SESSION_USER <> {writer}::name))"
    )
    match trigger.kind:
        case TriggerKind.ROW_BY_ROW:
            return "false"
        case TriggerKind.HAND_OVER:
            return f"((new.transaction = pg_current_xact_id()) AND {others})"
        case _:
            return others


def _trigger(trigger: Trigger, state: SiteState) -> Iterator[Statement]:
    kind = trigger.kind
    if state.triggers.get((trigger.table, kind.value)) == as_made(trigger):
        return
    parts = {
        "trigger": sql.Identifier(kind.value),
        "table": identifier(trigger.table),
        "writer": sql.Literal(trigger.writer),
    }
    arguments = sql.SQL(", ").join(map(sql.Literal, trigger.arguments))
    function = statement(kind.function.removesuffix("()"))
    match kind:
        case TriggerKind.GUARD:
            query, why = "create_guard", "edits here would be overwritten: the other site owns it"
        case TriggerKind.GUARD_TRUNCATE:
            query, why = "create_truncate", "it would come back: the other site owns it"
        case TriggerKind.CAPTURE:
            query, why = "create_capture", "from now on each change goes to the other site"
        case TriggerKind.HAND_OVER:
            query, why = "create_hand_over", "what is captured is handed over at the commit"
        case TriggerKind.TRUNCATE:
            query, why = "create_truncate", "which rows it took could not be told"
        case TriggerKind.ROW_BY_ROW:
            query, why = "create_row_by_row", "a restart amid a COPY must find each row's position"
        case _ as never:
            assert_never(never)
    made = build(query, **parts, function=function, arguments=arguments)
    yield Statement(made, f"{trigger.table}: {why}")
    if kind is not TriggerKind.HAND_OVER:
        yield Statement(build("enable_trigger", **parts), "for writers with triggers off, too")


def _status(wanted: Wanted, state: SiteState) -> Iterator[Statement]:
    missing = [row for row in wanted.status_rows if row not in state.status_rows]
    if missing:
        values = sql.SQL(", ").join(
            sql.SQL("({}, {})").format(flow, table) for flow, table in missing
        )
        yield Statement(build("add_status", rows=values), "one row for each table, pending")


def _slot(wanted: Wanted, capture: LogCapture, state: SiteState) -> Iterator[Statement]:
    name = wanted.names(capture).slot
    there = state.slots.get(name)
    useless = there is not None and (there.lost or bool(there.unreadable))  # as good as none
    if there is not None and not useless:
        return
    captured = [t.name for flow in capture.flows for t in flow.tables if _is_unseen(t, state)]
    if capture.outbox and captured:
        # First: should this be interrupted, the flow must not start with a gap.
        unknown = build("drop_reconciled", tables=sql.Literal(captured))
        yield Statement(unknown, "what was captured since the slot was lost is in no log")
    if useless:
        yield Statement(build("drop_slot", slot=sql.Literal(name)), "nobody can read it any more")
    made = build("create_slot", slot=sql.Literal(name))
    yield Statement(made, "the log is kept from now on: start the connector soon")


def _is_unseen(table: Table, state: SiteState) -> bool:
    """Say whether it is captured, and nobody has an account of since when it is not."""
    captured = (table.qualified, TriggerKind.CAPTURE.value) in state.triggers
    return captured and table.qualified not in state.seen


def build(query: str, /, **parts: sql.Composable) -> sql.Composed:
    """One of the statements of provision.sql, with its parts in place."""
    return statement(QUERIES[query]).format(**parts)
