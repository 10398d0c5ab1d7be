"""`ftstream worker`: apply what the connectors capture."""

from __future__ import annotations

import asyncio

import click
import uvloop

from ftstream.cli.options import log_format_option, log_level_option
from ftstream.logs import LogFormat
from ftstream.settings import load_settings


@click.command(
    epilog="""\b
Examples:
  ftstream worker
  ftstream worker --log-level debug
  ftstream worker --log-format json
Exit codes: 0 stopped by SIGTERM or SIGINT, 1 crashed or halted, 2 wrong settings."""
)
@log_level_option
@log_format_option
def worker(log_level: str, log_format: LogFormat) -> None:
    """Apply changes until stopped. Several workers share the partitions."""
    settings = load_settings()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    from ftstream.app import Process, Worker  # late: settings must be right before Kafka is met

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    process = Process(Worker(settings), loop=loop, loglevel=log_level, log_format=log_format)
    process.execute_from_commandline()
