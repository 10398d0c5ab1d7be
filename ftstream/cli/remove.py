"""`ftstream remove`: take away what `init` has made."""

from __future__ import annotations

import asyncio
import sys

import click

from ftstream.cli.errors import WRONG_USE
from ftstream.cli.flows import FlowType
from ftstream.cli.init import show_done, show_problems
from ftstream.cli.options import dry_run_option, yes_option
from ftstream.flows import Flow
from ftstream.settings import Settings, load_settings
from ftstream.setup import (
    KafkaConnectors,
    KafkaTopics,
    PreflightFailed,
    RemovalPlan,
    SetupFailed,
    plan_removal,
    run_removal,
    script,
)


@click.command(
    epilog="""\b
Examples:
  ftstream remove --dry-run      what would go
  ftstream remove gfx            one flow; asks first
  ftstream remove --yes          all of ftstream, without asking
Exit codes: 0 done, 1 a step failed or you declined, 2 something must be fixed first."""
)
@click.argument("flow", metavar="[FLOW]", type=FlowType(), required=False)
@dry_run_option
@yes_option
@click.option("--keep-topics", is_flag=True, help="Leave the topics, with all they hold, in Kafka.")
def remove(flow: Flow | None, dry_run: bool, yes: bool, keep_topics: bool) -> None:
    """Take a flow away again, or all of ftstream: the rows of your tables stay, on both sites.

    Connector, slot, publication, guards, policies, rights and topics go; without FLOW also the
    schema ftstream, with the log of changes, and the roles that `init` made. Stop the worker first.
    """
    settings = load_settings()
    try:
        asyncio.run(_remove(settings, flow, dry_run=dry_run, yes=yes, keep_topics=keep_topics))
    except PreflightFailed as error:
        show_problems(error.problems)
        sys.exit(WRONG_USE)
    except SetupFailed as error:
        click.echo(f"ftstream: {error}", err=True)
        sys.exit(1)


async def _remove(
    settings: Settings, flow: Flow | None, *, dry_run: bool, yes: bool, keep_topics: bool
) -> None:
    topics = None if keep_topics else KafkaTopics(settings)
    connectors = KafkaConnectors(settings)
    plan = await plan_removal(settings, flow, topics, connectors)
    if dry_run:
        _show(plan)
        click.echo("-- dry run: nothing was changed")
        return
    if not yes:
        _show(plan)
        click.confirm("Remove all of this?", abort=True)
    if plan.empty:
        click.echo("nothing of ftstream is there")
    async for done in run_removal(settings, plan, topics, connectors):
        if done.changed:
            show_done(done)
    for entry in plan.left:
        click.echo(f"left: {entry}")


def _show(plan: RemovalPlan) -> None:
    for name in plan.connectors:
        click.echo(f"-- connect: delete connector {name}, and the position it keeps")
    if any(step.statements for step in plan.steps):
        click.echo(script(plan.steps))
    for name in plan.topics:
        click.echo(f"-- kafka: delete topic {name}, with all it holds")
    for entry in plan.left:
        click.echo(f"-- left: {entry}")
    if plan.empty:
        click.echo("-- nothing to remove")
