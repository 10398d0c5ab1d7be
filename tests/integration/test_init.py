"""`init` and `remove` against real databases; Kafka and Connect are stood in for."""

from __future__ import annotations

import difflib
import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection, sql
from pydantic import SecretStr

from ftstream import setup
from ftstream.flows import FLOWS, GFX, OVERRIDES, CaptureNames, Flow, Names, Site, log_captures
from ftstream.postgres.connection import SESSION
from ftstream.postgres.queries import Queries, statement
from ftstream.settings import ConnectSettings, Database, RealtimeSettings
from ftstream.setup import Done, PreflightFailed, SetupFailed, migrate
from ftstream.setup.preflight import site_problems
from ftstream.setup.survey import open_admin, survey

from .conftest import PASSWORD, MemoryTopics, NoConnectors, Pair

APPLY = Queries.load("ftstream.apply", "apply.sql")
KEEP = Queries.load("ftstream.apply", "housekeeping.sql")
TABLES = [table.qualified for table in GFX.tables]


def capture_names(pair: Pair) -> CaptureNames:
    (capture,) = log_captures([GFX])
    return CaptureNames(capture, pair.database)


async def initialise(pair: Pair, topics: MemoryTopics | None = None) -> list[Done]:
    return [done async for done in setup.run_init(pair.settings, topics or MemoryTopics())]


async def remove(
    pair: Pair, *, flow: Flow | None = None, topics: MemoryTopics
) -> setup.RemovalPlan:
    plan = await setup.plan_removal(pair.settings, flow, topics, NoConnectors())
    async for _ in setup.run_removal(pair.settings, plan, topics, NoConnectors()):
        pass
    return plan


async def problems(pair: Pair) -> list[str]:
    with pytest.raises(PreflightFailed) as failure:
        await setup.plan_init(pair.settings, MemoryTopics())
    return [str(problem) for problem in failure.value.problems if problem.fatal]


async def rows(
    connection: AsyncConnection, query: str, values: Sequence[object] = ()
) -> list[tuple[object, ...]]:
    return list(await (await connection.execute(statement(query), values)).fetchall())


def dumps(pair: Pair) -> list[list[str]]:
    return [pair.dump(site) for site in Site]


async def test_init_twice_is_the_same_as_once(least: Pair) -> None:
    topics = MemoryTopics()
    first = await initialise(least, topics)
    once = dumps(least)
    second = await initialise(least, topics)
    assert all(done.changed for done in first)
    assert [done for done in second if done.changed] == []
    assert [done.what for done in second] == [done.what for done in first]
    assert dumps(least) == once


async def test_a_dry_run_changes_nothing_and_shows_no_password(least: Pair) -> None:
    before, topics = dumps(least), MemoryTopics()
    plan = await setup.plan_init(least.settings, topics)
    text = setup.script(plan.steps)
    assert "create publication" in text and "create role" in text
    assert (
        PASSWORD not in text and "SCRAM-SHA-256" not in text and "SCRAM-SHA-256" not in repr(plan)
    )
    assert dumps(least) == before
    assert topics.names == set()


async def test_init_takes_the_steps_that_a_dry_run_shows(pair: Pair) -> None:
    plan = await setup.plan_init(pair.settings, MemoryTopics())
    done = await initialise(pair)
    assert [step.title for step in plan.steps] == [d.what for d in done if d.where != "kafka"]


async def test_the_slot_is_logical_and_the_publication_has_exactly_the_tables(pair: Pair) -> None:
    await initialise(pair)
    names = capture_names(pair)
    async with await pair.connect(Site.EXTERNAL) as connection:
        published = await rows(
            connection,
            "select schemaname || '.' || tablename from pg_publication_tables where pubname = %s",
            [names.publication],
        )
        slots = await rows(
            connection,
            "select plugin, database from pg_replication_slots where slot_name = %s",
            [names.slot],
        )
    assert sorted(published) == sorted((name,) for name in TABLES)
    assert slots == [("pgoutput", pair.database)]


async def test_each_row_of_a_copy_has_a_position_of_its_own_in_the_log(pair: Pair) -> None:
    await initialise(pair)
    names = capture_names(pair)
    async with await pair.connect(Site.EXTERNAL) as connection:
        # With ids of their own: the default, which is volatile, has COPY write row by row anyhow.
        into = "copy gfx_players (id, player_hash, name) from stdin"
        async with connection.cursor() as cursor, cursor.copy(into) as copy:
            for number in range(200):
                await copy.write_row((uuid.uuid4(), f"hash {number}", "name"))
        await connection.commit()
        inserts = await rows(
            connection,
            "select lsn from pg_logical_slot_peek_binary_changes("
            "    %s, null, null, 'proto_version', '1', 'publication_names', %s)"
            " where get_byte(data, 0) = ascii('I')",
            [names.slot, names.publication],
        )
    assert len(inserts) == len(set(inserts)) == 200


async def test_a_publication_with_other_tables_is_set_right(pair: Pair) -> None:
    name = sql.Identifier(capture_names(pair).publication)
    async with await pair.connect(Site.EXTERNAL) as connection:
        await connection.execute(
            sql.SQL("create publication {} for table public.wsop_events").format(name)
        )
    changed = {done.what for done in await initialise(pair) if done.changed}
    assert f"publication {capture_names(pair).publication}" in changed
    async with await pair.connect(Site.EXTERNAL) as connection:
        ours = [capture_names(pair).publication]
        found = await rows(
            connection, "select pubviaroot from pg_publication where pubname = %s", ours
        )
        tables = await rows(
            connection, "select tablename from pg_publication_tables where pubname = %s", ours
        )
    assert found == [(True,)]
    assert len(tables) == len(TABLES)


async def test_realtimes_publication_gets_our_tables_and_keeps_those_of_others(pair: Pair) -> None:
    realtime = RealtimeSettings(url="https://abc.supabase.co", key=SecretStr(PASSWORD))
    settings = pair.settings.model_copy(update={"realtime": realtime})
    query = (
        "select tablename from pg_publication_tables where pubname = 'supabase_realtime' order by 1"
    )
    topics, flows = MemoryTopics(), (GFX, OVERRIDES)
    file = await setup.supabase_migration(settings, flows)
    async with await pair.connect(Site.SUPABASE, "postgres") as connection:
        await connection.execute("create publication supabase_realtime for table wsop_events")
        changed = [done async for done in setup.run_init(settings, topics, flows)]
        assert "publication supabase_realtime" in {done.what for done in changed if done.changed}
        ours = [("player_overrides",), ("profile_images",), ("wsop_events",)]
        assert await rows(connection, query) == ours
        again = [done async for done in setup.run_init(settings, topics, flows)]
        assert [done for done in again if done.changed] == []

        plan = await setup.plan_removal(settings, None, topics, NoConnectors(), flows)
        async for _ in setup.run_removal(settings, plan, topics, NoConnectors()):
            pass
        assert await rows(connection, query) == [("wsop_events",)]

        for _ in range(2):  # a migration meets whatever there is
            await connection.execute(statement(file))
        assert await rows(connection, query) == ours


async def test_every_problem_is_told_before_anything_is_changed(pair: Pair) -> None:
    async with await pair.connect(Site.EXTERNAL) as connection:
        await connection.execute(
            "alter table gfx_hands add column shape point, add column w numeric[]"
        )
        await connection.execute("alter table gfx_hand_players set unlogged")
        slot = capture_names(pair).slot
        await rows(
            connection, "select pg_create_logical_replication_slot(%s, 'test_decoding')", [slot]
        )
    async with await pair.connect(Site.SUPABASE) as connection:
        await connection.execute("drop table gfx_hand_players")
        await connection.execute(
            "alter table gfx_hands add column shape point, add column w numeric[]"
        )
        await connection.execute("alter table gfx_hands add column must text not null")
        await connection.execute("alter table gfx_sessions drop constraint gfx_sessions_pkey")
    pair.settings.connect = ConnectSettings(capture_user=f"capture_{pair.database}")
    before = dumps(pair)
    told = "\n".join(await problems(pair))
    for expected in (
        "connect.capture_password holds no password",
        "public.gfx_hand_players is not logged",
        "is of plugin test_decoding",
        "column shape has type point",
        "ALTER TABLE public.gfx_hands REPLICA IDENTITY FULL",
        "supabase: table public.gfx_hand_players of flow gfx does not exist",
        "public.gfx_hands.must must have a value",
        "supabase: public.gfx_sessions has no unique index on id",
    ):
        assert expected in told
    assert dumps(pair) == before


async def test_a_column_only_the_source_has_is_a_warning(pair: Pair) -> None:
    async with await pair.connect(Site.SUPABASE) as connection:
        await connection.execute("alter table gfx_hands drop column description")
    plan = await setup.plan_init(pair.settings, MemoryTopics())
    assert any("lacks column description" in str(warning) for warning in plan.warnings)


async def test_the_sites_own_triggers_and_rules_are_named_but_those_that_are_off(
    pair: Pair,
) -> None:
    made: LiteralString = """
        create function touch() returns trigger language plpgsql as 'begin return new; end';
        create trigger touched before update on gfx_players for each row execute function touch();
        create trigger always before update on gfx_players for each row execute function touch();
        alter table gfx_players enable always trigger always;
        create trigger switched_off before update on gfx_players for each row execute function touch();
        alter table gfx_players disable trigger switched_off;
        create rule noted as on update to gfx_hands do also select 1;
    """
    async with await pair.connect(Site.SUPABASE) as connection:
        await connection.execute(made)
    found = await setup.plan_init(pair.settings, MemoryTopics())
    passed_over, running = (str(p) for p in found.warnings if p.note and p.where == "supabase")
    assert "public.gfx_players.touched" in passed_over and "public.gfx_hands.noted" in passed_over
    assert "gfx_players.always" in running
    assert "switched_off" not in passed_over + running and ".always" not in passed_over


async def test_an_unreachable_database_is_told_with_the_problems_of_the_other(pair: Pair) -> None:
    pair.settings.external = Database(
        admin_dsn=SecretStr("postgresql://admin:geheim@127.0.0.1:1/nowhere"),
        dsn=SecretStr("postgresql://apply:geheim@127.0.0.1:1/nowhere"),
    )
    async with await pair.connect(Site.SUPABASE) as connection:
        await connection.execute("drop table gfx_hand_players")
    told = "\n".join(await problems(pair))
    assert "external: cannot be reached" in told
    assert "gfx_hand_players of flow gfx does not exist" in told
    assert "geheim" not in told


async def test_wal_level_replica_is_refused(pair: Pair) -> None:
    # Changing it needs a restart of the cluster that the other tests share.
    seen = (await survey(pair.settings, [GFX])).seen[Site.EXTERNAL]
    server = replace(seen.state.server, wal_level="replica")
    told = [str(p) for p in site_problems(seen.wanted, replace(seen.state, server=server))]
    assert told == [
        "external: wal_level is replica, so the log does not hold the changes."
        " ALTER SYSTEM SET wal_level = logical, then restart PostgreSQL"
    ]


async def test_an_administrator_who_owns_nothing_is_told_so(pair: Pair) -> None:
    async with await pair.connect(Site.EXTERNAL) as connection:
        role = sql.Identifier(f"apply_{pair.database}")
        await connection.execute(sql.SQL("create role {} login password {}").format(role, PASSWORD))
    dsn = SecretStr(pair.external.dsn(f"apply_{pair.database}", pair.database))
    pair.settings.external = Database(admin_dsn=dsn, dsn=dsn)
    told = "\n".join(await problems(pair))
    for expected in (
        "does not own public.gfx_hands",
        "may not create it",
        "may not make a replication slot",
        "may not create schemas or publications",
        "the attribute REPLICATION",
    ):
        assert expected in told


async def test_postgres_gives_another_role_the_right_to_apply_from_its_login(least: Pair) -> None:
    """As on Supabase, where `postgres` may switch triggers off, and may not grant that."""
    least.settings.supabase = Database(
        admin_dsn=SecretStr(least.supabase.dsn("postgres", least.database)),
        dsn=SecretStr(least.supabase.dsn(f"apply_{least.database}", least.database)),
    )
    await initialise(least)
    role = f"apply_{least.database}"
    async with await least.connect(Site.SUPABASE, role) as connection, connection.transaction():
        await begin_apply(connection)
        assert await rows(connection, "select current_setting('session_replication_role')") == [
            ("replica",)
        ]
        await add_player(connection)
    async with await least.connect(Site.SUPABASE, role) as connection:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            await connection.execute(
                "insert into gfx_players (player_hash, name) values ('i', 'n')"
            )
    assert dumps(least) == (await again(least))


async def test_a_role_init_did_not_make_keeps_its_password(pair: Pair) -> None:
    name = f"apply_{pair.database}"
    async with await pair.connect(Site.EXTERNAL) as connection:
        made = sql.SQL("create role {} login password 'another'").format(sql.Identifier(name))
        await connection.execute(made)
    (told,) = await problems(pair)
    assert f"role {name}, which `init` did not make, cannot connect" in told


async def test_a_role_of_ours_gets_the_new_password_of_the_settings(pair: Pair) -> None:
    await initialise(pair)
    capture = pair.settings.connect.capture_user
    pair.settings.connect = ConnectSettings(
        capture_user=capture, capture_password=SecretStr("a new one")
    )
    done = await initialise(pair)
    assert f"capture role {capture}" in {d.what for d in done if d.changed}
    dsn = pair.external.dsn(capture, pair.database).replace(PASSWORD, "a%20new%20one")
    async with await AsyncConnection.connect(dsn):
        pass


async def test_the_guard_refuses_every_kind_of_edit_and_says_where_to_edit(pair: Pair) -> None:
    await initialise(pair)
    edits = (
        "insert into gfx_players (player_hash, name) values ('h', 'n')",
        "update gfx_players set name = 'n'",
        "delete from gfx_players",
        "truncate gfx_players cascade",
    )
    async with await pair.connect(Site.SUPABASE, "postgres") as connection:
        await add_player(connection)
        for mode in ("origin", "replica"):
            await connection.execute(sql.SQL("set session_replication_role = {}").format(mode))
            for edit in edits:
                with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refused:
                    await connection.execute(statement(edit))
                assert "belongs to flow gfx, which external owns" in str(refused.value)
                hint = refused.value.diag.message_hint or ""
                assert "on external" in hint and "gfx" in hint


async def test_the_guard_lets_ftstream_pass(pair: Pair) -> None:
    await initialise(pair)
    async with await pair.connect(Site.SUPABASE, "postgres") as connection:
        await add_player(connection)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            await connection.execute("delete from gfx_players")


async def again(pair: Pair) -> list[list[str]]:
    """Return the catalogs after another `init`."""
    await initialise(pair)
    return dumps(pair)


async def add_player(connection: AsyncConnection) -> None:
    """As ftstream does."""
    async with connection.transaction():
        await begin_apply(connection)
        await connection.execute("insert into gfx_players (player_hash, name) values ('h', 'n')")


async def begin_apply(connection: AsyncConnection) -> None:
    bounds = {"statement_timeout": "60s", "lock_timeout": "300ms"}
    await connection.execute(statement(APPLY["session"]), bounds)
    await connection.execute(statement(SESSION["triggers_off"]))


async def test_the_apply_role_can_do_what_applying_takes_and_no_more(least: Pair) -> None:
    await initialise(least)
    topic = Names(GFX, least.database).topics(Site.SUPABASE)[0]
    partition = {"topic": topic, "partition": 0}
    moved = json.dumps([{**partition, "expected": 0, "next": 5, "position": 1, "digest": 7}])
    entry = {
        "op": "insert",
        "outcome": "applied",
        "table": "gfx_players",
        "id": "x",
        **partition,
        "offset": 0,
        "position": 1,
        "time": 1,
    }
    counts = {"records": 1, "failed": 0, "heartbeat": 1.0}
    status = {"source": "gfx", "entity_type": "players", "status": "synced", **counts}
    told = {"type": "t", "severity": "info", "title": "t", "message": "m", "metadata": "{}"}
    async with await least.connect(Site.SUPABASE, f"apply_{least.database}") as connection:
        asked = {"partitions": json.dumps([partition])}
        await connection.execute(statement(APPLY["ensure_offsets"]), asked)
        async with connection.transaction():
            await begin_apply(connection)
            await connection.execute(
                statement(APPLY["advance_offsets"]), {"offsets": moved, "partitions": 1}
            )
            for query in (
                "insert into public.gfx_players as t (player_hash, name) values ('h', 'n')"
                " on conflict (id) do update set name = excluded.name",
                "update public.gfx_players set name = 'm'",
                "delete from public.gfx_players where name = 'm'",
            ):
                assert (await connection.execute(statement(query))).rowcount == 1
            await connection.execute(statement(APPLY["log"]), {"rows": json.dumps([entry])})
        await connection.execute(statement(KEEP["record_status"]), {"rows": json.dumps([status])})
        await connection.execute(statement(KEEP["maintain"]), {"days": 30})
        await connection.execute(statement(KEEP["notify"]), told)
        await connection.execute(statement(KEEP["mark_read"]), {"ids": None})
        found = await connection.execute(statement(APPLY["applied_offsets"]), asked)
        assert await found.fetchall() == [(topic, 0, 5, 7)]
        assert await rows(connection, "select count(*) from ftstream.sync_log") == [(1,)]
        for forbidden in (
            "select * from public.broadcast_sessions",
            "insert into ftstream.outbox (table_name, entity_id, payload) values ('t', 'i', '')",
            "delete from ftstream.turn",
            "select * from ftstream.schema_migration",
            "delete from ftstream.sync_log",
            "truncate public.gfx_players",
            "create table public.mine (id int)",
            "alter table public.gfx_players disable trigger ftstream_guard",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement(forbidden))


async def test_both_roles_on_external_see_every_row_despite_row_security(pair: Pair) -> None:
    await initialise(pair)
    async with await pair.connect(Site.EXTERNAL) as connection:
        await connection.execute("insert into gfx_players (player_hash, name) values ('h', 'n')")
    for role in (f"capture_{pair.database}", f"apply_{pair.database}"):
        async with await pair.connect(Site.EXTERNAL, role) as connection:
            assert await rows(connection, "select count(*) from gfx_players") == [(1,)]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute("delete from gfx_players")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute("select * from broadcast_sessions")
    async with await pair.connect(Site.EXTERNAL, f"capture_{pair.database}") as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("select * from wsop_players")


POLICY = (
    "create schema auth",
    "create function auth.claims() returns text language sql as $$ select 'editor' $$",
    "create function auth.role() returns text language sql as $$ select auth.claims() $$",
    "revoke all on schema auth from public",
    "alter table player_overrides enable row level security",
    "create policy people on player_overrides using (auth.role() = 'editor')",
)


async def test_a_policy_that_calls_what_a_role_may_not_is_told_before_anything_is_deployed(
    pair: Pair,
) -> None:
    """On Supabase the administrator may not grant what belongs to another role."""
    async with await pair.connect(Site.SUPABASE) as connection:
        for query in POLICY:
            await connection.execute(statement(query))
        with pytest.raises(SetupFailed) as failed:
            await initialise(pair)
        role = f"ftstream_definer_{pair.database}"
        told = f"supabase: role {role} cannot read public.player_overrides: permission denied"
        assert told in str(failed.value)
        assert f'GRANT USAGE ON SCHEMA ... TO "{role}"' in str(failed.value)
        grant = statement("grant usage on schema auth to {}").format(sql.Identifier(role))
        await connection.execute(grant)
    await initialise(pair)


async def test_what_policies_call_the_roles_may_use_if_the_administrator_can_let_them(
    pair: Pair,
) -> None:
    async with await pair.connect(Site.EXTERNAL) as connection:
        for query in (*POLICY, "insert into gfx_players (player_hash, name) values ('h', 'n')"):
            await connection.execute(statement(query))
        before = dumps(pair)
        await initialise(pair)
        query = "select has_schema_privilege(%s || current_database(), 'auth', 'usage')"
        for role, may in (("apply_", True), ("capture_", False), ("ftstream_definer_", False)):
            assert await rows(connection, query, [role]) == [(may,)]
    await remove(pair, topics=MemoryTopics())
    assert dumps(pair) == before


async def test_remove_leaves_the_catalogs_as_they_were(least: Pair) -> None:
    before, topics = dumps(least), MemoryTopics()
    await initialise(least, topics)
    assert dumps(least) != before
    plan = await remove(least, topics=topics)
    assert dumps(least) == before
    assert topics.names == set()
    assert plan.left == ()
    again = await setup.plan_removal(least.settings, None, topics, NoConnectors())
    assert again.empty


@pytest.mark.parametrize("flow", [GFX, OVERRIDES], ids=lambda flow: flow.name)
async def test_removing_one_flow_keeps_the_schema_and_init_makes_the_flow_anew(
    least: Pair, flow: Flow
) -> None:
    topics = MemoryTopics()
    await initialise(least, topics)
    after_init = dumps(least)
    await remove(least, flow=flow, topics=topics)
    async with await least.connect(Site.SUPABASE) as connection:
        left = {row[0] for row in await rows(connection, "select source from ftstream.sync_status")}
        assert left == {each.name for each in FLOWS} - {flow.name}
        for table in flow.tables:
            name = sql.Identifier(table.name)
            await connection.execute(sql.SQL("delete from {}").format(name))
    await initialise(least, topics)
    # Who was granted something first, no catalog needs to tell.
    found = [
        line
        for before, after in zip(
            map(in_order, after_init), map(in_order, dumps(least)), strict=True
        )
        for line in difflib.unified_diff(before, after, lineterm="", n=0)
    ]
    assert not found, "\n".join(found)


def in_order(dump: list[str]) -> list[str]:
    grants = sorted(line for line in dump if line.startswith("GRANT"))
    return [line for line in dump if not line.startswith("GRANT")] + grants


async def test_topics_that_stay_keep_their_applied_offsets(pair: Pair) -> None:
    """Else a worker would apply what they hold once more, from the beginning of their retention."""
    await initialise(pair)
    topic = Names(GFX, pair.database).topics(Site.SUPABASE)[0]
    query = "select next_offset from ftstream.applied_offset"
    async with await pair.connect(Site.SUPABASE) as connection:
        insert = "insert into ftstream.applied_offset values (%s, 0, 7)"
        await connection.execute(statement(insert), [topic])
        for topics, left in ((None, [(7,)]), (MemoryTopics(), [])):
            plan = await setup.plan_removal(pair.settings, GFX, topics, NoConnectors())
            async for _ in setup.run_removal(pair.settings, plan, topics, NoConnectors()):
                pass
            assert await rows(connection, query) == left


async def test_the_migration_file_does_supabases_part(pair: Pair, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    file = tmp_path / "ftstream.sql"
    file.write_text(await setup.supabase_migration(pair.settings), encoding="utf-8")
    for _ in range(2):
        pair.psql(Site.SUPABASE, "postgres", file)
    done = await initialise(pair)
    assert [d for d in done if d.where == "supabase" and d.changed] == []


async def test_the_migration_file_with_a_role_of_its_own_holds_no_password(
    least: Pair, tmp_path: Path
) -> None:
    file = tmp_path / "ftstream.sql"
    file.write_text(await setup.supabase_migration(least.settings), encoding="utf-8")
    assert PASSWORD not in file.read_text() and "password" not in file.read_text().lower().replace(
        "sets its password", ""
    )
    for _ in range(2):
        least.psql(Site.SUPABASE, "supabase_admin", file)
    done = await initialise(least)
    changed = [d.what for d in done if d.where == "supabase" and d.changed]
    name = least.database
    assert changed == [f"apply role apply_{name}", f"watch role watch_{name}"]  # their passwords


async def test_nobody_else_has_rights_on_ftstreams_schema(least: Pair) -> None:
    await initialise(least)
    async with await least.connect(Site.SUPABASE) as connection:
        found = await rows(
            connection,
            """select r.rolname from pg_roles r
               where r.rolname in ('anon', 'authenticated', 'service_role')
                 and (has_schema_privilege(r.oid, 'ftstream', 'USAGE, CREATE')
                   or exists (select from pg_class c where c.relnamespace = 'ftstream'::regnamespace
                       and c.relkind in ('r', 'p', 'v')
                       and has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE'))
                   or exists (select from pg_proc p where p.pronamespace = 'ftstream'::regnamespace
                       and has_function_privilege(r.oid, p.oid, 'EXECUTE')))""",
        )
        assert found == []
        open_tables = await rows(
            connection,
            """select relname from pg_class where relnamespace = 'ftstream'::regnamespace
               and relkind in ('r', 'p') and not relrowsecurity""",
        )
        assert open_tables == []
        mutable = await rows(
            connection,
            """select proname from pg_proc where pronamespace = 'ftstream'::regnamespace
               and coalesce(proconfig::text, '') !~ 'search_path='""",
        )
        assert mutable == []


async def test_a_migration_that_was_changed_after_it_was_applied_is_refused(pair: Pair) -> None:
    await initialise(pair)
    async with await pair.connect(Site.SUPABASE) as connection:
        await connection.execute(
            "update ftstream.schema_migration set checksum = 'x' where version = 19"
        )
    (told,) = await problems(pair)
    assert "applied with another content: 019_baseline" in told


async def test_migrations_apply_once_and_record_themselves(pair: Pair) -> None:
    async with await pair.connect(Site.SUPABASE, "postgres") as connection:
        applied = await migrate.migrate(connection, Site.SUPABASE)
        assert applied == tuple(m.label for m in migrate.migrations(Site.SUPABASE))
        assert applied[0] == "019_baseline"
        assert await migrate.migrate(connection, Site.SUPABASE) == ()


BEFORE_BASELINE = Path(__file__).parent / "before_baseline"


async def before_baseline(pair: Pair, site: Site) -> None:
    """Make ftstream's schema as its last version with a migration for each step did."""
    folders = ("both", "supabase") if site is Site.SUPABASE else ("both",)
    scripts = sorted(
        (path for each in folders for path in (BEFORE_BASELINE / each).iterdir()),
        key=lambda path: path.name,
    )
    async with await open_admin(pair.settings, site) as connection:
        await connection.execute(migrate.bootstrap())
        for path in scripts:
            await connection.execute(path.read_bytes())
            number, _, name = path.stem.partition("_")
            await connection.execute(
                "insert into ftstream.schema_migration (version, name, checksum) values (%s, %s, 'c')",
                [int(number), name],
            )


async def test_a_database_from_before_the_baseline_is_brought_to_what_a_new_one_is(
    least: Pair,
) -> None:
    await initialise(least)
    new = dumps(least)
    await remove(least, topics=MemoryTopics())
    for site in Site:
        await before_baseline(least, site)
    assert all(done.changed for done in await initialise(least) if done.where != "kafka")
    for found, wanted in zip(dumps(least), new, strict=True):
        different = [*difflib.unified_diff(wanted, found, lineterm="")]
        assert not different, "\n".join(different)
    assert not [done for done in await initialise(least) if done.changed and done.where != "kafka"]


async def test_a_step_that_fails_leaves_nothing_of_its_site(pair: Pair) -> None:
    """A table in use: `init` gives way, names the step, and undoes the whole site."""
    async with await pair.connect(Site.SUPABASE) as user:
        async with user.transaction():
            await user.execute("lock table gfx_hands in access exclusive mode")
            before = pair.dump(Site.EXTERNAL)
            with pytest.raises(SetupFailed, match=r"pg_stat_activity"):
                await initialise(pair)
        found = await rows(user, "select to_regnamespace('ftstream')::text")
        assert found == [(None,)]
    assert pair.dump(Site.EXTERNAL) == before


PINNED = """select r.rolname, s.setconfig from pg_db_role_setting s
    join pg_roles r on r.oid = s.setrole join pg_database d on d.oid = s.setdatabase
    where d.datname = current_database()"""


async def test_what_is_set_elsewhere_never_reaches_what_debezium_reads(pair: Pair) -> None:
    """The capture role's own settings in the database win over all others; `init` sets them right."""
    await initialise(pair)
    role = sql.Identifier(f"capture_{pair.database}")
    database = sql.Identifier(pair.database)
    hostile = ("intervalstyle = sql_standard", "bytea_output = escape", "extra_float_digits = -10")
    async with await pair.connect(Site.EXTERNAL) as owner:
        for each in map(sql.SQL, hostile):
            alter = sql.SQL("alter database {} set {}").format(database, each)
            await owner.execute(alter)
            await owner.execute(sql.SQL("alter role {} set {}").format(role, each))
        shown = ("intervalstyle", "postgres"), ("bytea_output", "hex"), ("extra_float_digits", "1")
        for _ in range(2):
            async with await pair.connect(Site.EXTERNAL, f"capture_{pair.database}") as capture:
                for name, value in shown:
                    assert await rows(capture, f"show {name}") == [(value,)]
            query = sql.SQL("alter role {} in database {} set intervalstyle = iso_8601")
            await owner.execute(query.format(role, database))
            plan = await setup.plan_init(pair.settings, MemoryTopics())
            (step,) = [
                s for s in plan.steps if s.title == f"settings of {role.as_string(None)[1:-1]}"
            ]
            (statement_,) = step.statements
            assert "intervalstyle" in statement_.shown
            await initialise(pair)


async def test_settings_of_a_role_that_stays_are_taken_back(pair: Pair) -> None:
    name = f"capture_{pair.database}"
    async with await pair.connect(Site.EXTERNAL) as owner:
        await owner.execute(
            sql.SQL("create role {} login replication password {}").format(
                sql.Identifier(name), sql.Literal(PASSWORD)
            )
        )
        topics = MemoryTopics()
        await initialise(pair, topics)
        ((role, settings),) = await rows(owner, PINNED)
        assert role == name and "IntervalStyle=postgres" in str(settings)
        await remove(pair, topics=topics)
        assert await rows(owner, PINNED) == []
