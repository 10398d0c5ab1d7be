"""`ftstream accept-loss`: go on where Kafka's log goes on, after records were lost."""

from __future__ import annotations

import asyncio

import click

from ftstream.apply.continuity import Break, Discontinuity, discontinuities
from ftstream.apply.offsets import Offsets
from ftstream.apply.sites import Sites
from ftstream.cli.errors import CommandFailure
from ftstream.cli.flows import FlowType
from ftstream.cli.options import dry_run_option, yes_option
from ftstream.flows import Flow, Names, Site
from ftstream.kafka.partition import Partition
from ftstream.settings import Settings, load_settings


@click.command(
    epilog="""\b
Examples:
  ftstream accept-loss gfx --dry-run   what is lost, and where reading would go on
  ftstream accept-loss gfx             asks first; stop the worker before
Then start the worker, and: ftstream verify gfx --repair
Exit codes: 0 done, or nothing is lost; 1 declined or failed, 2 wrong use, 3 Kafka does not answer."""
)
@click.argument("flow", metavar="FLOW", type=FlowType())
@dry_run_option
@yes_option
def accept_loss(flow: Flow, dry_run: bool, yes: bool) -> None:
    """Accept that records of a halted flow are lost, and read on from what Kafka holds.

    For a topic whose records were deleted before they were applied, or that was recreated: reading
    begins at the first record that is there. What is read twice has no effect twice.
    """
    settings = load_settings()
    for target in flow.targets:
        found = asyncio.run(_lost(settings, flow, target))
        for each in found:
            click.echo(f"{each}; goes on at offset {each.resume}")
        if not found:
            click.echo(f"flow {flow.name} to {target}: nothing is lost")
        elif dry_run:
            click.echo("dry run: nothing was changed")
        else:
            if not yes:
                click.confirm("Go on from there?", abort=True)
            asyncio.run(_go_on(settings, target, found))
            click.echo(f"Next: ftstream worker, then ftstream verify {flow.name} --repair")


async def _lost(settings: Settings, flow: Flow, target: Site) -> list[Discontinuity]:
    names = Names(flow, settings.namespace)
    partitions = [
        Partition(topic, number)
        for topic in names.topics(target)
        for number in range(settings.kafka.partitions)
    ]
    sites = Sites(target, settings)
    try:
        applied = await Offsets(sites).applied(partitions)
    finally:
        await sites.close()
    counts = dict.fromkeys(names.topics(target), settings.kafka.partitions)
    found = await discontinuities(settings.kafka, applied, counts)
    if other := [each for each in found if each.kind is Break.REPARTITIONED]:
        raise CommandFailure(
            f"{'; '.join(map(str, other))}. Set kafka.partitions to what exists, start the worker,"
            " and then run `ftstream verify --repair`: keys moved, and their order was lost"
        )
    return found


async def _go_on(settings: Settings, target: Site, found: list[Discontinuity]) -> None:
    sites = Sites(target, settings)
    try:
        offsets = Offsets(sites)
        for each in found:
            recreated = each.kind is Break.RECREATED
            await offsets.resume(each.partition, each.applied, each.resume, recreated=recreated)
    finally:
        await sites.close()
