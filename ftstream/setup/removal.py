"""`remove`: take away what `init` has made, connector first, topics last."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

import psycopg
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_fixed

from ftstream.connect.errors import ConnectError
from ftstream.flows import FLOWS, CaptureNames, Flow, Site, captures_of
from ftstream.kafka.errors import KafkaError
from ftstream.kafka.topics import TopicSpec, topics_of_all
from ftstream.settings import Settings
from ftstream.setup import deprovision, migrate
from ftstream.setup.initialise import Done, run_step
from ftstream.setup.outside import Connectors, Topics
from ftstream.setup.problem import Problem
from ftstream.setup.provision import Stage, Step, build
from ftstream.setup.site_state import read_state
from ftstream.setup.survey import (
    PreflightFailed,
    SetupFailed,
    Survey,
    SurveyedSite,
    open_admin,
    survey,
)

SLOT_SECONDS = 30.0
"""How long PostgreSQL may take to notice that the connector has gone."""

ORDER = (Site.EXTERNAL, Site.SUPABASE)
"""The source first, so that nothing is captured that cannot be applied."""


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """What `remove` would do; `left` is what stays, with the reasons."""

    connectors: tuple[str, ...]
    steps: tuple[Step, ...]
    topics: tuple[str, ...]
    left: tuple[str, ...]
    everything: bool
    survey: Survey = field(repr=False)
    specs: tuple[TopicSpec, ...] = field(repr=False)

    @property
    def empty(self) -> bool:
        return not (self.connectors or self.topics or any(s.statements for s in self.steps))


async def plan_removal(
    settings: Settings,
    flow: Flow | None,
    topics: Topics | None,
    connectors: Connectors,
    ready: Sequence[Flow] = FLOWS,
) -> RemovalPlan:
    """Return what would go: one flow, or with None all of ftstream. Raises PreflightFailed.

    Without `topics` they are kept.
    """
    flows = ready if flow is None else (flow,)
    staying = [each for each in ready if each not in flows]
    found = await survey(settings, flows, staying=staying)
    problems = _unseen(found)
    specs = topics_of_all(settings, flows, staying) if topics else ()
    names = _connectors(settings, flows, staying)
    present, left = [], []
    existing: list[str] = []
    try:
        if topics:
            existing = await topics.existing(specs)
    except KafkaError as error:
        problems.append(Problem("kafka", str(error).rstrip("."), "Or keep them: --keep-topics"))
    try:
        present = [name for name in names if await connectors.exists(name)]
    except ConnectError as error:
        left.append(f"connectors {', '.join(names)}: {error}")
        problems += _active(found, str(error))
    if problems:
        raise PreflightFailed(problems)
    sites = [found.seen[site] for site in ORDER]
    steps = [step for at in sites for step in _plan(at, flow is None, topics is not None)]
    left += [entry for at in sites for entry in deprovision.left_behind(at.wanted, at.state)]
    return RemovalPlan(
        tuple(present), tuple(steps), tuple(existing), tuple(left), flow is None, found, specs
    )


async def run_removal(
    settings: Settings, plan: RemovalPlan, topics: Topics | None, connectors: Connectors
) -> AsyncIterator[Done]:
    """Do it, and tell each step. Raises SetupFailed; run again, it goes on where it stopped."""
    for name in plan.connectors:
        try:
            yield Done("connect", f"connector {name}", await connectors.remove(name))
        except ConnectError as error:
            raise SetupFailed(f"connect: {error}") from error
    for site in ORDER:
        async for done in _deprovision(
            settings, plan.survey.seen[site], plan.everything, topics is not None
        ):
            yield done
    try:
        deleted = set(await topics.delete(plan.specs)) if topics else set()
    except KafkaError as error:
        raise SetupFailed(f"kafka: {error}") from error
    for spec in plan.specs:
        yield Done("kafka", f"topic {spec.name}", spec.name in deleted)


def _unseen(found: Survey) -> list[Problem]:
    """Why a site could not be looked at; what is wrong with the others does not keep `remove` away."""
    if found.seen.keys() == set(Site):
        return []
    return [p for p in found.fatal if p.where not in {site.value for site in found.seen}]


def _plan(at: SurveyedSite, everything: bool, topics_go: bool) -> tuple[Step, ...]:
    return deprovision.plan_removal(at.wanted, at.state, everything=everything, topics_go=topics_go)


async def _deprovision(
    settings: Settings, at: SurveyedSite, everything: bool, topics_go: bool
) -> AsyncIterator[Done]:
    """Slots first, each by itself; then the rest of the site in one transaction."""
    async with await open_admin(settings, at.wanted.site) as connection:
        for step in _plan(at, everything, topics_go):
            if step.stage is Stage.SLOTS:
                async for attempt in _while_in_use():
                    with attempt:
                        await run_step(connection, step)
                yield Done(step.site.value, step.title, bool(step.statements))
        async with connection.transaction():
            await connection.execute(build("begin"))
            await migrate.lock(connection)
            state = await read_state(connection, at.wanted, at.logins)
            plan = _plan(replace(at, state=state), everything, topics_go)
            steps = [step for step in plan if step.stage is not Stage.SLOTS]
            for step in steps:
                await run_step(connection, step)
        for step in steps:
            yield Done(step.site.value, step.title, bool(step.statements))


def _while_in_use() -> AsyncRetrying:
    return AsyncRetrying(
        retry=retry_if_exception(lambda e: isinstance(e.__cause__, psycopg.errors.ObjectInUse)),
        wait=wait_fixed(0.5),
        stop=stop_after_delay(SLOT_SECONDS),
        reraise=True,
    )


def _active(found: Survey, reason: str) -> list[Problem]:
    """Slots that a connector reads which cannot be deleted from here."""
    return [
        Problem(
            site.value,
            f"slot {slot.name} is in use, and its connector cannot be deleted: {reason}",
            "Delete the connector, then run it again",
        )
        for site, at in found.seen.items()
        for slot in at.state.slots.values()
        if slot.active
    ]


def _connectors(settings: Settings, going: Sequence[Flow], staying: Sequence[Flow]) -> list[str]:
    captures = captures_of(going, staying)
    return [CaptureNames(capture, settings.namespace).connector for capture in captures]
