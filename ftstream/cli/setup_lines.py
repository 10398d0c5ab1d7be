"""What is not as `init` promises, in lines for people."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import click

from ftstream.flows import FLOWS, Flow
from ftstream.settings import Settings
from ftstream.setup.close_gaps import command_for
from ftstream.setup.look import SetupLook, look_for_certain


def setup_lines(found: SetupLook) -> Iterator[str]:
    """Return a line for each fault, each gap, and each table that was changed unseen."""
    for site, table in found.unnoted:
        yield f"{site}: the capture of {table} was changed since a worker last looked: start one"
    for fault in found.faults:
        yield str(fault)
    flows = {flow.name: flow for flow in FLOWS}
    for site, gap in found.gaps:
        end = "once that is mended" if gap.until is None else "soon"
        way = f"; or: {command_for(flows[gap.flow], gap)}" if gap.flow in flows else ""
        yield f"{site}: gap of {gap}. A running worker compares both sites {end}{way}"


async def show_setup(settings: Settings, flows: Collection[Flow]) -> SetupLook:
    """Look at what concerns these flows, and tell it on stderr."""
    found = (await look_for_certain(settings)).of(flows)
    for line in setup_lines(found):
        click.echo(line, err=True)
    return found
