"""`ftstream init`: make on both sites and in Kafka what the flows need."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import click

from ftstream.cli.errors import WRONG_USE
from ftstream.cli.options import dry_run_option, json_option
from ftstream.settings import Settings, load_settings
from ftstream.setup import (
    Done,
    InitPlan,
    KafkaTopics,
    PreflightFailed,
    SetupFailed,
    never_met,
    plan_init,
    run_init,
    script,
    supabase_migration,
)
from ftstream.setup.problem import Problem


@click.command(
    epilog="""\b
Examples:
  ftstream init --dry-run        what would be run, as SQL
  ftstream init                  do it; run again, it finds everything unchanged
  ftstream init --as-migration supabase/migrations
                                 Supabase's part for `supabase db push`; `init` does the rest
Exit codes: 0 done, 1 a step failed, 2 something must be fixed first (nothing was changed)."""
)
@dry_run_option
@click.option(
    "--as-migration",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write Supabase's part into this folder instead, as a migration of the Supabase CLI.",
)
@json_option
def init(dry_run: bool, folder: Path | None, as_json: bool) -> None:
    """Make schema, roles, rights, guards, publication, slot and topics for the flows.

    Everything is checked first, on both sites; all problems are told together.
    """
    if dry_run and folder:
        raise click.UsageError("--dry-run and --as-migration exclude each other")
    settings = load_settings()
    try:
        if folder is not None:
            _write(asyncio.run(supabase_migration(settings)), folder, as_json)
        elif dry_run:
            _show_plan(asyncio.run(plan_init(settings, KafkaTopics(settings))), as_json)
        else:
            asyncio.run(_run(settings, as_json))
    except PreflightFailed as error:
        show_problems(error.problems, as_json)
        sys.exit(WRONG_USE)
    except SetupFailed as error:
        click.echo(f"ftstream: {error}", err=True)
        sys.exit(1)


def show_problems(problems: Iterable[Problem], as_json: bool = False) -> None:
    """Tell what is wrong: a line each on stderr, or one JSON object."""
    listed = list(problems)
    if as_json:
        click.echo(json.dumps({"problems": [_as_dict(problem) for problem in listed]}, indent=2))
        return
    for problem in listed:
        click.echo(f"{problem.level}: {problem}", err=True)
    fatal = sum(problem.fatal for problem in listed)
    click.echo(f"{fatal} to fix first; nothing was changed", err=True)


def show_done(done: Done) -> None:
    """One line for one step."""
    click.echo(f"{done.where + ':':<10} {done.what}: {'done' if done.changed else 'unchanged'}")


async def _run(settings: Settings, as_json: bool) -> None:
    steps: list[Done] = []
    async for done in run_init(settings, KafkaTopics(settings), warn=_warn):
        steps.append(done)
        if not as_json:
            show_done(done)
    if as_json:
        shown = [{"where": s.where, "what": s.what, "changed": s.changed} for s in steps]
        click.echo(json.dumps({"steps": shown}, indent=2))
    else:
        apart = " ".join(flow.name for flow in await never_met(settings))
        meet = (
            f"ftstream reconcile {apart} (both sites may hold rows from before), " if apart else ""
        )
        click.echo(f"Next: ftstream connectors apply, {meet}then ftstream worker")


def _warn(problem: Problem) -> None:
    click.echo(f"{problem.level}: {problem}", err=True)


def _show_plan(plan: InitPlan, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_plan_dict(plan), indent=2))
        return
    for problem in plan.warnings:
        _warn(problem)
    for step in plan.steps:
        if not step.statements:
            click.echo(f"-- {step.site}: {step.title}: unchanged\n")
    click.echo(script(plan.steps))
    for topic in plan.topics:
        state = (
            f"create, {topic.partitions} partitions"
            if topic.name in plan.missing_topics
            else ("unchanged")
        )
        click.echo(f"-- kafka: topic {topic.name}: {state}")
    click.echo("-- dry run: nothing was changed")


def _plan_dict(plan: InitPlan) -> dict[str, object]:
    return {
        "steps": [
            {
                "where": step.site.value,
                "what": step.title,
                "statements": [{"sql": s.shown, "why": s.why} for s in step.statements],
            }
            for step in plan.steps
        ],
        "topics": [
            {"name": t.name, "partitions": t.partitions, "missing": t.name in plan.missing_topics}
            for t in plan.topics
        ],
        "warnings": [_as_dict(problem) for problem in plan.warnings],
    }


def _as_dict(problem: Problem) -> dict[str, object]:
    return {
        "where": problem.where,
        "what": problem.what,
        "hint": problem.hint,
        "fatal": problem.fatal,
    }


def _write(text: str, folder: Path, as_json: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y%m%d%H%M%S}_ftstream.sql"
    path.write_text(text, encoding="utf-8")
    if as_json:
        click.echo(json.dumps({"file": str(path)}))
    else:
        click.echo(f"{path}\nNext: supabase db push, then ftstream init for External and Kafka")
