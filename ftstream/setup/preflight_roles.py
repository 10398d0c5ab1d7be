"""What ftstream's roles lack, or may do more of than they should. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ftstream.setup.expectations import REPLICA_PARAMETER, Wanted
from ftstream.setup.problem import Problem
from ftstream.setup.provision import missing_rights, unpinned, wants_replica_right
from ftstream.setup.site_state import Login, Role, SiteState

_PARAMETER_RIGHTS = 150_000
_REPLICATION_BY_CREATEROLE = 160_000
_ADMIN_OF_ROLE = 160_000


def role_problems(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    """Return what is wrong with the roles at one site, and with their rights."""
    yield from _roles(wanted, state)
    yield from _connection_limit(wanted, state)
    yield from _own_rights(wanted, state)
    yield from _strangers(wanted, state)
    yield from _recognised(wanted, state)
    yield from _restricted(wanted, state)
    yield from _own_triggers(wanted, state)


def _roles(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    where, server = wanted.site.value, state.server
    for name in wanted.roles:
        role = state.roles.get(name)
        if role is None and not server.may_create_roles:
            yield Problem(
                where,
                f"role {name} does not exist, and {server.admin} may not create it",
                f'Create it, or: ALTER ROLE "{server.admin}" CREATEROLE',
            )
        if role is not None:
            yield from _login(wanted, role, state.logins.get(name))
    yield from _capture_role(wanted, state)
    yield from _capture_settings(wanted, state)
    yield from _replica_right(wanted, state)


def login_setting(wanted: Wanted, name: str) -> str:
    """Return the setting with which a role logs in."""
    if name == wanted.capture_role:
        return "connect.capture_password"
    return f"{wanted.site}.{'watch_dsn' if name == wanted.watch_role else 'dsn'}"


def _login(wanted: Wanted, role: Role, login: Login | None) -> Iterator[Problem]:
    """`init` never changes the password or the attributes of a role that it did not make."""
    where, captures = wanted.site.value, role.name == wanted.capture_role
    if not role.ours and not role.login:
        hint = f'ALTER ROLE "{role.name}" LOGIN, or give another role in the settings'
        yield Problem(where, f"role {role.name} may not log in", hint)
    elif login is None or not login.error or (role.ours and login.refused):
        return
    elif login.refused:
        yield Problem(
            where,
            f"role {role.name}, which `init` did not make, cannot connect: {login.error}",
            "Correct the password in the settings, or give another role there",
        )
    else:
        yield Problem(
            where,
            f"role {role.name} cannot connect from here: {login.error}",
            "That is well if Kafka Connect's machine may (pg_hba.conf)"
            if captures
            else f"See {login_setting(wanted, role.name)}",
            fatal=role.name == wanted.apply_role,  # the others may log in from elsewhere alone
        )


def _capture_role(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    if not wanted.captures:
        return
    if wanted.watch_role == wanted.capture_role:
        yield Problem(
            wanted.site.value,
            f"{wanted.watch_role} is the role of the watcher and of capture, which reads the whole log",
            f"Give the watcher another one: {wanted.site}.watch_dsn",
        )
    where, server, name = wanted.site.value, state.server, wanted.capture_role
    role = state.roles.get(name)
    if role is not None and (role.replication or role.superuser):
        return
    may_give = server.superuser or (
        server.version >= _REPLICATION_BY_CREATEROLE
        and server.may_create_roles
        and server.may_replicate
    )
    if role is not None and not role.ours:
        hint = f'ALTER ROLE "{name}" REPLICATION, or give another role in connect.capture_user'
        yield Problem(where, f"role {name} lacks the attribute REPLICATION", hint)
    elif not may_give:
        yield Problem(
            where,
            f"{server.admin} may not give {name} the attribute REPLICATION",
            f'Have a superuser run: CREATE ROLE "{name}" LOGIN REPLICATION PASSWORD ...',
        )


def _capture_settings(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    role, server = state.roles.get(wanted.capture_role), state.server
    admin = server.version < _ADMIN_OF_ROLE or (role is not None and role.administered)
    may = server.superuser or (server.may_create_roles and admin and not (role and role.superuser))
    if role is not None and not may and (missing := unpinned(wanted, state)):
        pins = "; ".join(
            f'ALTER ROLE "{role.name}" IN DATABASE "{server.database}" SET {name} TO \'{value}\''
            for name, value in missing.items()
        )
        yield Problem(
            wanted.site.value,
            f"values may be read from the log otherwise than they are: role {role.name} lacks"
            f" {', '.join(missing)} in this database, and {server.admin} may not set them",
            f"Have a superuser run: {pins}",
        )
    elif role is not None and unpinned(wanted, state):
        yield from _running(wanted, state)


def _running(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    """A session has what its role had set when it began, and that of a slot lasts for weeks."""
    for capture in wanted.captures:
        slot = state.slots.get(wanted.names(capture).slot)
        if slot is not None and slot.active:
            flows = " ".join(flow.name for flow in capture.flows)
            yield Problem(
                wanted.site.value,
                f"connector {wanted.names(capture).connector} reads with settings that its role had before",
                f"After `init`: ftstream connectors delete {flows} (it keeps its position), then:"
                f" ftstream connectors apply {flows}",
                fatal=False,
            )


def _replica_right(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    """Applying switches triggers off, which needs a right that only some may give."""
    if not wants_replica_right(wanted, state):
        return
    where, server, name = wanted.site.value, state.server, wanted.apply_role
    what = f"role {name} may not set {REPLICA_PARAMETER}, without which triggers run again"
    if server.version < _PARAMETER_RIGHTS:
        hint = (
            "PostgreSQL 14 cannot grant that: use the role postgres on Supabase, or elsewhere a"
            f" superuser, in {where}.dsn"
        )
        yield Problem(where, what, hint)
    elif name == server.admin or not (
        server.superuser or state.may_grant_replica or state.admin_may_set_replica
    ):
        hint = (
            f"On Supabase use the role postgres in {where}.dsn; elsewhere have a superuser run:"
            f' GRANT SET ON PARAMETER {REPLICA_PARAMETER} TO "{name}"'
        )
        yield Problem(where, what, hint)


def _connection_limit(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    for name, needed in (
        (wanted.apply_role, wanted.worker_connections),
        (wanted.capture_role, wanted.connector_connections),
    ):
        role = state.roles.get(name)
        if role is not None and 0 <= role.connection_limit < needed:
            yield Problem(
                wanted.site.value,
                f"role {name} may have {role.connection_limit} connections, and up to {needed} are taken",
                f'ALTER ROLE "{name}" CONNECTION LIMIT -1',
                fatal=False,
            )


def _strangers(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    """Name the foreign keys of which ftstream does less than PostgreSQL would."""
    for each in (each for each in state.reached if not each.trusted):
        if each.way == "child":
            so = "deletes of the other site are parked"
            hint = f"ALTER TABLE {each.table} DROP CONSTRAINT {each.key}"
        else:
            so = "rows of it are not carried"
            hint = f"GRANT SELECT, UPDATE ON {each.table} TO {wanted.definer_role}, to let it look"
        yield Problem(
            wanted.site.value,
            f"{each.table}, which constraint {each.key} leads to, belongs to {each.owner}, and the flow's"
            f" table does not, so that {so}: nothing of another role's runs with ftstream's rights",
            hint,
            fatal=False,
        )


def _recognised(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    """Say where others can pass for ftstream, or put something in its way."""
    where = wanted.site.value
    if wanted.apply_role == state.server.admin and wanted.own_tables:
        yield Problem(
            where,
            f"the worker logs in as {wanted.apply_role}, the administrator: each of that role's sessions can"
            " pass for ftstream's, by a setting, and past guards and capture",
            f"Give it a role of its own in {where}.dsn, such as ftstream_apply: `ftstream init` makes it",
            fatal=False,
        )
    for each in state.open_schemas:
        yield Problem(
            where,
            f"{each.creators} may make functions in schema {each.schema}, which PostgreSQL may take for its"
            " own where ftstream's roles call them",
            f"REVOKE CREATE ON SCHEMA {each.schema} FROM {each.creators}",
            fatal=False,
        )
    for what in definer_faults(wanted, state):
        yield Problem(where, what, "Have it made again: ftstream remove, then ftstream init")


def definer_faults(wanted: Wanted, state: SiteState) -> Iterator[str]:
    """Say what the role that ftstream's functions run as has and must not have."""
    role = state.roles.get(wanted.definer_role)
    if role is None:
        return
    if role.login or role.superuser or role.replication:
        yield f"role {role.name}, which ftstream's functions run as, may log in, or is more than it should be"
    if role.members:
        yield f"{', '.join(role.members)} may act as {role.name}, which ftstream's functions run as"


def restricted_faults(state: SiteState) -> Iterator[str]:
    """Say from whom a restrictive policy may hide rows, which would count as deleted."""
    for each in state.restricted:
        yield f"a restrictive policy of {each.table} may hide rows from role {each.role}"


def _restricted(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    for each in restricted_faults(state):
        yield Problem(
            wanted.site.value, each, "Have the policy name the roles that it is for (TO ...)"
        )


def _own_triggers(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    """Name what the site would do by itself, and does not when ftstream writes, or does as the worker."""
    if passed_over := [str(each) for each in state.own_triggers if not each.runs]:
        yield Problem(
            wanted.site.value,
            f"these triggers do not run for what ftstream writes: {', '.join(passed_over)}",
            "What they derive comes with the rows. Where one has to run all the same: ALTER TABLE ... ENABLE"
            " ALWAYS TRIGGER ...",
            fatal=False,
            note=True,
        )
    if running := [str(each) for each in state.own_triggers if each.runs]:
        yield Problem(
            wanted.site.value,
            f"these triggers run for what ftstream writes, with its rights: {', '.join(running)}",
            f"Those of tables that no flow carries run as {wanted.definer_role}",
            fatal=False,
            note=True,
        )


def _own_rights(wanted: Wanted, state: SiteState) -> Iterator[Problem]:
    """Rights that nobody but another role can give: an administrator that is the apply role."""
    lacking = state.rights(wanted) - state.held - missing_rights(wanted, state)
    for right in sorted(lacking):
        if right.kind == "table" and right.object in state.tables:
            yield Problem(
                wanted.site.value,
                f"{right.role} lacks {right.privilege} on {right.object}",
                f'GRANT {right.privilege} ON {right.object} TO "{right.role}"',
            )
