"""`ftstream worker`: apply what the connectors capture."""

from __future__ import annotations

import asyncio

import click
import uvloop

from ftstream.cli.options import log_level_option
from ftstream.settings import load_settings


@click.command(
    epilog="""\b
Examples:
  ftstream worker
  ftstream worker --log-level debug
Exit codes: 0 stopped by SIGTERM or SIGINT, 1 crashed or halted, 2 wrong settings."""
)
@log_level_option
def worker(log_level: str) -> None:
    """Apply changes until stopped. Several workers share the partitions."""
    settings = load_settings()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    from ftstream.app import Process, Worker  # late: settings must be right before Kafka is met

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    Process(Worker(settings), loop=loop, loglevel=log_level).execute_from_commandline()
