"""The plan of `remove`: the statements that take away again what `init` has made.

Pure, as the plan of `init` is. What `init` did not make stays: roles that were there before,
and the rights that they hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from psycopg import sql

from ftstream.setup.expectations import CAPTURE_SETTINGS, REALTIME_PUBLICATION, Right, Wanted
from ftstream.setup.provision import Stage, Statement, Step, build, grants, identifier
from ftstream.setup.site_state import SiteState


def plan_removal(
    wanted: Wanted, state: SiteState, *, everything: bool, topics_go: bool = True
) -> tuple[Step, ...]:
    """Return what `remove` does at one site, in order; `wanted` names the flows that go.

    With `everything` the schema and the roles that `init` made go, too. Where the topics stay, so
    does how far they are applied.
    """
    site = wanted.site
    steps = [
        *(
            Step(site, f"replication slot {slot}", tuple(_slot(slot, state)), Stage.SLOTS)
            for slot in (wanted.names(capture).slot for capture in wanted.captures)
        ),
        *(
            Step(site, f"publication {name}", tuple(_publication(name, state)))
            for name in (wanted.names(capture).publication for capture in wanted.captures)
        ),
        *_realtime(wanted, state),
        *_triggers(wanted, state),
        Step(site, "policies", tuple(_policies(wanted, state, everything))),
        Step(site, "rights", tuple(_rights(wanted, state, everything))),
    ]
    if everything:
        steps.append(Step(site, "schema ftstream", tuple(_schema(state))))
        steps += _settings(wanted, state)
        roles = (*wanted.roles, wanted.definer_role)
        steps += [Step(site, f"role {name}", tuple(_role(name, state))) for name in roles]
    else:
        steps.append(Step(site, "rows of the flow", tuple(_rows(wanted, state, topics_go))))
    return tuple(steps)


def left_behind(wanted: Wanted, state: SiteState) -> tuple[str, ...]:
    """Return what `remove` leaves, each with the reason: for the operator to decide."""
    return tuple(_left_behind(wanted, state))


def _left_behind(wanted: Wanted, state: SiteState) -> Iterator[str]:
    for name in (*wanted.roles, wanted.definer_role):
        role = state.roles.get(name)
        if role is None or name == state.server.admin:
            continue
        if not role.ours:
            yield f"role {name} and its rights: `init` did not make it, nor knows what it had"
        elif role.elsewhere:
            yield f"role {name}: other databases of {wanted.site} use it"


def _slot(name: str, state: SiteState) -> Iterator[Statement]:
    slot = state.slots.get(name)
    if slot is not None:
        dropped = build("drop_slot", slot=sql.Literal(name))
        yield Statement(
            dropped, "the log it holds back is freed; changes from now on are not captured"
        )


def _publication(name: str, state: SiteState) -> Iterator[Statement]:
    if name in state.publications:
        yield Statement(build("drop_publication", name=sql.Identifier(name)), "nobody reads it")


def _realtime(wanted: Wanted, state: SiteState) -> Iterator[Step]:
    """The flows' tables alone; whether one was in it before `init`, nothing tells."""
    there = state.publications.get(REALTIME_PUBLICATION)
    if not wanted.told_by_realtime:
        return
    dropped = tuple(
        Statement(
            build(
                "drop_from_realtime",
                name=sql.Identifier(REALTIME_PUBLICATION),
                table=identifier(table.qualified),
            ),
            "there is no publisher to wake",
        )
        for table in wanted.told_by_realtime
        if there is not None and table.qualified in there.tables
    )
    yield Step(wanted.site, f"publication {REALTIME_PUBLICATION}", dropped)


def _triggers(wanted: Wanted, state: SiteState) -> Iterator[Step]:
    for flow, triggers in groupby(
        (*wanted.row_by_row, *wanted.guards, *wanted.outbox_triggers),
        lambda trigger: trigger.flow,
    ):
        dropped = tuple(
            Statement(
                build(
                    "drop_trigger",
                    trigger=sql.Identifier(trigger.kind.value),
                    table=identifier(trigger.table),
                ),
                "its table is written as before `init`",
            )
            for trigger in triggers
            if (trigger.table, trigger.kind.value) in state.triggers
        )
        yield Step(wanted.site, f"triggers of flow {flow}", dropped)


def _policies(wanted: Wanted, state: SiteState, everything: bool) -> Iterator[Statement]:
    tables = {table.qualified for table in wanted.tables}
    if everything:
        tables |= {each.table for each in state.reached}
    ours = {(p.table, p.name) for p in state.policies if p.table in tables}
    for table, name in sorted(ours):
        dropped = build("drop_policy", name=sql.Identifier(name), table=identifier(table))
        yield Statement(dropped, "for a role of ftstream")


def _rights(wanted: Wanted, state: SiteState, everything: bool) -> Iterator[Statement]:
    """Return those of roles that `init` made; of one flow the rights on its tables, else all."""
    tables = {table.qualified for table in wanted.tables}
    roles = (*wanted.roles, wanted.definer_role)
    ours = {name for name in roles if name in state.roles and state.roles[name].ours}
    given = (right for right in state.held - state.public if right.role in ours)
    going = [right for right in given if _goes(right, tables, everything)]
    yield from grants("revoke", going, "given by `init`")
    if everything and wanted.apply_role in ours and state.may_set_replica:
        right = build("revoke_replica", role=sql.Identifier(wanted.apply_role))
        yield Statement(right, "given by `init`")


def _goes(right: Right, tables: set[str], everything: bool) -> bool:
    # What is in ftstream's schema goes with it.
    if right.object.startswith("ftstream"):
        return False
    return everything or (right.kind == "table" and right.object in tables)


def _settings(wanted: Wanted, state: SiteState) -> Iterator[Step]:
    """Return those of a role that stays; of one that goes they go with it."""
    if not wanted.captures:
        return
    role, name = state.roles.get(wanted.capture_role), wanted.capture_role
    stays = role is not None and (not role.ours or role.elsewhere)
    there = state.settings.get(name, {}) if stays else {}
    reset = tuple(
        Statement(
            build(
                "unpin_setting",
                role=sql.Identifier(name),
                database=sql.Identifier(state.server.database),
                setting=sql.Identifier(setting),
            ),
            "given by `init`",
        )
        for setting, value in CAPTURE_SETTINGS.items()
        if there.get(setting) == value
    )
    yield Step(wanted.site, f"settings of {name}", reset)


def _schema(state: SiteState) -> Iterator[Statement]:
    if state.server.owns_schema is not None:
        yield Statement(build("drop_schema"), "applied offsets, the log of changes, the status")


def _role(name: str, state: SiteState) -> Iterator[Statement]:
    role = state.roles.get(name)
    if role is not None and role.ours and not role.elsewhere:
        yield Statement(build("drop_role", role=sql.Identifier(name)), "made by `init`")


def _rows(wanted: Wanted, state: SiteState, topics_go: bool) -> Iterator[Statement]:
    if state.server.owns_schema is None:
        return
    for flow in sorted({flow for flow, _ in wanted.status_rows if _has_status(flow, state)}):
        yield Statement(
            build("drop_status", flow=sql.Literal(flow)), "no agent keeps them any more"
        )
    tables = list(wanted.watched())
    if tables and "ftstream.setup_seen" in state.tables:
        forgotten = build("forget_gaps", tables=sql.Literal(tables))
        yield Statement(forgotten, "nobody looks at their capture any more")
    topics = wanted.change_topics()
    if topics_go and topics and "ftstream.applied_offset" in state.tables:
        yield Statement(
            _of_topics("drop_offsets", topics), "the topics go; new ones begin at offset 0"
        )
        yield Statement(_of_topics("drop_parked", topics), "nobody tries them any more")
    outbox = [table.name for flow in wanted.outbox_flows for table in flow.tables]
    if outbox and "ftstream.last_write" in state.tables:
        parts = {"tables": sql.Literal(outbox)}
        yield Statement(build("drop_outbox", **parts), "no publisher takes them any more")
        yield Statement(build("drop_last_write", **parts), "writes from now on are not noted")
        yield Statement(build("drop_horizon", **parts), "nor were any deletes forgotten")
        yield Statement(build("drop_reconciled", **parts), "nor told the other site")


def _has_status(flow: str, state: SiteState) -> bool:
    return any(source == flow for source, _ in state.status_rows)


def _of_topics(query: str, topics: Sequence[str]) -> sql.Composed:
    return build(query, topics=sql.Literal(list(topics)))
