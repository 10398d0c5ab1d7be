"""`ftstream wait`: until everything committed so far is applied."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from ftstream.capture.wake_ups import seen
from ftstream.cli.errors import FAILED, UNREACHABLE, CommandFailure
from ftstream.cli.flows import FlowType
from ftstream.cli.setup_lines import show_setup
from ftstream.compare.progress import NotCaughtUp, SlotMissing, watch
from ftstream.flows import FLOWS, Capture, Flow, Site
from ftstream.postgres.connection import open_site
from ftstream.settings import Settings, load_settings


@click.command(
    epilog="""\b
Examples:
  ftstream wait
  ftstream wait gfx --timeout 30
Exit codes: 0 applied, and capture is well; 1 not in time, or capture is broken, or changes are dead;
2 wrong use, or wrong settings; 3 something does not answer, so that nobody can tell."""
)
@click.argument("flows", nargs=-1, type=FlowType(), metavar="[FLOW]...")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds.")
@click.option("--quiet", is_flag=True, help="Say nothing while waiting.")
def wait(flows: tuple[Flow, ...], timeout: float, quiet: bool) -> None:
    """Return when everything committed before the call is applied on the other site.

    Of a flow captured by batch: what its runs have published (`ftstream batch status`).
    """
    asyncio.run(_wait(flows or FLOWS, load_settings(), timeout, quiet))


async def _wait(flows: Sequence[Flow], settings: Settings, timeout: float, quiet: bool) -> None:
    said = ""

    def say(state: str) -> None:
        nonlocal said
        if not quiet and state != said:
            said = state
            click.echo(state, err=True)

    dead = 0
    for flow in flows:
        async with watch(flow, settings) as progress:
            try:
                await progress.wait(timeout, say)
            except (NotCaughtUp, SlotMissing) as error:
                await show_setup(settings, flows)
                raise CommandFailure(f"{error} ({await _why(flow, settings)})") from error
            dead += await progress.dead()
        if not quiet:
            click.echo(f"flow {flow.name}: {_done(flow)}")
    found = await show_setup(settings, flows)
    if not found.well:
        raise CommandFailure(
            "what is captured is applied, but something of capture is not as it should be",
            UNREACHABLE if found.silent else FAILED,
        )
    if dead:
        raise CommandFailure(f"{dead} changes are dead, and wait for a person: ftstream dead list")


async def _why(flow: Flow, settings: Settings) -> str:
    """Say what is known of the workers."""
    async with await open_site(settings, Site.SUPABASE) as connection:
        workers = await seen(connection)
    if not workers:
        return "no worker has been seen lately: start one, `ftstream worker`"
    if halted := [worker.halted[flow.name] for worker in workers if flow.name in worker.halted]:
        return halted[0]
    return f"{len(workers)} running: {', '.join(worker.worker for worker in workers)}"


def _done(flow: Flow) -> str:
    if flow.capture is Capture.BATCH:
        return "everything that its runs have published is applied"
    return "everything is applied"
