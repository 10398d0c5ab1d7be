"""`ftstream restored`: take a site as it is, after it has gone back in time."""

from __future__ import annotations

import asyncio

import click

from ftstream.apply.sites import open_both
from ftstream.capture.connectors import connector_config
from ftstream.cli.options import dry_run_option, yes_option
from ftstream.connect.client import ConnectClient
from ftstream.flows import FLOWS, CaptureNames, Site, log_captures
from ftstream.settings import Settings, load_settings
from ftstream.setup.lineage import accept

_SAID = {
    Site.EXTERNAL: (
        "connectors forget their positions in its log",
        "all rows of gfx and wsop become as they are on External now: rows that it lost are deleted on"
        " Supabase, unless they are many: then you are asked",
        "of flows that both sites may write, the last write of each row comes back from Supabase",
    ),
    Site.SUPABASE: (
        "all rows of gfx and wsop become as they are on External",
        "render_queue becomes on External as Supabase has it now",
        "of flows that both sites may write, the last write of each row comes back from External",
    ),
}


@click.command(
    epilog="""\b
Examples:
  ftstream restored external --dry-run   what would follow
  ftstream restored external             asks first; stop the worker before
Then: ftstream init, ftstream connectors apply, ftstream worker, which compares all tables.
Exit codes: 0 done, 1 declined or failed, 2 wrong use, 3 something does not answer."""
)
@click.argument("site", type=click.Choice([site.value for site in Site]))
@dry_run_option
@yes_option
def restored(site: str, dry_run: bool, yes: bool) -> None:
    """Accept that a site was set back to an earlier state, by a backup or a failover.

    Until then its flows stand still: what was written since, on both sites, is compared by the worker, and
    nothing is decided before you say so.
    """
    back = Site(site)
    for line in _SAID[back]:
        click.echo(f"- {line}")
    if dry_run:
        click.echo("dry run: nothing was changed")
        return
    if not yes:
        click.confirm(f"Take {back} as it is now?", abort=True)
    asyncio.run(_accept(load_settings(), back))
    click.echo("Next: ftstream init, then ftstream connectors apply, then ftstream worker")


async def _accept(settings: Settings, site: Site) -> None:
    settings.require_databases()
    if site is Site.EXTERNAL:
        await _forget_positions(settings)
    async with open_both(settings) as connections:
        await accept(settings, FLOWS, site, connections)


async def _forget_positions(settings: Settings) -> None:
    async with ConnectClient(settings.connect) as client:
        for capture in log_captures(FLOWS):
            names = CaptureNames(capture, settings.namespace)
            if await client.get_config(names.connector) is None:
                # Its offsets stay behind when it is deleted: only one that is there can forget them.
                await client.put_config(names.connector, connector_config(names, settings))
            await client.forget_offsets(names.connector)
            await client.delete(names.connector)
            click.echo(f"connector {names.connector}: its position is forgotten")
