"""What a database holds of what ftstream needs, read from its catalogs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import class_row

from ftstream.compare import gaps
from ftstream.postgres.catalog import Column, read_columns
from ftstream.postgres.connection import SESSION, open_connection
from ftstream.postgres.queries import Queries, statement
from ftstream.setup import migrate
from ftstream.setup.expectations import Right, RowPolicy, Wanted
from ftstream.setup.migrate import AppliedMigration
from ftstream.setup.rights import Reached, UsedSchema, all_rights

_QUERIES = Queries.load(__package__, "site_state.sql")
_HAS_PARAMETER_RIGHTS = 150_000

_BYPASS_BY_CREATEROLE = 160_000
_PEEKS = 5
_PEEK_SECONDS = 0.2
"""How often a slot is tried that somebody has at this moment, and how long after."""

_REFUSAL = re.compile(r'authentication failed|role ".*" does not exist|role ".*" is not permitted')

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Server:
    """The server, and what the administrator may do there; `owns_schema` None: there is none.

    `labelless`: types that count as enums and have no labels, which Debezium cannot read: "TYPE name", or
    "DOMAIN name".
    """

    version: int
    database: str
    admin: str
    superuser: bool
    may_create_roles: bool
    may_replicate: bool
    may_create: bool
    wal_level: str
    free_slots: int
    free_senders: int
    standby: bool
    backend_pid: int
    owns_schema: bool | None
    labelless: Sequence[str] = ()
    free_connections: int = 1_000
    """Beside those that ftstream's roles have now."""
    max_connections: int = 1_000


@dataclass(frozen=True, slots=True)
class Role:
    """A role of the cluster; `ours`: made by `init`; `elsewhere`: in use in other databases.

    `administered`: the administrator may grant it, which is what CREATEROLE needs to alter it from
    PostgreSQL 16 on. `inherited`: the administrator has its rights.
    """

    name: str
    login: bool
    superuser: bool
    replication: bool
    bypasses_policies: bool
    ours: bool
    elsewhere: bool
    administered: bool = False
    inherited: bool = False
    connection_limit: int = -1
    members: Sequence[str] = ()
    """Who else may act as it, but the administrator."""


@dataclass(frozen=True, slots=True)
class RoleSettings:
    """What a role has set in this database, by the setting's name in lower case."""

    role: str
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TableState:
    """A table that exists. `required`: columns that an insert must give.

    `logged_columns`: what the log holds of a row that is deleted, by an index. `literal_defaults`:
    columns whose default is a constant.
    """

    name: str
    kind: str
    persistence: str
    replica_identity: str
    row_security: bool
    forced: bool
    owner: str
    owned: bool
    owner_roles: list[str]
    primary_key: list[str]
    unique_columns: list[str]
    required: list[str]
    logged_columns: Sequence[str] = ()
    literal_defaults: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TriggerState:
    """A trigger of ftstream's that exists; `events` is PostgreSQL's tgtype, `condition` as it writes WHEN."""

    table: str
    name: str
    always: bool
    events: int
    function: str
    arguments: list[str]
    condition: str


@dataclass(frozen=True, slots=True)
class Restricted:
    """A restrictive policy of the table binds the role: rows may be hidden from it."""

    table: str
    role: str


@dataclass(frozen=True, slots=True)
class OpenSchema:
    """A schema that PostgreSQL looks into for functions, and in which these roles may make some."""

    schema: str
    creators: str


@dataclass(frozen=True, slots=True)
class OwnTrigger:
    """A trigger or rule of the site's own; `runs`: for what ftstream writes, too."""

    table: str
    name: str
    runs: bool

    def __str__(self) -> str:
        return f"{self.table}.{self.name}"


@dataclass(frozen=True, slots=True)
class Unfired:
    """A trigger of ftstream's that does not fire for the rows of one partition."""

    table: str
    name: str
    partition: str


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication; `tables` with their columns, None for all of them."""

    name: str
    owned: bool
    all_tables: bool
    whole: bool
    tables: Mapping[str, list[str] | None]
    filtered: Sequence[str] = ()
    """Those of which it leaves out rows."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot; a lost one misses a part of the log for good, one that is `losing` is about to.

    `unreadable`: what PostgreSQL says to whoever reads it.
    """

    name: str
    plugin: str | None
    database: str | None
    active: bool
    lost: bool
    losing: bool = False
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """What came of connecting with a role's own password; `error` is empty if it works."""

    error: str = ""
    refused: bool = False
    may_replicate: bool = False


@dataclass(frozen=True, slots=True)
class SiteState:
    """One database as it is.

    `pooled`: the administrator came through a pooler. `held`: the wanted rights that their roles
    have in whatever way, `public` those of them that everybody has.
    """

    server: Server
    pooled: bool = False
    applied: tuple[AppliedMigration, ...] = ()
    roles: Mapping[str, Role] = field(default_factory=dict)
    logins: Mapping[str, Login] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By role; see RoleSettings."""
    tables: Mapping[str, TableState] = field(default_factory=dict)
    columns: Mapping[str, tuple[Column, ...]] = field(default_factory=dict)
    held: frozenset[Right] = frozenset()
    public: frozenset[Right] = frozenset()
    policies: frozenset[RowPolicy] = frozenset()
    triggers: Mapping[tuple[str, str], TriggerState] = field(default_factory=dict)
    """By table and name."""
    publications: Mapping[str, Publication] = field(default_factory=dict)
    slots: Mapping[str, Slot] = field(default_factory=dict)
    own_triggers: tuple[OwnTrigger, ...] = ()
    restricted: tuple[Restricted, ...] = ()
    open_schemas: tuple[OpenSchema, ...] = ()
    unfired: tuple[Unfired, ...] = ()
    reached: tuple[Reached, ...] = ()
    used_schemas: tuple[UsedSchema, ...] = ()
    misowned: tuple[str, ...] = ()
    """Functions, and tables of the log, that are not the definer role's, or not safe to run as it."""
    seen: frozenset[str] = frozenset()
    """Tables whose capture was well before: what was written without it is a gap, which is kept."""
    status_rows: frozenset[tuple[str, str]] = frozenset()
    may_set_replica: bool = False
    may_grant_replica: bool = False
    admin_may_set_replica: bool = False

    @property
    def may_bypass(self) -> bool:
        """Whether the administrator may make roles that no policy binds."""
        server, admin = self.server, self.roles.get(self.server.admin)
        passes_on = server.version >= _BYPASS_BY_CREATEROLE and server.may_create_roles
        return server.superuser or (passes_on and admin is not None and admin.bypasses_policies)

    def rights(self, wanted: Wanted) -> frozenset[Right]:
        """Return all that the roles are to have here."""
        bypassing = {role.name for role in self.roles.values() if role.bypasses_policies}
        if self.may_bypass:
            bypassing.add(wanted.definer_role)
        return all_rights(wanted, self.reached, self.used_schemas, bypassing)

    def without_ftstream(self, wanted: Wanted) -> SiteState:
        """The same database as if `init` had never run there."""
        others = {name: role for name, role in self.roles.items() if not role.ours}
        kept = frozenset(right for right in self.held if right.role == self.server.admin)
        return replace(
            self,
            server=replace(self.server, owns_schema=None),
            applied=(),
            roles=others,
            held=kept if wanted.apply_role == self.server.admin else frozenset(),
            policies=frozenset(),
            triggers={},
            misowned=(),
            publications={},
            slots={},
            seen=frozenset(),
            status_rows=frozenset(),
            may_set_replica=wanted.apply_role == self.server.admin,
        )


async def read_state(
    connection: AsyncConnection, wanted: Wanted, logins: Mapping[str, Login]
) -> SiteState:
    """Read everything; the connection is in a transaction already, or starts one of its own."""
    state = await read_catalogs(connection, wanted)
    may_set, may_grant = await _replica_rights(connection, state.server, wanted)
    admin_may_set = await _may_set_replica(connection)
    return replace(
        state,
        slots={name: await _tried(connection, wanted, slot) for name, slot in state.slots.items()},
        applied=await migrate.read_applied(connection),
        logins=logins,
        seen=await _seen(connection),
        status_rows=await _status_rows(connection),
        may_set_replica=may_set,
        may_grant_replica=may_grant,
        admin_may_set_replica=admin_may_set,
    )


async def _tried(connection: AsyncConnection, wanted: Wanted, slot: Slot) -> Slot:
    """Read a change from a slot that nobody reads: one that was written without its publication cannot be.

    A connector that tries in vain takes the slot for a moment, again and again.
    """
    publication = next(
        n.publication for n in map(wanted.names, wanted.captures) if n.slot == slot.name
    )
    values = {"slot": slot.name, "publication": publication}
    for _ in range(_PEEKS):
        if slot.lost or slot.active or slot.plugin != "pgoutput":
            break
        try:
            async with connection.transaction(force_rollback=True):
                await connection.execute(statement(_QUERIES["peek_patience"]))
                await connection.execute(statement(_QUERIES["peek"]), values)
            break
        except psycopg.errors.UndefinedObject as error:
            return replace(slot, unreadable=str(error.diag.message_primary))
        except psycopg.errors.ObjectInUse:
            await asyncio.sleep(_PEEK_SECONDS)
        except psycopg.Error:
            break  # whoever may not read it, or not in time, does not know
    return slot


async def read_catalogs(connection: AsyncConnection, wanted: Wanted) -> SiteState:
    """Read what every role may read, within a transaction."""
    # Names as text, too: they are compared with what is wanted.
    await connection.execute(statement(SESSION["exact_text"]))
    await connection.execute(statement(SESSION["safe_names"]))
    server = (await _rows(connection, Server, "server", roles=[*wanted.roles]))[0]
    roles = list(dict.fromkeys((*wanted.roles, wanted.definer_role, server.admin)))
    qualified = [table.qualified for table in wanted.tables]
    reaching = [table.qualified for table in wanted.reaching]
    reached = tuple(await _rows(connection, Reached, "reached", tables=reaching))
    tables = await _rows(
        connection,
        TableState,
        "tables",
        tables=[*qualified, *wanted.own_tables, *{each.table for each in reached}],
        roles=roles,
    )
    there = {table.name for table in tables}
    written = [t.qualified for flow in wanted.applied for t in flow.tables]
    written += [each.table for each in reached if each.trusted]
    slots = [wanted.names(capture).slot for capture in wanted.captures]
    found = SiteState(
        server=server,
        pooled=connection.info.backend_pid != server.backend_pid,
        reached=reached,
        used_schemas=tuple(await _rows(connection, UsedSchema, "used_schemas", tables=[*there])),
        misowned=tuple(await _misowned(connection, wanted)),
        roles={r.name: r for r in await _rows(connection, Role, "roles", roles=roles)},
        settings={
            each.role: each.settings
            for each in await _rows(connection, RoleSettings, "role_settings", roles=roles)
        },
        tables={table.name: table for table in tables},
        columns={
            table.qualified: await read_columns(connection, table)
            for table in wanted.tables
            if table.qualified in there
        },
        policies=frozenset(await _rows(connection, RowPolicy, "policies")),
        triggers={(t.table, t.name): t for t in await _rows(connection, TriggerState, "triggers")},
        publications={
            p.name: p
            for p in await _rows(
                connection, Publication, "publications", names=list(wanted.publications)
            )
        },
        slots={s.name: s for s in await _rows(connection, Slot, "slots", names=slots)},
        own_triggers=tuple(await _rows(connection, OwnTrigger, "own_triggers", tables=written)),
        restricted=tuple(
            await _rows(connection, Restricted, "restricted", tables=[*there], roles=roles)
        ),
        open_schemas=tuple(
            await _rows(connection, OpenSchema, "open_schemas", role=wanted.apply_role)
        ),
        unfired=tuple(await _rows(connection, Unfired, "unfired", tables=qualified)),
    )
    # Those that a role has had while policies bound it are among them: `remove` takes all.
    held = await _held(connection, all_rights(wanted, reached, found.used_schemas, ()))
    return replace(
        found,
        held=frozenset(held),
        public=frozenset(right for right, public in held.items() if public),
    )


async def look(
    connection: AsyncConnection, wanted: Wanted, logins: Mapping[str, Login]
) -> SiteState:
    """Read everything in a transaction that can change nothing."""
    async with connection.transaction():
        await connection.execute(statement(_QUERIES["read_only"]))
        return await read_state(connection, wanted, logins)


async def try_login(conninfo: str) -> Login:
    """Say whether a role's password works, and whether it may switch triggers off for a transaction."""
    try:
        connection = await open_connection(conninfo)
    except psycopg.OperationalError as error:
        return Login(str(error).strip(), refused=_is_refusal(error))
    async with connection:
        return Login(may_replicate=await _may_set_replica(connection))


def _is_refusal(error: psycopg.OperationalError) -> bool:
    """Say whether the server answered and said no to the role or its password.

    A failed connection has no SQLSTATE in libpq, only PostgreSQL's words; those of other languages
    count as any other failure.
    """
    return _REFUSAL.search(str(error)) is not None


async def _replica_rights(
    connection: AsyncConnection, server: Server, wanted: Wanted
) -> tuple[bool, bool]:
    if server.version < _HAS_PARAMETER_RIGHTS:
        return False, False
    query = statement(_QUERIES["parameter_right"])
    row = await (await connection.execute(query, {"role": wanted.apply_role})).fetchone()
    return (bool(row[0]), bool(row[1])) if row else (False, False)


async def _may_set_replica(connection: AsyncConnection) -> bool:
    """Say whether this session may switch triggers off: on Supabase no catalog tells."""
    try:
        async with connection.transaction(force_rollback=True):
            await connection.execute(statement(SESSION["triggers_off"]))
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


async def _misowned(connection: AsyncConnection, wanted: Wanted) -> list[str]:
    cursor = await connection.execute(
        statement(_QUERIES["misowned"]), {"role": wanted.definer_role}
    )
    return [row[0] for row in await cursor.fetchall()]


async def _held(connection: AsyncConnection, rights: Iterable[Right]) -> dict[Right, bool]:
    """The rights that are held, and whether everybody holds them."""
    asked = json.dumps([right._asdict() for right in rights])
    cursor = await connection.execute(statement(_QUERIES["rights"]), {"rights": asked})
    return {Right(*right): public for *right, public in await cursor.fetchall()}


async def _seen(connection: AsyncConnection) -> frozenset[str]:
    exists = await (await connection.execute(statement(_QUERIES["seen_exists"]))).fetchone()
    if not exists or not exists[0]:
        return frozenset()
    return frozenset(await gaps.seen(connection))


async def _status_rows(connection: AsyncConnection) -> frozenset[tuple[str, str]]:
    exists = await (await connection.execute(statement(_QUERIES["status_exists"]))).fetchone()
    if not exists or not exists[0]:
        return frozenset()
    cursor = await connection.execute(statement(_QUERIES["status_rows"]))
    return frozenset((row[0], row[1]) for row in await cursor.fetchall())


async def _rows(
    connection: AsyncConnection, kind: type[T], name: str, **values: Sequence[Any] | str
) -> list[T]:
    async with connection.cursor(row_factory=class_row(kind)) as cursor:
        await cursor.execute(statement(_QUERIES[name]), values or None)
        return await cursor.fetchall()
