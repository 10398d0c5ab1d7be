"""`ftstream demo`: see it work, from nothing to two equal sites."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from ftstream.local.demo.show import show


@click.command(
    epilog="""\b
Examples:
  ftstream demo
  ftstream demo --seconds 20 --rate 500 --seed 7
Exit codes: 0 both sites equal, 1 they differ or something failed, 130 interrupted."""
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=lambda: float(os.environ.get("DEMO_SECONDS", "60")),
    help="How long traffic runs; $DEMO_SECONDS, else 60.",
)
@click.option("--rate", default=200.0, show_default=True, help="Row changes a second.")
@click.option("--seed", type=int, help="Repeats a run; random without.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".ftstream/demo"),
    show_default=True,
    help="Where the stack lives meanwhile; removed at the end.",
)
def demo(seconds: float, rate: float, seed: int | None, folder: Path) -> None:
    """Local stack, connectors, worker, traffic, and a comparison of both sites at the end."""
    # SIGTERM cleans up like Ctrl-C, which a shell has switched off for what it runs in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    console = Console(highlight=False)
    try:
        equal = show(folder, seconds, rate, seed, console)
    except KeyboardInterrupt:
        console.print("interrupted: everything is stopped")
        sys.exit(130)
    sys.exit(0 if equal else 1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Stopping takes a few seconds, in which people press again: that must not leave half of it running.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    click.echo("\nstopping: a few seconds", err=True)
    raise KeyboardInterrupt
