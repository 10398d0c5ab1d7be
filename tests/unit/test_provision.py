"""The plans of `init` and `remove`, made of what is wanted and what was read: no database."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from psycopg import sql
from pydantic import SecretStr

from ftstream.flows import FLOWS, GFX, OVERRIDES, RENDER_QUEUE, Flow, Site, Table, log_captures
from ftstream.postgres.catalog import Column
from ftstream.settings import Database, RealtimeSettings, Settings
from ftstream.setup import script
from ftstream.setup.deprovision import plan_removal
from ftstream.setup.expectations import (
    CAPTURE_SETTINGS,
    Right,
    RowPolicy,
    TriggerKind,
    Wanted,
    role_of,
    wanted,
)
from ftstream.setup.migrate import (
    BASELINE,
    AppliedMigration,
    MigrationChanged,
    folded,
    migrations,
    pending,
)
from ftstream.setup.preflight import pair_problems, site_problems
from ftstream.setup.provision import (
    MASK,
    Stage,
    Statement,
    Step,
    as_made,
    grants,
    needs_policy,
    plan_site,
    publication_tables,
)
from ftstream.setup.site_state import (
    OwnTrigger,
    Publication,
    Role,
    Server,
    SiteState,
    Slot,
    TableState,
)

VERIFIERS = {
    "debezium": "SCRAM-SHA-256$secret-of-debezium",
    "worker": "SCRAM-SHA-256$secret-of-worker",
}
SERVER = Server(
    version=150_004,
    database="db",
    admin="admin",
    superuser=True,
    may_create_roles=True,
    may_replicate=True,
    may_create=True,
    wal_level="logical",
    free_slots=5,
    free_senders=5,
    standby=False,
    backend_pid=1,
    owns_schema=None,
)


def table(name: str, **changes: object) -> TableState:
    plain = TableState(
        name=name,
        kind="r",
        persistence="p",
        replica_identity="d",
        row_security=True,
        forced=False,
        owner="admin",
        owned=True,
        owner_roles=["admin"],
        primary_key=["id"],
        unique_columns=["id"],
        required=[],
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def column(name: str, base: str = "text", **changes: object) -> Column:
    plain = Column(
        name=name,
        type=base,
        cast_type=base,
        base_name=base,
        base_kind="b",
        is_array=False,
        constrained=False,
        generated=False,
        toastable=True,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def state(flow: Flow = GFX) -> SiteState:
    """A database with the flow's tables and nothing of ftstream."""
    names = [each.qualified for each in flow.tables]
    return SiteState(
        SERVER,
        tables={name: table(name) for name in names},
        columns={name: (column("id", "uuid"), column("name")) for name in names},
    )


def settings() -> Settings:
    dsn = SecretStr("postgresql://worker:hidden@h/db")
    admin = SecretStr("postgresql://admin:hidden@h/db")
    database = Database(dsn=dsn, admin_dsn=admin)
    return Settings(external=database, supabase=database)


def aim(site: Site, *flows: Flow) -> Wanted:
    return wanted(site, flows or (GFX,), settings())


def titles(steps: tuple[Step, ...]) -> list[str]:
    return [step.title for step in steps if step.statements]


def text(steps: tuple[Step, ...]) -> str:
    return script(steps)


def test_external_gets_roles_rights_a_publication_and_last_a_slot_by_itself() -> None:
    steps = plan_site(aim(Site.EXTERNAL), state(), VERIFIERS)
    assert titles(steps) == [
        "schema ftstream",
        "capture role debezium",
        "settings of debezium",
        "apply role worker",
        "role ftstream_definer",
        "rights of debezium",
        "rights of worker",
        "rights of ftstream_definer",
        "functions of ftstream_definer",
        "publication gfx_publication",
        "positions in the log, one a row",
        "replication slot gfx_slot",
    ]
    assert [step.title for step in steps if step.stage is Stage.SLOTS] == [
        "replication slot gfx_slot"
    ]


def test_supabase_gets_guards_and_status_but_no_slot() -> None:
    assert titles(plan_site(aim(Site.SUPABASE), state(), VERIFIERS)) == [
        "schema ftstream",
        "apply role worker",
        "role ftstream_definer",
        "rights of worker",
        "rights of ftstream_definer",
        "functions of ftstream_definer",
        "guards of flow gfx",
        "rows of sync_status",
    ]


def test_an_administrator_that_applies_needs_no_role_and_no_rights() -> None:
    as_admin = replace(aim(Site.SUPABASE), apply_role="admin")
    steps = plan_site(as_admin, state(), {})
    assert titles(steps) == [
        "schema ftstream",
        "role ftstream_definer",
        "rights of ftstream_definer",
        "functions of ftstream_definer",
        "guards of flow gfx",
        "rows of sync_status",
    ]


def test_no_secret_is_ever_shown() -> None:
    steps = plan_site(aim(Site.EXTERNAL), state(), VERIFIERS)
    run = "\n".join(s.sql.as_string(None) for step in steps for s in step.statements)
    for shown in (text(steps), repr(steps)):
        assert MASK in shown
        assert "secret-of" not in shown and "hidden" not in shown
    assert all(verifier in run for verifier in VERIFIERS.values())


def test_a_statement_without_a_secret_is_shown_as_it_is_run() -> None:
    assert Statement(sql.SQL("select 1"), "why").shown == "select 1"


def test_rights_are_one_grant_for_each_object_in_a_fixed_order() -> None:
    rights = [
        Right("r", "table", "public.b", "SELECT"),
        Right("r", "table", "public.b", "DELETE"),
        Right("r", "schema", "public", "USAGE"),
        Right("r", "function", "ftstream.f(integer)", "EXECUTE"),
    ]
    random.shuffle(rights)
    assert [s.shown for s in grants("grant", rights, "why")] == [
        'grant EXECUTE on function ftstream.f(integer) to "r"',
        'grant USAGE on schema "public" to "r"',
        'grant DELETE, SELECT on table "public"."b" to "r"',
    ]


def test_the_capture_role_may_read_and_nothing_else() -> None:
    rights = aim(Site.EXTERNAL, *FLOWS).capture_rights
    assert {right.privilege for right in rights} == {"CONNECT", "USAGE", "SELECT"}
    assert {right.object for right in rights if right.kind == "table"} == {
        *(each.qualified for each in GFX.tables),
        "ftstream.outbox",
    }


def test_the_apply_role_of_external_only_reads_what_external_owns() -> None:
    rights = aim(Site.EXTERNAL).apply_rights
    assert {r.privilege for r in rights if r.kind == "table"} == {"SELECT"}
    assert not any(right.object.startswith("ftstream") for right in rights)


def test_a_flow_that_supabase_owns_is_guarded_on_external() -> None:
    guards = aim(Site.EXTERNAL, RENDER_QUEUE).guards
    assert [(g.kind, g.table, g.arguments) for g in guards] == [
        (kind, "public.render_queue", ("render_queue", "supabase"))
        for kind in (TriggerKind.GUARD, TriggerKind.GUARD_TRUNCATE)
    ]
    assert aim(Site.SUPABASE, RENDER_QUEUE).guards == ()


@pytest.mark.parametrize(
    ("changes", "bypasses", "needed"),
    [
        ({}, False, True),
        ({"row_security": False}, False, False),
        ({}, True, False),
        ({"owner_roles": ["worker"]}, False, False),
        ({"owner_roles": ["worker"], "forced": True}, False, True),
    ],
)
def test_a_policy_is_made_where_row_security_would_hide_rows(
    changes: dict[str, object], bypasses: bool, needed: bool
) -> None:
    role = Role("worker", True, False, False, bypasses, ours=True, elsewhere=False)
    there = replace(state(), tables={"t": table("t", **changes)}, roles={"worker": role})
    assert needs_policy(RowPolicy("t", "p", "worker", "ALL"), there) is needed


def test_excluded_and_generated_columns_are_not_published() -> None:
    narrow = replace(GFX, tables=(Table("t", excluded=frozenset({"raw"})),))
    columns = (column("id"), column("b"), column("a"), column("g", generated=True))
    there = replace(state(), columns={"public.t": columns})
    (capture,) = log_captures([narrow])
    published = publication_tables(capture, there)
    assert published == {"public.t": ["a", "b", "id"]}
    steps = plan_site(aim(Site.EXTERNAL, narrow), there, VERIFIERS)
    assert 'for table "public"."t" ("a", "b", "id")' in text(steps)


def test_a_publication_that_is_right_is_left_alone() -> None:
    tables = dict.fromkeys((each.qualified for each in GFX.tables), None)
    there = Publication("gfx_publication", owned=True, all_tables=False, whole=True, tables=tables)
    steps = plan_site(
        aim(Site.EXTERNAL), replace(state(), publications={there.name: there}), VERIFIERS
    )
    assert "publication gfx_publication" not in titles(steps)


@pytest.mark.parametrize("broken", [{"always": False}, {"arguments": ["gfx", "supabase"]}])
def test_a_guard_that_somebody_has_changed_is_made_anew(broken: dict[str, Any]) -> None:
    there = {
        (trigger.table, trigger.kind.value): as_made(trigger)
        for trigger in aim(Site.SUPABASE).guards
    }
    assert "guards of flow gfx" not in titles(
        plan_site(aim(Site.SUPABASE), replace(state(), triggers=there), VERIFIERS)
    )
    first = next(iter(there))
    there[first] = replace(there[first], **broken)
    steps = plan_site(aim(Site.SUPABASE), replace(state(), triggers=there), VERIFIERS)
    (step,) = (step for step in steps if step.title == "guards of flow gfx")
    assert len(step.statements) == 2 and "gfx_sessions" in text((step,))


@pytest.mark.parametrize("site", list(Site))
def test_what_leaves_by_the_outbox_is_captured_last(site: Site) -> None:
    """A change captured before there is a slot would be lost."""
    steps = plan_site(aim(site, *FLOWS), state(), VERIFIERS)
    captures = [step for step in steps if step.stage is Stage.CAPTURE]
    assert captures == list(steps[-len(captures) :])
    assert f"ftstream.capture('{site}', 'public.cue_sheets', 'id')" in text(tuple(captures))
    assert ("render_queue" in text(tuple(captures))) is (site is Site.SUPABASE)


def woken(site: Site, *flows: Flow) -> Wanted:
    realtime = RealtimeSettings(url="https://abc.supabase.co", key=SecretStr("hidden"))
    return wanted(site, flows, settings().model_copy(update={"realtime": realtime}))


def told(**tables: list[str] | None) -> SiteState:
    """A database of a project whose owner has put some tables into Realtime's publication."""
    names = {f"public.{name}": columns for name, columns in tables.items()}
    there = Publication("supabase_realtime", True, all_tables=False, whole=True, tables=names)
    return replace(state(OVERRIDES), publications={there.name: there})


def test_realtime_tells_of_what_leaves_supabase_by_the_outbox_and_of_what_others_want() -> None:
    title, both = "publication supabase_realtime", woken(Site.SUPABASE, OVERRIDES, GFX)
    assert title in titles(plan_site(both, state(OVERRIDES), VERIFIERS))
    for where in (woken(Site.EXTERNAL, OVERRIDES), woken(Site.SUPABASE, GFX), aim(Site.SUPABASE)):
        assert title not in [s.title for s in plan_site(where, state(OVERRIDES), VERIFIERS)]

    (step,) = (s for s in plan_site(both, told(theirs=None), VERIFIERS) if s.title == title)
    assert len(step.statements) == 2 and "create publication" not in text((step,))
    assert 'add table "public"."profile_images"' in text((step,))
    (step,) = (
        s for s in plan_site(both, told(player_overrides=None), VERIFIERS) if s.title == title
    )
    assert "player_overrides" not in text((step,)) and "profile_images" in text((step,))

    there = told(player_overrides=None, theirs=None)
    (step,) = (s for s in plan_removal(both, there, everything=True) if s.title == title)
    assert text((step,)).count("alter publication") == 1 and "theirs" not in text((step,))


def test_a_publication_of_realtimes_that_is_anothers_is_told_if_it_must_change() -> None:
    both = woken(Site.SUPABASE, OVERRIDES)
    for tables in ({"player_overrides": None}, {"player_overrides": None, "profile_images": None}):
        there = told(**tables)
        (publication,) = there.publications.values()
        another = {publication.name: replace(publication, owned=False)}
        problems = site_problems(both, replace(there, publications=another))
        hints = [problem.hint for problem in problems if problem.fatal]
        lacks = 'ALTER PUBLICATION "supabase_realtime" OWNER TO "admin"'
        assert (lacks in hints) is (len(tables) == 1)


def test_migrations_have_numbers_of_their_own_and_none_is_skipped() -> None:
    both, supabase = migrations(Site.EXTERNAL), migrations(Site.SUPABASE)
    assert set(both) < set(supabase)
    numbered = [m.version for m in supabase if not m.functions]
    assert numbered == list(range(BASELINE, BASELINE + len(numbered)))


def test_functions_are_made_again_when_they_have_changed() -> None:
    known = migrations(Site.EXTERNAL)
    applied = [AppliedMigration(m.version, m.name, m.checksum) for m in known]
    last = known[-1]
    assert last.functions
    assert pending(known, [*applied[:-1], AppliedMigration(last.version, last.name, "x")]) == (
        last,
    )


def test_database_from_before_the_baseline_has_it_or_is_to_be_brought_up_to_date_first() -> None:
    older = [AppliedMigration(version, "m", "x") for version in range(1, BASELINE)]
    known = migrations(Site.SUPABASE)
    due = pending(known, folded(Site.SUPABASE, older))
    assert due == tuple(m for m in known if m.version > BASELINE + 1)
    with pytest.raises(MigrationChanged, match="lacks the migrations 18,"):
        folded(Site.SUPABASE, older[:-1])


def test_a_migration_that_changed_after_it_was_applied_is_named() -> None:
    known = migrations(Site.SUPABASE)
    applied = [AppliedMigration(m.version, m.name, m.checksum) for m in known]
    assert pending(known, applied) == ()
    assert pending(known, applied[:1]) == known[1:]
    with pytest.raises(MigrationChanged, match="020_baseline"):
        pending(known, [replace(a, checksum="x") if a.version == 20 else a for a in applied])
    with pytest.raises(MigrationChanged, match="does not know: 99"):
        pending(known, [*applied, AppliedMigration(99, "later", "x")])


def test_removal_leaves_a_role_that_init_did_not_make() -> None:
    held = frozenset({Right("worker", "table", GFX.tables[0].qualified, "SELECT")})
    for ours in (True, False):
        role = Role("worker", True, False, False, False, ours=ours, elsewhere=False)
        there = replace(state(), roles={"worker": role}, held=held)
        removed = titles(plan_removal(aim(Site.EXTERNAL), there, everything=True))
        assert removed == (["rights", "role worker"] if ours else [])


def test_the_role_behind_supabases_pooler_has_no_project_in_its_name() -> None:
    pooled = "postgresql://postgres.abcdef:x@aws-0-eu.pooler.supabase.com:6543/postgres"
    assert role_of(Database(dsn=SecretStr(pooled))) == "postgres"
    assert role_of(Database(dsn=SecretStr("postgresql://a.b:x@host/db"))) == "a.b"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"wal_level": "replica"}, "ALTER SYSTEM SET wal_level = logical"),
        ({"version": 130_010}, "PostgreSQL 13 is older than 14"),
        ({"free_slots": 0}, "max_replication_slots leaves room for 0 more"),
        ({"free_senders": 0}, "max_wal_senders leaves room for 0 more"),
        ({"may_replicate": False}, "may not make a replication slot"),
        ({"standby": True}, "is a standby"),
    ],
)
def test_the_server_of_the_source_is_checked(change: dict[str, object], told: str) -> None:
    server = replace(SERVER, **change)  # type: ignore[arg-type]
    problems = site_problems(aim(Site.EXTERNAL), replace(state(), server=server))
    assert [p for p in problems if p.fatal and told in str(p) and p.hint]


def test_connections_that_will_not_do_are_told() -> None:
    wanted = aim(Site.EXTERNAL)
    needed = wanted.worker_connections + wanted.connector_connections
    full = replace(SERVER, free_connections=needed - 1, max_connections=100)
    (told,) = site_problems(wanted, replace(state(), server=full))
    assert f"of 100 connections {needed - 1} are left" in str(told) and not told.fatal
    enough = replace(SERVER, free_connections=needed)
    assert not [*site_problems(wanted, replace(state(), server=enough))]
    limited = Role("debezium", True, False, True, False, True, False, connection_limit=3)
    told, *_ = site_problems(wanted, replace(state(), roles={"debezium": limited}))
    assert "may have 3 connections" in str(told) and not told.fatal


def test_triggers_that_ftstreams_writes_pass_over_are_named() -> None:
    own = (OwnTrigger("public.a", "touch", runs=False), OwnTrigger("public.b", "copy", runs=True))
    quiet, running = site_problems(aim(Site.SUPABASE), replace(state(), own_triggers=own))
    assert (quiet.level, running.level) == ("note", "note")
    assert "do not run for what ftstream writes: public.a.touch" in str(quiet)
    assert "run for what ftstream writes, with its rights: public.b.copy" in str(running)


def test_a_source_that_is_as_it_should_be_has_no_problems() -> None:
    assert list(site_problems(aim(Site.EXTERNAL), state())) == []
    assert list(pair_problems(GFX, state(), state(), Site.SUPABASE)) == []


def test_sequences_of_both_sites_that_count_alike_are_told() -> None:
    def counting(key: int, other: int) -> SiteState:
        there = state(OVERRIDES)
        columns = column("id", "int8", step=key), column("n", "int8", step=other)
        return replace(there, columns=dict.fromkeys(there.columns, columns))

    def told(here: SiteState, there: SiteState) -> list[tuple[str, bool]]:
        found = [*pair_problems(OVERRIDES, here, there, OVERRIDES.targets[0])]
        found += pair_problems(OVERRIDES, there, here, OVERRIDES.targets[1])
        return [(each.what.split()[0], each.fatal) for each in found]

    first, second = (each.qualified for each in OVERRIDES.tables)
    assert told(counting(0, 1), counting(0, 1)) == [(f"{t}.n", False) for t in (first, second)]
    assert told(counting(1, 0), counting(1, 0)) == [(f"{t}.id", True) for t in (first, second)]
    assert told(counting(2, 2), counting(2, 2)) == told(counting(1, 1), counting(0, 0)) == []


def test_a_lost_slot_is_made_again_and_what_to_do_then_is_said() -> None:
    slot = Slot("gfx_slot", "pgoutput", "db", active=False, lost=True)
    there = replace(state(), slots={slot.name: slot})
    (problem,) = site_problems(aim(Site.EXTERNAL), there)
    assert not problem.fatal and "ftstream connectors apply gfx" in problem.hint
    (step,) = (s for s in plan_site(aim(Site.EXTERNAL), there, VERIFIERS) if s.stage is Stage.SLOTS)
    drop, create = (s.shown for s in step.statements)
    assert "drop_replication_slot" in drop and "create_logical_replication_slot" in create


def test_a_lost_slot_of_the_outbox_is_made_anew_once_nothing_can_start_with_the_gap() -> None:
    aimed = aim(Site.EXTERNAL, OVERRIDES)
    slot = Slot("outbox_slot", "pgoutput", "db", active=False, lost=True)
    triggers = {(t.table, t.kind.value): as_made(t) for t in aimed.outbox_triggers}
    there = replace(state(), slots={slot.name: slot}, triggers=triggers)
    assert not [p for p in site_problems(aimed, there) if "outbox_slot" in str(p) and p.fatal]
    (step,) = (s for s in plan_site(aimed, there, VERIFIERS) if s.stage is Stage.SLOTS)
    done = [s.shown for s in step.statements]
    assert "ftstream.reconciled" in done[0] and "drop_replication_slot" in done[1]
    assert "create_logical_replication_slot" in done[2]
    # Where it was well before, what is missing is a gap that is kept, and the flow may start.
    known = replace(there, seen=frozenset(t.qualified for t in OVERRIDES.tables))
    (step,) = (s for s in plan_site(aimed, known, VERIFIERS) if s.stage is Stage.SLOTS)
    assert not [s for s in step.statements if "ftstream.reconciled" in s.shown]


def test_postgresql_14_needs_a_superuser_to_apply_and_the_problem_says_so() -> None:
    server = replace(SERVER, version=140_010)
    problems = site_problems(aim(Site.SUPABASE), replace(state(), server=server))
    assert any("PostgreSQL 14 cannot grant that" in str(p) for p in problems)


def test_the_watchers_role_is_named_by_its_own_address() -> None:
    pooled = "postgresql://ftstream_watch.abcdef:x@aws-0-eu.pooler.supabase.com:6543/postgres"
    direct = "postgresql://ftstream_apply:x@db.abcdef.supabase.co/postgres"
    supabase = Database(dsn=SecretStr(direct), watch_dsn=SecretStr(pooled))
    external = Database(
        dsn=SecretStr(direct), watch_dsn=SecretStr("postgresql://ftstream_apply@h/d")
    )
    settings = Settings(external=external, supabase=supabase)
    assert wanted(Site.SUPABASE, FLOWS, settings).watch_role == "ftstream_watch"
    assert wanted(Site.EXTERNAL, FLOWS, settings).watch_role == ""  # it is the worker's


def test_what_the_watcher_may_write_is_none_of_what_flows_carry() -> None:
    database = Database(
        dsn=SecretStr("postgresql://apply@h/d"), watch_dsn=SecretStr("postgresql://watch@h/d")
    )
    settings = Settings(external=database, supabase=database)
    carried = {table.qualified for flow in FLOWS for table in flow.tables}
    for site in Site:
        aim = wanted(site, FLOWS, settings)
        written = {r.object for r in aim.watch_rights if r.privilege not in ("SELECT", "USAGE")}
        assert written and not written & carried
        read = {p.table for p in aim.policies if p.role == "watch"}
        assert carried & {t.qualified for t in aim.tables} <= read
        by_worker = {r.object for r in aim.apply_rights if r.privilege == "INSERT"}
        assert not by_worker & {"ftstream.watcher", "ftstream.compared", "ftstream.alert"}


def test_a_pooler_is_an_error_before_a_slot_and_a_warning_elsewhere() -> None:
    pooled = replace(state(), pooled=True)
    assert [p.fatal for p in site_problems(aim(Site.EXTERNAL), pooled)] == [True]
    assert [p.fatal for p in site_problems(aim(Site.SUPABASE), pooled)] == [False]


def test_columns_that_cannot_be_carried_are_told_with_the_way_out() -> None:
    name = GFX.tables[0].qualified
    hides = column("v", "numeric", is_array=True)
    there = replace(
        state(),
        columns={**state().columns, name: (column("id", "uuid"), column("p", "point"), hides)},
    )
    told = "\n".join(map(str, pair_problems(GFX, there, there, Site.SUPABASE)))
    assert "exclude the column in flows.py" in told
    assert f"ALTER TABLE {name} REPLICA IDENTITY FULL" in told


def captures_as(*, ours: bool = True, administered: bool = False) -> dict[str, Role]:
    name = aim(Site.EXTERNAL).capture_role
    role = Role(name, True, False, True, False, ours, elsewhere=False, administered=administered)
    return {name: role}


@pytest.mark.parametrize(("version", "administered"), [(150_000, False), (160_000, True)])
def test_running_connector_is_to_be_restarted_for_new_settings_of_its_role(
    version: int, administered: bool
) -> None:
    """A session keeps those with which it began."""
    aimed, server = aim(Site.EXTERNAL), replace(SERVER, superuser=False, version=version)
    roles = captures_as(administered=administered)
    slot = Slot("gfx_slot", "pgoutput", "db", active=True, lost=False)
    there = replace(state(), server=server, roles=roles, slots={slot.name: slot})
    (problem,) = [p for p in site_problems(aimed, there) if "settings" in p.what]
    assert not problem.fatal and "ftstream connectors delete gfx" in problem.hint
    pinned = replace(there, settings={aimed.capture_role: CAPTURE_SETTINGS})
    idle = replace(there, slots={slot.name: replace(slot, active=False)})
    for each in (pinned, idle):
        assert not [p for p in site_problems(aimed, each) if "settings" in p.what]


def test_from_postgresql_16_a_role_is_altered_by_who_administers_it() -> None:
    server = replace(SERVER, superuser=False, version=160_000)
    there = replace(state(), server=server, roles=captures_as(ours=False))
    told = [str(p) for p in site_problems(aim(Site.EXTERNAL), there) if p.fatal]
    assert any("may not set them" in each for each in told)


def test_key_that_the_log_holds_by_another_index_or_not_at_all() -> None:
    def told(**changes: object) -> list[tuple[str, bool]]:
        there = state()
        tables = {name: replace(t, **changes) for name, t in there.tables.items()}  # type: ignore[arg-type]
        found = pair_problems(GFX, replace(there, tables=tables), state(), Site.SUPABASE)
        return [(p.hint.split(" ", 3)[3], p.fatal) for p in found if "gfx_players" in p.what]

    assert told(replica_identity="i", logged_columns=["id"]) == []
    assert told(replica_identity="i", logged_columns=["n"]) == [("REPLICA IDENTITY DEFAULT", True)]
    assert told(replica_identity="n") == [("REPLICA IDENTITY DEFAULT", True)]
    assert told(literal_defaults=["id"]) == [("ALTER id DROP DEFAULT", False)]
