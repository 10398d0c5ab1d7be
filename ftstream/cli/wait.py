"""`ftstream wait`: until everything committed so far is applied."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from ftstream.cli.flows import FlowType
from ftstream.compare.progress import watch
from ftstream.flows import FLOWS, Capture, Flow
from ftstream.settings import Settings, load_settings


@click.command(
    epilog="""\b
Examples:
  ftstream wait
  ftstream wait gfx --timeout 30
Exit codes: 0 applied, 1 not in time, 2 wrong settings, 3 Kafka does not answer."""
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

    for flow in flows:
        async with watch(flow, settings) as progress:
            await progress.wait(timeout, say)
        if not quiet:
            click.echo(f"flow {flow.name}: {_done(flow)}")


def _done(flow: Flow) -> str:
    if flow.capture is Capture.BATCH:
        return "everything that its runs have published is applied"
    return "everything is applied"
