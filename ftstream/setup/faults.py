"""What of the set-up is not as `init` promises, and what that means for the changes written meanwhile.

Pure: judges what was read of one site by what `expectations` wants of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ftstream.flows import Capture, Flow, LogCapture, Table
from ftstream.setup.expectations import Trigger, TriggerKind, Wanted
from ftstream.setup.preflight import identity_problems
from ftstream.setup.preflight_roles import definer_faults, restricted_faults
from ftstream.setup.provision import as_made, needs_policy, publication_tables, unpinned
from ftstream.setup.rights import all_policies
from ftstream.setup.site_state import SiteState

INIT = "ftstream init"
NOBODY_READS = "nobody reads replication slot"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as promised: the same `where` and `what` again is the same fault.

    `command` leads back. While it lasts, what is written to `tables` is not captured, or not guarded: it
    is missing on the other site for good, until they are compared.
    """

    where: str
    what: str
    command: str
    flows: tuple[str, ...]
    tables: tuple[str, ...] = ()
    silent: bool = False
    """Who was asked does not answer, so that nobody can tell."""
    detail: str = field(default="", compare=False)

    @property
    def title(self) -> str:
        return f"{self.where}: {self.what}"

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.title}{detail}. Then: {self.command}"


def site_faults(wanted: Wanted, state: SiteState) -> Iterator[Fault]:
    """Return what is not as promised at one site."""
    yield from _server(wanted, state)
    for flow in wanted.flows:
        for table in flow.tables:
            yield from _table(wanted, flow, table, state)
    for capture in wanted.captures:
        yield from _publication(wanted, capture, state)
        yield from _slot(wanted, capture, state)
    for trigger in (*wanted.guards, *wanted.row_by_row, *wanted.outbox_triggers):
        yield from _trigger(wanted, trigger, (trigger.table,), state)
    if wanted.hand_over is not None:
        captured = [t.qualified for flow in wanted.outbox_flows for t in flow.tables]
        yield from _trigger(wanted, wanted.hand_over, captured, state)
    yield from _rights(wanted, state)


def _server(wanted: Wanted, state: SiteState) -> Iterator[Fault]:
    every = tuple(flow.name for flow in wanted.flows)
    if state.server.standby:
        address = "give the primary's address in the settings"
        yield Fault(wanted.site, "it is a standby, which nobody can write to", address, every)
    if wanted.captures:
        for each in state.server.labelless:
            kind, name = each.split(" ", 1)
            what = f"type {name} has no labels of its own, with which no connector starts again"
            yield Fault(wanted.site, what, f"DROP {kind} {name}, or see `{INIT}`", every)


def _table(wanted: Wanted, flow: Flow, table: Table, state: SiteState) -> Iterator[Fault]:
    there = state.tables.get(table.qualified)
    logged = flow.capture is Capture.LOG and wanted.site in flow.sources
    if there is None or there.kind not in "rp":
        what = "does not exist" if there is None else "is no table any more"
        command = f"create it as it was, then {INIT}"
        yield _of_table(wanted, flow, table, f"{table.qualified} {what}", command)
    elif logged and there.persistence != "p":
        command = f"ALTER TABLE {table.qualified} SET LOGGED"
        yield _of_table(wanted, flow, table, f"{table.qualified} is not logged", command)
    elif logged:
        columns = state.columns[table.qualified]
        for problem in identity_problems(table, columns, state, wanted.site):
            yield Fault(wanted.site, problem.what, problem.hint, (flow.name,))


def _of_table(wanted: Wanted, flow: Flow, table: Table, what: str, command: str) -> Fault:
    captured = wanted.site in flow.sources and flow.capture is not Capture.BATCH
    tables = (table.qualified,) if captured else ()
    return Fault(wanted.site, what, command, (flow.name,), tables)


def _publication(wanted: Wanted, capture: LogCapture, state: SiteState) -> Iterator[Fault]:
    name = wanted.names(capture).publication
    flows = tuple(flow.name for flow in capture.flows)
    there, tables = state.publications.get(name), publication_tables(capture, state)
    if there is None:
        # What is written without it no slot can read: that is made again, too.
        what = f"publication {name} does not exist"
        yield Fault(wanted.site, what, _both(capture), flows, written(capture))
        return
    if not there.whole:
        what = f"publication {name} leaves out some kinds of change"
        yield Fault(wanted.site, what, INIT, flows, written(capture))
    for table in capture.tables:
        of = written(capture) if capture.outbox else (table.qualified,)
        if table.qualified not in there.tables and not there.all_tables:
            what = f"publication {name} lacks {table.qualified}"
            yield Fault(wanted.site, what, INIT, flows, of)
        elif table.qualified in there.filtered:
            what = f"publication {name} leaves out rows of {table.qualified}"
            yield Fault(wanted.site, what, INIT, flows, of)
        elif not there.all_tables and there.tables[table.qualified] != tables[table.qualified]:
            what = f"publication {name} has other columns of {table.qualified}"
            yield Fault(wanted.site, what, INIT, flows, of)


def _slot(wanted: Wanted, capture: LogCapture, state: SiteState) -> Iterator[Fault]:
    names = wanted.names(capture)
    flows = tuple(flow.name for flow in capture.flows)
    apply, both = apply_command(capture), _both(capture)
    match state.slots.get(names.slot):
        case None:
            what = f"replication slot {names.slot} does not exist"
            yield Fault(wanted.site, what, both, flows, written(capture))
        case slot if slot.lost:
            what = (
                f"replication slot {names.slot} is lost: External has removed what it had not read"
            )
            yield Fault(wanted.site, what, both, flows, written(capture))
        case slot if slot.losing:
            what = f"replication slot {names.slot} is about to be lost (max_slot_wal_keep_size)"
            yield Fault(wanted.site, what, apply, flows)
        case slot if slot.plugin != "pgoutput" or slot.database != state.server.database:
            what = f"replication slot {names.slot} is of plugin {slot.plugin}, database {slot.database}"
            yield Fault(wanted.site, what, f"drop it, then {INIT}", flows, written(capture))
        case slot if not slot.active:
            what = f"{NOBODY_READS} {names.slot}"
            yield Fault(wanted.site, what, both, flows)


def _both(capture: LogCapture) -> str:
    return f"{INIT}, then {apply_command(capture)}"


def apply_command(capture: LogCapture) -> str:
    """Return the command that brings its connector about."""
    return f"ftstream connectors apply {' '.join(flow.name for flow in capture.flows)}"


def written(capture: LogCapture) -> tuple[str, ...]:
    """Name what people write to, and the connector tells of: of an outbox, the flows' tables."""
    return tuple(table.qualified for flow in capture.flows for table in flow.tables)


def _trigger(
    wanted: Wanted, trigger: Trigger, tables: Iterable[str], state: SiteState
) -> Iterator[Fault]:
    if trigger.table not in state.tables:
        return  # told as such
    name = trigger.kind.value
    there = state.triggers.get((trigger.table, name))
    wrong = "does not exist" if there is None else "is switched off, or not as it was made"
    if there != as_made(trigger):
        yield _of_trigger(wanted, trigger, f"trigger {name} of {trigger.table} {wrong}", tables)
    for each in state.unfired:
        if (each.table, each.name) == (trigger.table, name):
            what = f"trigger {name} does not always fire for partition {each.partition}"
            yield _of_trigger(wanted, trigger, what, tables)


def _of_trigger(wanted: Wanted, trigger: Trigger, what: str, tables: Iterable[str]) -> Fault:
    flows = (trigger.flow,) if trigger.flow else tuple(f.name for f in wanted.outbox_flows)
    lost = () if trigger.kind is TriggerKind.ROW_BY_ROW else tuple(tables)
    return Fault(wanted.site, what, INIT, flows, lost)


def _rights(wanted: Wanted, state: SiteState) -> Iterator[Fault]:
    every = tuple(flow.name for flow in wanted.flows)
    for right in sorted(state.rights(wanted) - state.held):
        if right.kind != "table" or right.object in state.tables:
            what = f"role {right.role} lacks {right.privilege} on {right.kind} {right.object}"
            yield Fault(wanted.site, what, INIT, every)
    for policy in all_policies(wanted, state.reached):
        hides = policy.table in state.tables and needs_policy(policy, state)
        if hides and policy not in state.policies:
            what = f"row level security hides rows of {policy.table} from role {policy.role}"
            yield Fault(wanted.site, what, INIT, every)
    if state.misowned:
        what = f"{', '.join(state.misowned)} may run with other rights than they should: see docs/security.md"
        yield Fault(wanted.site, what, INIT, every)
    for what in definer_faults(wanted, state):
        yield Fault(wanted.site, what, "ftstream remove, then ftstream init", every)
    for what in restricted_faults(state):
        yield Fault(
            wanted.site, what, "have the policy name the roles that it is for (TO ...)", every
        )
    if wanted.capture_role in state.roles and (missing := unpinned(wanted, state)):
        what = f"role {wanted.capture_role} lacks {', '.join(missing)} in this database"
        yield Fault(wanted.site, what, INIT, every)
