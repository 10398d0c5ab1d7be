"""`ftstream watch`: see, tell and heal, beside the workers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.config
import signal

import click

from ftstream.cli.errors import WRONG_USE, CommandFailure
from ftstream.cli.options import log_format_option, log_level_option
from ftstream.logs import LogFormat, logging_config
from ftstream.settings import Settings, load_settings, unprotected

log = logging.getLogger(__name__)


@click.command(
    epilog="""\b
Examples:
  ftstream watch
  ftstream alerts test        whether the receivers of the settings take what is sent
Exit codes: 0 stopped by SIGTERM or SIGINT, 1 crashed, 2 wrong use or settings."""
)
@log_level_option
@log_format_option
def watch(log_level: str, log_format: LogFormat) -> None:
    """Watch flows, services and set-up until stopped; tell receivers of what is wrong, and heal.

    Needs neither workers nor both databases to be up. Of several watchers one is active, the others stand by.
    """
    settings = load_settings().for_watcher()
    settings.require_databases()
    logging.config.dictConfig(logging_config(log_level, log_format))
    for each in unprotected(settings):
        log.warning("%s", each)
    asyncio.run(_watch(settings))


async def _watch(settings: Settings) -> None:
    try:
        from ftstream.watch.deliver import BadReceiver
        from ftstream.watch.watcher import Watcher  # late: Apprise takes its time
    except ModuleNotFoundError as error:
        raise CommandFailure(
            f"{error.name} is not installed: pip install 'ftstream[alerts]'"
        ) from error
    try:
        watcher = Watcher(settings)
    except BadReceiver as error:
        raise CommandFailure(str(error), WRONG_USE) from error
    running = asyncio.create_task(watcher.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running
