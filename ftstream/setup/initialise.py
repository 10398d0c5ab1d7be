"""`init`: look at everything, then make what is missing on both sites and in Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import AsyncConnection

from ftstream.flows import FLOWS, Capture, Flow, Site
from ftstream.kafka.errors import KafkaError
from ftstream.kafka.topics import TopicSpec, topics_of_all
from ftstream.last_write.reconciled import unreconciled
from ftstream.settings import Settings
from ftstream.setup import migrate
from ftstream.setup.migrate import MigrationChanged
from ftstream.setup.outside import Topics
from ftstream.setup.problem import Problem
from ftstream.setup.provision import Stage, Step, build, plan_file, plan_site
from ftstream.setup.site_look import note_after, note_before
from ftstream.setup.site_state import read_state
from ftstream.setup.survey import (
    PreflightFailed,
    SetupFailed,
    Survey,
    SurveyedSite,
    conninfos,
    open_admin,
    survey,
)
from ftstream.setup.trial import trials

ORDER = (Site.SUPABASE, Site.EXTERNAL)
"""The target first, so that nothing is captured that cannot be applied; slots come last of all."""


@dataclass(frozen=True, slots=True)
class Done:
    """A step that was run, or was found unchanged."""

    where: str
    what: str
    changed: bool


@dataclass(frozen=True, slots=True)
class InitPlan:
    """What `init` would do: the steps in order, the topics with those that are missing."""

    steps: tuple[Step, ...]
    topics: tuple[TopicSpec, ...]
    missing_topics: tuple[str, ...]
    warnings: tuple[Problem, ...]
    survey: Survey = field(repr=False)


async def plan_init(settings: Settings, topics: Topics, flows: Sequence[Flow] = FLOWS) -> InitPlan:
    """Everything that would be done; changes nothing. Raises PreflightFailed with every problem."""
    found, specs = await survey(settings, flows), topics_of_all(settings, flows)
    problems = list(found.fatal)
    missing: list[str] = []
    steps: list[Step] = []
    try:
        missing = await topics.missing(specs)
    except KafkaError as error:
        problems.append(Problem("kafka", str(error).rstrip("."), ""))
    for at in found.seen.values():
        try:
            steps += plan_site(at.wanted, at.state, at.verifiers)
        except MigrationChanged as error:
            problems.append(Problem(at.wanted.site.value, str(error), ""))
    if problems:
        raise PreflightFailed((*problems, *found.warnings))
    return InitPlan(_ordered(steps), specs, tuple(missing), found.warnings, found)


async def run_init(
    settings: Settings,
    topics: Topics,
    flows: Sequence[Flow] = FLOWS,
    warn: Callable[[Problem], None] = lambda _: None,
) -> AsyncIterator[Done]:
    """Do it, and tell each step. Raises PreflightFailed before anything is changed, SetupFailed."""
    plan = await plan_init(settings, topics, flows)
    found = plan.survey
    for problem in plan.warnings:
        warn(problem)
    for site in ORDER:
        async for done in _provision(settings, found.seen[site], Stage.FIRST):
            yield done
    try:
        created = set(await topics.ensure(plan.topics))
    except KafkaError as error:
        raise SetupFailed(f"kafka: {error}") from error
    for spec in plan.topics:
        yield Done("kafka", f"topic {spec.name}", spec.name in created)
    async for done in _slots(settings, found):
        yield done
    for site in ORDER:
        async for done in _provision(settings, found.seen[site], Stage.CAPTURE):
            yield done
    refused: list[Problem] = []
    for at in found.seen.values():
        async with await open_admin(settings, at.wanted.site) as admin:
            refused += await trials(at.wanted, conninfos(at.wanted, settings), admin)
    if refused:
        raise SetupFailed("\n".join(map(str, refused)))


async def never_met(settings: Settings, flows: Sequence[Flow] = FLOWS) -> list[Flow]:
    """The flows that do not start before `reconcile`. Raises psycopg.Error."""
    found: set[str] = set()
    for site in Site:
        async with await open_admin(settings, site) as connection:
            for flow in flows:
                captured = flow.capture is Capture.OUTBOX and site in flow.sources
                if captured and await unreconciled(connection, flow.tables):
                    found.add(flow.name)
    return [flow for flow in flows if flow.name in found]


async def supabase_migration(settings: Settings, flows: Sequence[Flow] = FLOWS) -> str:
    """Supabase's part as one SQL script that may run more than once. Raises PreflightFailed."""
    found = await survey(settings, flows, (Site.SUPABASE,))
    if found.fatal:
        raise PreflightFailed(found.problems)
    at = found.seen[Site.SUPABASE]
    return script(plan_file(at.wanted, at.state))


def script(steps: Sequence[Step]) -> str:
    """The steps as SQL, the reasons as comments; secrets masked."""
    return "\n".join(_section(step) for step in steps if step.statements)


def _section(step: Step) -> str:
    parts = [f"-- {step.site}: {step.title}\n"]
    for statement in step.statements:
        parts.append(f"-- {statement.why}\n{statement.shown.strip().rstrip(';')};\n")
    return "\n".join(parts)


def _ordered(steps: Sequence[Step]) -> tuple[Step, ...]:
    """As they are run."""
    return tuple(sorted(steps, key=lambda step: (step.stage, ORDER.index(step.site))))


async def _provision(settings: Settings, at: SurveyedSite, stage: Stage) -> AsyncIterator[Done]:
    """A stage at one site in one transaction, planned again under the lock: two `init` at once do no harm."""
    async with await open_admin(settings, at.wanted.site) as connection:
        async with connection.transaction():
            await connection.execute(build("begin"))
            await migrate.lock(connection)
            await note_before(connection, at.wanted)
            state = await read_state(connection, at.wanted, at.logins)
            steps = [s for s in plan_site(at.wanted, state, at.verifiers) if s.stage is stage]
            for step in steps:
                await run_step(connection, step)
            await note_after(connection, at.wanted)
        for step in steps:
            yield Done(step.site.value, step.title, bool(step.statements))


async def _slots(settings: Settings, found: Survey) -> AsyncIterator[Done]:
    for at in found.seen.values():
        async with await open_admin(settings, at.wanted.site) as connection:
            for step in plan_site(at.wanted, at.state, at.verifiers):
                if step.stage is Stage.SLOTS:
                    await connection.execute(build("slot_patience"))
                    await run_step(connection, step)
                    yield Done(step.site.value, step.title, bool(step.statements))


async def run_step(connection: AsyncConnection, step: Step) -> None:
    """Run one step's statements. Raises SetupFailed, which names the step and what to do."""
    for statement in step.statements:
        try:
            await connection.execute(statement.sql)
        except psycopg.Error as error:
            raise SetupFailed(
                f"{step.site}: {step.title}: {str(error).strip()}{_hint(error)}"
            ) from error


def _hint(error: psycopg.Error) -> str:
    match error:
        case psycopg.errors.LockNotAvailable():
            return (
                ". Another session uses the table (pg_stat_activity): run it again when it is done"
            )
        case psycopg.errors.QueryCanceled():
            return (
                ". A slot waits for every transaction that is running; end the old ones"
                " (pg_stat_activity, by xact_start), then run it again"
            )
        case psycopg.errors.ObjectInUse():
            return ". The connector still reads it: delete the connector first"
        case _:
            return ""
