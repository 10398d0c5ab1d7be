"""What each login can do with what ftstream has put into the databases, and that it gets no further."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, LiteralString

import msgspec
import psycopg
import pytest
from psycopg import AsyncConnection, sql

from ftstream.apply.sites import ApplyFailed
from ftstream.failures import OF_ANOTHER
from ftstream.flows import OVERRIDES, Capture, Conflict, Flow, Site, Table
from ftstream.messages.change import Change
from ftstream.postgres.connection import open_site
from ftstream.postgres.queries import statement
from ftstream.setup import run_init
from ftstream.setup.expectations import wanted
from ftstream.setup.faults import site_faults
from ftstream.setup.site_state import read_catalogs
from ftstream.setup.survey import survey
from tests.integration.conftest import PASSWORD, MemoryTopics, Pair
from tests.integration.two_way import Place, Two, Worker, two_places

SHEETS = Flow(
    name="sheets",
    tables=(Table("sheets", notifies="sheet_changes"),),
    capture=Capture.OUTBOX,
    sources=(Site.EXTERNAL, Site.SUPABASE),
    conflict=Conflict.LAST_WRITE_WINS,
)
HANDS = Flow(
    name="hands",
    tables=(Table("hands"),),
    capture=Capture.LOG,
    sources=(Site.EXTERNAL,),
    conflict=Conflict.EXTERNAL_OWNS,
)
SETUP: tuple[LiteralString, ...] = (
    "create table sheets (id uuid primary key, body text)",
    "create table hands (id uuid primary key, body text)",
    "create table fin_parent (id uuid primary key)",
    "create table fin_child (id uuid references fin_parent on delete cascade)",
)
ID = str(uuid.UUID(int=1))
DENIED = psycopg.errors.InsufficientPrivilege

LOGINS = ("editor", "analyst", "authenticator", "anon", "authenticated", "service_role", "capture")
"""Those who are neither the worker nor an administrator; the roles without a login by way of PostgREST's."""


@dataclass(frozen=True)
class Stage:
    """Both sites with ftstream, and people with logins of their own."""

    pair: Pair
    two: Two

    def side(self, site: Site) -> Place:
        return self.two.external if site is Site.EXTERNAL else self.two.supabase

    @asynccontextmanager
    async def login(self, site: Site, name: str) -> AsyncIterator[AsyncConnection]:
        """Connect as one of them, as it would."""
        by_postgrest = name in ("anon", "authenticated", "service_role")
        role = "authenticator" if by_postgrest else self.role(name)
        async with await self.pair.connect(site, role) as connection:
            if by_postgrest:
                await connection.execute(sql.SQL("set role {}").format(sql.Identifier(name)))
            yield connection

    def role(self, name: str) -> str:
        return name if name == "authenticator" else f"{name}_{self.pair.database}"


@pytest.fixture
async def stage(least: Pair) -> AsyncIterator[Stage]:
    async with two_places(least, SHEETS, SETUP, beside=[HANDS]) as two:
        stage = Stage(least, two)
        for site in Site:
            await _people(stage, site)
        try:
            yield stage
        finally:
            for site in Site:
                await _gone(stage, site)


async def _people(stage: Stage, site: Site) -> None:
    editor, analyst = stage.role("editor"), stage.role("analyst")
    names = {"editor": sql.Identifier(editor), "analyst": sql.Identifier(analyst)}
    async with await stage.pair.connect(site) as owner:
        await owner.execute(
            sql.SQL(
                "do $$ begin if to_regrole('authenticator') is null then"
                " create role authenticator login noinherit; end if; end $$"
            )
        )
        for role in ("anon", "authenticated", "service_role"):
            await owner.execute(
                sql.SQL(
                    "do $$ begin if to_regrole({name}) is null then create role {role}; end if; end $$"
                ).format(name=sql.Literal(role), role=sql.Identifier(role))
            )
            await owner.execute(sql.SQL("grant {} to authenticator").format(sql.Identifier(role)))
        for role in (editor, analyst, "authenticator"):
            made = "create role {} login" if role != "authenticator" else "select"
            if role != "authenticator":
                await owner.execute(statement(made).format(sql.Identifier(role)))
            await owner.execute(
                sql.SQL("alter role {} login password {}").format(
                    sql.Identifier(role), sql.Literal(PASSWORD)
                )
            )
        for grant in (
            "grant usage on schema public to {editor}, {analyst}, anon, authenticated, service_role",
            "grant select, insert, update, delete on sheets, hands to {editor}, authenticated, service_role",
            "grant select, references on sheets, hands to {analyst}",
            "grant select on sheets to anon",
            "create schema {analyst} authorization {analyst}",
        ):
            await owner.execute(statement(grant).format(**names))


async def _gone(stage: Stage, site: Site) -> None:
    async with await stage.pair.connect(site) as owner:
        for name in ("editor", "analyst"):
            role = sql.Identifier(stage.role(name))
            await owner.execute(sql.SQL("drop owned by {} cascade").format(role))
            await owner.execute(sql.SQL("drop role {}").format(role))
        for name in ("anon", "authenticated", "service_role"):
            await owner.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))


async def denied(connection: AsyncConnection, query: str, *values: object) -> None:
    with pytest.raises(DENIED):
        async with connection.transaction(force_rollback=True):
            await connection.execute(statement(query), values or None)


# -- what runs with the rights of ftstream's functions


TRAP = (
    "create function {schema}.climb() returns trigger language plpgsql as $$"
    " begin insert into {schema}.ran values (current_user); return coalesce(new, old); end $$",
    "create table {schema}.ran (who text)",
    "grant all on {schema}.ran to public",
    "grant usage on schema {schema} to public",
)


@pytest.mark.parametrize("action", ["cascade", "set null", "set default"])
async def test_a_strangers_trigger_does_not_run_where_its_rows_would_go_with_others(
    stage: Stage, action: str
) -> None:
    schema = sql.Identifier(stage.role("analyst"))
    external, supabase = stage.two.both
    await supabase.run("insert into sheets values (%s, 'x')", ID)
    await stage.two.exchange()
    async with stage.login(Site.EXTERNAL, "analyst") as analyst:
        for query in (
            *TRAP,
            f"create table {{schema}}.notes (sheet uuid references public.sheets on delete {action})",
            "create trigger climb before delete or update on {schema}.notes"
            " for each row execute function {schema}.climb()",
            "alter table {schema}.notes enable always trigger climb",
            "grant select on {schema}.notes to {definer}",
        ):
            definer = sql.Identifier(f"ftstream_definer_{stage.pair.database}")
            await analyst.execute(statement(query).format(schema=schema, definer=definer))
        note = sql.SQL("insert into {}.notes values (%s)").format(schema)
        await analyst.execute(note, [ID])
        await supabase.run("delete from sheets")
        with pytest.raises(ApplyFailed) as failed:
            await stage.two.exchange()
        assert failed.value.failure.sqlstate == OF_ANOTHER
        assert "notes_sheet_fkey" in failed.value.failure.message
        ran = sql.SQL("select who from {}.ran").format(schema)
        assert await (await analyst.execute(ran)).fetchall() == []
        assert await external.run("select body from sheets") == [("x",)]


async def test_a_strangers_reference_parks_deletes_and_init_names_it(stage: Stage) -> None:
    external, supabase = stage.two.both
    schema = sql.Identifier(stage.role("analyst"))
    await supabase.run("insert into sheets values (%s, 'x')", ID)
    await stage.two.exchange()
    async with stage.login(Site.EXTERNAL, "analyst") as analyst:
        table = "create table {}.notes (sheet uuid references public.sheets on delete cascade)"
        await analyst.execute(statement(table).format(schema))
    found = await survey(stage.pair.settings, [SHEETS])
    named = [str(each) for each in found.warnings if "notes_sheet_fkey" in each.what]
    assert len(named) == 1 and "are parked" in named[0] and "DROP CONSTRAINT" in named[0]
    worker = Worker(external, SHEETS)
    await supabase.run("delete from sheets")
    for change in await supabase.captured():
        await worker.apply(change)
    ((entity, error, _),) = await worker.parked()
    assert entity == ID and "constraint notes_sheet_fkey" in error
    async with stage.login(Site.EXTERNAL, "analyst") as analyst:
        drop = "alter table {}.notes drop constraint notes_sheet_fkey"
        await analyst.execute(statement(drop).format(schema))
    assert await worker.retry() and await worker.parked() == []
    assert await external.run("select body from sheets") == []


@pytest.mark.parametrize("way", ["a cast of the key", "an index", "no action"])
async def test_a_strangers_table_is_not_even_looked_at(stage: Stage, way: str) -> None:
    """To compare its column, or to read it, would run what its owner has made."""
    external, supabase = stage.two.both
    schema = sql.Identifier(stage.role("analyst"))
    definer = sql.Identifier(f"ftstream_definer_{stage.pair.database}")
    await supabase.run("insert into sheets values (%s, 'x')", ID)
    await stage.two.exchange()
    ran = sql.SQL("select who from {}.ran").format(schema)
    more: dict[str, tuple[LiteralString, ...]] = {
        "a cast of the key": (
            "create type {schema}.k as enum ('a')",
            "create table {schema}.notes (k {schema}.k primary key, sheet uuid references public.sheets)",
            "create function {schema}.text({schema}.k) returns text language plpgsql as $$"
            " begin insert into {schema}.ran values (current_user); return 'a'; end $$",
            "create cast ({schema}.k as text) with function {schema}.text({schema}.k)",
        ),
        "an index": (
            "create table {schema}.notes (k int primary key, sheet uuid references public.sheets)",
            "create function {schema}.note() returns void language sql as"
            " 'insert into {schema}.ran values (current_user)'",
            "create function {schema}.folded(int) returns int language plpgsql immutable as"
            " 'begin perform {schema}.note(); return 1; end'",
            "create index on {schema}.notes ((k + {schema}.folded(1)))",
        ),
        "no action": (
            "create table {schema}.notes (k int primary key, sheet uuid references public.sheets)",
        ),
    }
    async with stage.login(Site.EXTERNAL, "analyst") as analyst:
        for query in (
            *TRAP,
            *more[way],
            "insert into {schema}.notes (k) values ({value})",
            "grant select on {schema}.notes to {definer}",
            "truncate {schema}.ran",
        ):
            value = sql.SQL("'a'" if "cast" in way else "1")
            made = statement(query).format(schema=schema, definer=definer, value=value)
            await analyst.execute(made)
        await supabase.run("delete from sheets")
        with pytest.raises(ApplyFailed) as failed:
            await stage.two.exchange()
        assert failed.value.failure.sqlstate == OF_ANOTHER
        assert "notes_sheet_fkey" in failed.value.failure.message
        assert await (await analyst.execute(ran)).fetchall() == []
        assert await external.run("select body from sheets") == [("x",)]


async def test_a_restrictive_policy_is_told_and_its_hidden_rows_are_no_deletes(
    stage: Stage,
) -> None:
    supabase = stage.two.supabase
    await supabase.run("insert into sheets values (%s, 'x')", ID)
    await supabase.captured()
    aim = wanted(Site.SUPABASE, [SHEETS, HANDS], stage.pair.settings)
    async with await stage.pair.connect(Site.SUPABASE) as owner:
        await owner.execute("alter table sheets enable row level security")
        await owner.execute(
            "create policy hidden on sheets as restrictive for select using (body <> 'x')"
        )
    async with (
        await open_site(stage.pair.settings, Site.SUPABASE) as connection,
        connection.transaction(),
    ):
        state = await read_catalogs(connection, aim)
    told = [str(fault) for fault in site_faults(aim, state) if "restrictive policy" in fault.what]
    assert len(told) == 2  # the definer role bypasses them
    assert f"role {aim.apply_role}" in told[0] and f"role {aim.watch_role}" in told[1]


SNEAKY: tuple[tuple[LiteralString, LiteralString], ...] = (
    (
        "tables of its own",
        "create temp table p (id uuid primary key);"
        "create temp table c (id uuid references p on delete cascade);"
        "select ftstream.release_children('p'::regclass, array['{id}'], '{{}}')",
    ),
    (
        "a table in no flow",
        "select ftstream.release_children('public.fin_parent'::regclass, array['{id}'], '{{}}')",
    ),
    (
        "parents of a table of its own",
        "create temp table p (id uuid primary key); create temp table c (id uuid primary key references p);"
        "select ftstream.require_parents('c'::regclass, array['{id}'])",
    ),
    (
        "missing parents of a table in no flow",
        "select ftstream.missing_parents('public.fin_child'::regclass, '{{\"id\": \"{id}\"}}')",
    ),
    (
        "rows of a table in no flow",
        "select ftstream.referring('public.fin_parent'::regclass, '{id}')",
    ),
    (
        "an image of a table in no flow",
        "select ftstream.parent_image('public.fin_parent'::regclass, array['id'], array['{id}'])",
    ),
    (
        "a row for a table in no flow",
        "select ftstream.carry_parent('public.fin_parent'::regclass, '{{\"id\": \"{id}\"}}')",
    ),
    (
        "a trigger of ftstream's on its own table",
        "create temp table p (id uuid primary key);"
        "create trigger t after insert on p for each row"
        " execute function ftstream.capture('external', 'p', 'id')",
    ),
    (
        "a guard of ftstream's on its own table",
        "create temp table p (id uuid primary key);"
        "create trigger t after insert on p for each row execute function ftstream.refuse_edit('a', 'b')",
    ),
    (
        "a function that is not given to it",
        "select ftstream.release('public.sheets'::regclass, '{{}}', '{{}}')",
    ),
    (
        "the outbox by a function",
        "select ftstream.hand_over('external', 'public.sheets', '{id}', 'update', 1, 'boss',"
        " null, null)",
    ),
    ("a channel", "select ftstream.announce('sheet_changes', 'sheets', 'update', '{id}')"),
)


@pytest.mark.parametrize("site", Site)
@pytest.mark.parametrize("attack", [name for name, _ in SNEAKY])
async def test_the_worker_gets_no_further_by_what_its_functions_take(
    stage: Stage, attack: str, site: Site
) -> None:
    queries = dict(SNEAKY)[attack].format(id=ID).split(";")
    async with await open_site(stage.pair.settings, site) as worker:
        with pytest.raises(
            DENIED, match=r"is no table of a flow|no table of a flow refers|permission"
        ):
            async with worker.transaction(force_rollback=True):
                for query in queries:
                    await worker.execute(statement(query))


async def test_types_and_operators_in_pg_temp_do_not_come_before_those_of_postgresql(
    stage: Stage,
) -> None:
    """A domain whose check runs a function of the caller's, with the rights of ftstream's; or an operator."""
    async with await open_site(stage.pair.settings, Site.EXTERNAL) as worker:
        await worker.execute("create temp table ran (who text)")
        await worker.execute("grant all on ran to public")
        await worker.execute(
            "create function pg_temp.climb(anyelement) returns boolean language plpgsql as"
            " $$ begin insert into pg_temp.ran values (current_user); return true; end $$"
        )
        for name, base in (("date", "pg_catalog.date"), ("timestamptz", "pg_catalog.timestamptz")):
            await worker.execute(
                sql.SQL("create domain pg_temp.{} as {} check (pg_temp.climb(value))").format(
                    sql.Identifier(name), statement(base)
                )
            )
        for query in (
            "create function pg_temp.less(date, date) returns boolean language plpgsql as"
            " $$ begin insert into pg_temp.ran values (current_user); return false; end $$",
            "create operator pg_temp.< (leftarg = pg_catalog.date, rightarg = pg_catalog.date,"
            " function = pg_temp.less)",
            "create function pg_temp.to_char(date, text) returns text language plpgsql as"
            " $$ begin insert into pg_temp.ran values (current_user); return ''; end $$",
        ):
            await worker.execute(
                query.replace("(date, ", "(pg_catalog.date, ").replace(
                    ", date)", ", pg_catalog.date)"
                )
            )
        await worker.execute("select ftstream.maintain_sync_log(30)")
        assert await (await worker.execute("select who from ran")).fetchall() == []


async def test_a_ledger_that_the_worker_forges_reads_no_table_of_its_own(stage: Stage) -> None:
    """The trigger on last_write reads what a row of it names: tables that `init` has captured alone."""
    async with await open_site(stage.pair.settings, Site.EXTERNAL) as worker:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            async with worker.transaction():
                await worker.execute("create temp table mine (id uuid primary key, secret text)")
                await worker.execute(
                    "create function pg_temp.nothing() returns trigger language plpgsql as"
                    " $$ begin return null; end $$"
                )
                await worker.execute(
                    "create trigger ftstream_capture after insert on mine for each row"
                    " execute function pg_temp.nothing('external', 'mine', 'id')"
                )
                await worker.execute(
                    "insert into ftstream.last_write (table_name, entity_id, version, site, operation,"
                    " transaction, relation, born, deleted, author) values ('sheets', %s, 1, 'external',"
                    " 'update', pg_current_xact_id(), 'mine'::regclass, true, false, 'boss')",
                    [ID],
                )


# -- settings that anybody can make


@pytest.mark.parametrize("site", Site)
async def test_nobody_switches_capture_off_by_a_setting(stage: Stage, site: Site) -> None:
    async with stage.login(site, "editor") as editor:
        await editor.execute("set ftstream.applying = 'on'")
        await editor.execute("insert into sheets values (%s, 'x')", [ID])
        await editor.execute("update sheets set body = 'y'")
    changes = await stage.side(site).captured()
    assert [change.operation for change in changes] == ["insert", "update"]
    async with stage.login(site, "editor") as editor:
        await editor.execute("set ftstream.applying = 'on'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await editor.execute("truncate sheets")
    async with await stage.pair.connect(site) as superuser:
        await superuser.execute("set ftstream.applying = 'on'")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            await superuser.execute("truncate sheets")


async def test_nobody_switches_a_guard_off_by_a_setting(stage: Stage) -> None:
    for name in ("editor", "service_role", "authenticated"):
        async with stage.login(Site.SUPABASE, name) as connection:
            await connection.execute("set ftstream.applying = 'on'")
            with pytest.raises(
                psycopg.errors.ObjectNotInPrerequisiteState, match="belongs to flow"
            ):
                await connection.execute("insert into hands values (%s, 'x')", [ID])


@pytest.mark.parametrize(
    ("login", "settings", "author"),
    [
        ("editor", {}, "{editor}"),
        ("editor", {"ftstream.author": "boss@crew.tv"}, "boss@crew.tv ({editor})"),
        ("editor", {"request.jwt.claims": '{"email": "boss@crew.tv"}'}, "{editor}"),
        ("editor", {"ftstream.author": "ftstream"}, "ftstream ({editor})"),
        ("editor", {"ftstream.author": "b" * 1000}, "b" * 200 + " ({editor})"),
        ("authenticated", {"request.jwt.claims": '{"email": "lee@crew.tv"}'}, "lee@crew.tv"),
        ("authenticated", {"request.jwt.claims": '{"sub": "1"}', "ftstream.author": "boss"}, "1"),
        ("authenticated", {"request.jwt.claims": "no json"}, "authenticator"),
        (
            "authenticated",
            {"request.jwt.claims": '{"user_metadata": {"email": "boss@crew.tv"}}'},
            "authenticator",
        ),
        ("service_role", {"ftstream.author": "boss"}, "boss (authenticator)"),
    ],
)
async def test_who_wrote_is_the_login_beside_whom_it_names(
    stage: Stage, login: str, settings: dict[str, str], author: str
) -> None:
    async with stage.login(Site.SUPABASE, login) as connection:
        for name, value in settings.items():
            await connection.execute("select set_config(%s, %s, false)", [name, value])
        await connection.execute("insert into sheets values (%s, 'x')", [ID])
    (change,) = await stage.two.supabase.captured()
    assert change.author == author.format(editor=stage.role("editor"))


async def test_versions_are_the_clocks_whatever_a_writer_says(stage: Stage) -> None:
    async with stage.login(Site.SUPABASE, "editor") as editor:
        await denied(
            editor,
            "insert into ftstream.last_write (table_name, entity_id, version, site, operation)"
            " values ('sheets', %s, 9000000000000000000, 'supabase', 'update')",
            ID,
        )
        await editor.execute("select set_config('ftstream.version', '9000000000000000000', false)")
        await editor.execute("insert into sheets values (%s, 'x')", [ID])
        ((now,),) = await (
            await editor.execute("select (extract(epoch from clock_timestamp()) * 1e6)::bigint")
        ).fetchall()
    (change,) = await stage.two.supabase.captured()
    assert change.version is not None and abs(change.version - now) < 60_000_000


@pytest.mark.parametrize("site", Site)
async def test_a_version_that_no_clock_shows_waits_and_is_told(stage: Stage, site: Site) -> None:
    """As whoever may write to a topic can make it up."""
    here, there = stage.side(site), stage.side(site.other)
    await here.run("insert into sheets values (%s, 'forged')", ID)
    (change,) = await here.captured()
    forged = replace_version(change, change.version + 7_200_000_000)
    worker = Worker(there, SHEETS)
    await worker.apply(forged)
    ((entity, error, _),) = await worker.parked()
    assert entity == ID and "2 hours from now" in error
    assert any(each.kind == "clock_ahead" for each in there.told)
    assert await there.run("select body from sheets") == []
    await worker.apply(replace_version(change, change.version + 1_800_000_000))  # half an hour
    assert await there.run("select body from sheets") == [("forged",)]


def replace_version(change: Change, version: int) -> Change:
    message = json.loads(change.message) | {"version": version}
    return msgspec.structs.replace(
        change, version=version, message=json.dumps(message).encode(), offset=change.offset
    )


# -- what is ftstream's own


@pytest.mark.parametrize("site", Site)
@pytest.mark.parametrize("login", LOGINS)
async def test_nobody_else_reads_or_writes_what_is_ftstreams(
    stage: Stage, site: Site, login: str
) -> None:
    if login == "capture" and site is Site.SUPABASE:
        return  # Debezium has no login there
    async with stage.login(site, login) as connection:
        tables = await _listed(
            connection,
            "select c.relname from pg_class c where c.relnamespace = 'ftstream'::regnamespace"
            " and c.relkind in ('r', 'p', 'v') order by 1",
        )
        assert {"last_write", "outbox", "sync_log", "parked_change"} <= set(tables)
        for table in tables:
            if (login, table) == ("capture", "outbox"):
                continue
            for query in ("select from ftstream.{}", "lock table ftstream.{} in exclusive mode"):
                spelt = statement(query).format(sql.Identifier(table)).as_string(None)
                await denied(connection, spelt)
        functions = await _listed(
            connection,
            "select p.oid::regprocedure::text from pg_proc p"
            " where p.pronamespace = 'ftstream'::regnamespace"
            " and has_function_privilege(p.oid, 'execute')",
        )
        assert functions == []


async def test_the_capture_role_reads_what_is_captured_and_nothing_else(stage: Stage) -> None:
    async with stage.login(Site.EXTERNAL, "capture") as capture:
        await capture.execute("select from hands")
        for query in (
            "insert into hands values (gen_random_uuid(), 'x')",
            "delete from hands",
            "select from sheets",
            "select from fin_parent",
            "insert into ftstream.outbox (table_name, entity_id, payload) values ('sheets', 'x', '{}')",
        ):
            await denied(capture, query)


@pytest.mark.parametrize("site", Site)
async def test_the_worker_writes_the_flows_tables_and_its_own_and_no_others(
    stage: Stage, site: Site
) -> None:
    async with await open_site(stage.pair.settings, site) as worker:
        await worker.execute("select from sheets")
        for query in (
            "select from fin_parent",
            "insert into fin_parent values (gen_random_uuid())",
            "alter table sheets disable trigger ftstream_capture",
            "create table public.mine (id int)",
            "create function ftstream.mine() returns int language sql as 'select 1'",
            "alter function ftstream.require(boolean, text, text) owner to current_user",
            "drop trigger ftstream_capture on sheets",
            "create role mine",
            "set role ftstream_definer_" + stage.pair.database,
            "update ftstream.outbox set payload = '{}'",
            "insert into ftstream.outbox (table_name, entity_id, payload) values ('sheets', 'x', '{}')",
            "delete from ftstream.sync_log",
            "update ftstream.sync_log set outcome = 'applied'",
        ):
            await denied(worker, query)


@pytest.mark.parametrize("site", Site)
async def test_the_role_of_the_functions_has_no_login_and_rights_on_what_they_touch_alone(
    stage: Stage, site: Site
) -> None:
    async with await stage.pair.connect(site) as connection:
        cursor = await connection.execute(
            "select rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication from pg_roles"
            " where rolname = %s",
            [f"ftstream_definer_{stage.pair.database}"],
        )
        assert await cursor.fetchall() == [(False, False, False, False, False)]
        reached = await _listed(
            connection,
            "select c.oid::regclass::text from pg_class c where c.relkind in ('r', 'p')"
            " and c.relnamespace not in ('ftstream'::regnamespace, 'pg_catalog'::regnamespace,"
            " 'information_schema'::regnamespace) and has_table_privilege(%s, c.oid, 'select') order by 1",
            f"ftstream_definer_{stage.pair.database}",
        )
        assert reached == (["hands", "sheets"] if site is Site.SUPABASE else ["sheets"])


async def _listed(connection: AsyncConnection, query: str, *values: object) -> list[Any]:
    cursor = await connection.execute(statement(query), values or None)
    return [row[0] for row in await cursor.fetchall()]


# -- what is announced


async def test_writes_are_announced_where_the_flow_says_so_and_are_in_nobodys_way(
    stage: Stage,
) -> None:
    supabase = stage.two.supabase
    async with stage.login(Site.SUPABASE, "anon") as listener:
        await listener.execute("listen sheet_changes")
        await supabase.run("insert into sheets values (%s, 'x')", ID)
        told = [json.loads(n.payload) async for n in listener.notifies(timeout=5, stop_after=1)]
        assert [(t["table"], t["operation"], t["id"]) for t in told] == [("sheets", "insert", ID)]
        async with await stage.pair.connect(Site.SUPABASE) as writer:
            for query in (
                "begin",
                "update sheets set body = 'prepared'",
                "prepare transaction 'of_a_writer'",
                "commit prepared 'of_a_writer'",
            ):
                await writer.execute(statement(query))
        assert await supabase.run("select body from sheets") == [("prepared",)]
        assert len(await supabase.captured()) == 2


async def test_a_key_that_is_too_long_to_announce_is_written_all_the_same(least: Pair) -> None:
    flow = replace(SHEETS, name="long", tables=(Table("long", notifies="long_changes"),))
    async with two_places(least, flow, ("create table long (id text primary key)",)) as two:
        key = "\x01" * 2000
        async with await least.connect(Site.SUPABASE) as listener:
            await listener.execute("listen long_changes")
            await two.supabase.run("insert into long values (%s)", "k" * 2000)
            await two.supabase.run("insert into long values (%s)", key)
            told = [json.loads(n.payload) async for n in listener.notifies(timeout=5, stop_after=2)]
        assert [each["id"] for each in told] == ["k" * 2000, None]
        assert len(await two.supabase.rows("long")) == 2


def test_the_guidelines_channel_is_that_of_player_overrides_alone() -> None:
    assert {t.name: t.notifies for t in OVERRIDES.tables} == {
        "player_overrides": "override_changes",
        "profile_images": "",
    }


# -- what an older version has left


async def test_init_mends_what_runs_with_the_administrators_rights(stage: Stage) -> None:
    settings = stage.pair.settings
    async with await stage.pair.connect(Site.EXTERNAL) as superuser:
        await superuser.execute("alter function ftstream.capture() owner to admin")
        definer = sql.Identifier(wanted(Site.EXTERNAL, [SHEETS], settings).definer_role)
        given = sql.SQL("alter function ftstream.refuse_edit() owner to {}").format(definer)
        await superuser.execute(given)
        await superuser.execute("alter table ftstream.sync_log owner to admin")
    aim = wanted(Site.EXTERNAL, [SHEETS, HANDS], settings)
    async with await open_site(settings, Site.EXTERNAL) as connection, connection.transaction():
        state = await read_catalogs(connection, aim)
    assert state.misowned == ("ftstream.capture()", "ftstream.refuse_edit()", "ftstream.sync_log")
    async for _ in run_init(settings, MemoryTopics(), [SHEETS, HANDS]):
        pass
    async with await open_site(settings, Site.EXTERNAL) as connection, connection.transaction():
        assert (await read_catalogs(connection, aim)).misowned == ()
