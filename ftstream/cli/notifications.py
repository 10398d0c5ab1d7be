"""`ftstream notifications`: what the person on duty should know."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click
from psycopg.rows import dict_row

from ftstream.apply.housekeeping import QUERIES
from ftstream.cli.encoding import encoded
from ftstream.cli.options import json_option
from ftstream.flows import Site
from ftstream.postgres.connection import open_site
from ftstream.postgres.queries import statement
from ftstream.settings import load_settings


@click.command(
    epilog="""\b
Examples:
  ftstream notifications
  ftstream notifications --json --all
  ftstream notifications --read 3 --read 4
  ftstream notifications --read-all
Exit codes: 0, also when there are some; 1 the database does not answer, 2 wrong use."""
)
@click.option("--all", "every", is_flag=True, help="Also those that somebody has read.")
@json_option
@click.option("--read", "ids", multiple=True, type=int, metavar="ID", help="Mark this one as read.")
@click.option("--read-all", is_flag=True, help="Mark all as read.")
def notifications(every: bool, as_json: bool, ids: tuple[int, ...], read_all: bool) -> None:
    """Show what has happened that somebody should know, the newest last."""
    if ids or read_all:
        marked = asyncio.run(_mark(None if read_all else ids))
        click.echo(f"{marked} marked as read")
        return
    found = asyncio.run(_read(every))
    if as_json:
        click.echo(json.dumps(found, indent=2, default=encoded))
        return
    if not found:
        click.echo("nothing to tell")
    for row in found:
        at = row["last_at"].astimezone().strftime("%Y-%m-%d %H:%M:%S")
        times = f" ({row['times']} times)" if row["times"] > 1 else ""
        click.echo(f"{row['id']}  {at}  {row['severity']}  {row['title']}{times}")
        click.echo(f"    {row['message']}")


async def _read(every: bool) -> list[dict[str, Any]]:
    async with (
        await open_site(load_settings(), Site.SUPABASE) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        await cursor.execute(statement(QUERIES["notifications"]), {"all": every})
        return await cursor.fetchall()


async def _mark(ids: tuple[int, ...] | None) -> int:
    async with await open_site(load_settings(), Site.SUPABASE) as connection:
        values = {"ids": None if ids is None else list(ids)}
        return (await connection.execute(statement(QUERIES["mark_read"]), values)).rowcount
