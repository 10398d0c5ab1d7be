"""`ftstream dev`: the local stack, for trying ftstream out and for its tests."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from ftstream.cli.nearest import Group
from ftstream.cli.options import json_option
from ftstream.local.demo.rig import Rig
from ftstream.local.stack import NAMES, ProcessStatus, Stack

DEFAULT_FOLDER = Path(".ftstream/dev")
FOLLOW_SECONDS = 0.2


@click.group(cls=Group)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_FOLDER,
    show_default=True,
    help="Folder of the stack: data, logs and settings.",
)
@click.pass_context
def dev(context: click.Context, folder: Path) -> None:
    """Run PostgreSQL (twice), Kafka, Connect and a Realtime on this machine, without containers.

    \b
    Examples:
      ftstream dev up --demo-schema       start it, or what is missing of it
      ftstream dev status                 what runs, and where
      ftstream dev logs connect --follow  what Debezium says
      ftstream dev down                   stop it, keep the data
      ftstream dev down --wipe            stop it, remove everything
      ftstream dev --dir /tmp/other up    a second stack beside the first
    """
    context.obj = Stack(folder)


@dev.command()
@click.option("--demo-schema", is_flag=True, help="Load the demo's tables where there are none.")
@click.pass_obj
def up(stack: Stack, demo_schema: bool) -> None:
    """Start what does not run; ports, passwords and data stay as they were.

    \b
    Examples:
      ftstream dev up --demo-schema
      ftstream dev --dir /tmp/other up
    """
    stack.up(click.echo)
    if demo_schema:
        Rig(stack).create_databases(keep=True)
    settings = stack.write_settings()
    click.echo()
    _show(stack.status())
    click.echo(f"\nSettings: {settings} (holds passwords)")
    click.echo(f"Next: ftstream --config {_short(settings)} --help")


@dev.command()
@click.option("--wipe", is_flag=True, help="Also remove data, logs, settings and passwords.")
@click.pass_obj
def down(stack: Stack, wipe: bool) -> None:
    """Stop the stack; the data stay unless --wipe is given.

    \b
    Examples:
      ftstream dev down
      ftstream dev down --wipe
    """
    stack.down(destroy=wipe, progress=click.echo)


@dev.command()
@json_option
@click.pass_obj
def status(stack: Stack, as_json: bool) -> None:
    """Show what runs; exit with 1 unless everything does.

    \b
    Examples:
      ftstream dev status
      ftstream dev status --json
    """
    found = stack.status()
    if as_json:
        rows = [dataclasses.asdict(row) | {"log": str(row.log)} for row in found]
        click.echo(json.dumps(rows, indent=2))
    elif found:
        _show(found)
    else:
        click.echo(f"there is no stack in {stack.folder}: run `ftstream dev up`")
    if not found or any(row.state != "running" for row in found):
        sys.exit(1)


@dev.command()
@click.argument("name", type=click.Choice(NAMES), required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--lines", "-n", type=click.IntRange(min=0), default=50, show_default=True)
@click.pass_obj
def logs(stack: Stack, name: str | None, follow: bool, lines: int) -> None:
    """Print the end of one process's log, or of all of them.

    \b
    Examples:
      ftstream dev logs
      ftstream dev logs kafka --lines 200
      ftstream dev logs connect --follow
    """
    names = [name] if name else list(NAMES)
    paths = {each: path for each in names if (path := stack.log(each)).exists()}
    if not paths:
        raise click.ClickException(f"there is no log in {stack.folder}: run `ftstream dev up`")
    width = max(map(len, paths)) if len(paths) > 1 else 0
    files = {each: path.open("rb") for each, path in paths.items()}
    for each, file in files.items():
        for line in _last(file, lines):
            _print(each, line, width)
    while follow:
        for each, file in files.items():
            for line in file:
                _print(each, line, width)
        time.sleep(FOLLOW_SECONDS)


def _last(file: BinaryIO, lines: int) -> Iterator[bytes]:
    """The last lines; leaves the file at its end, where following it goes on."""
    whole = file.readlines()
    yield from whole[len(whole) - min(lines, len(whole)) :]


def _print(name: str, line: bytes, width: int) -> None:
    prefix = f"{name:<{width}} | " if width else ""
    click.echo(prefix + line.decode("utf-8", "replace").rstrip("\n"))


def _show(rows: list[ProcessStatus]) -> None:
    for row in rows:
        pid = f"pid {row.pid}" if row.pid else ""
        click.echo(f"{row.name:<10} {row.state:<14} 127.0.0.1:{row.port:<6} {pid}".rstrip())


def _short(path: Path) -> Path:
    """Relative to where the user is, when it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
