"""The command line: one small file per verb."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from ftstream import __version__
from ftstream.cli.nearest import Group
from ftstream.settings import CONFIG_VARIABLE

_VERBS = {
    "accept-loss": "ftstream.cli.accept_loss:accept_loss",
    "alerts": "ftstream.cli.alerts:alerts",
    "backfill": "ftstream.cli.backfill:backfill",
    "batch": "ftstream.cli.batch:batch",
    "bench": "ftstream.cli.bench:bench",
    "completion": "ftstream.cli.completion:completion",
    "connectors": "ftstream.cli.connectors:connectors",
    "dead": "ftstream.cli.dead:dead",
    "demo": "ftstream.cli.demo:demo",
    "dev": "ftstream.cli.dev:dev",
    "explain": "ftstream.cli.explain:explain",
    "history": "ftstream.cli.history:history",
    "impact": "ftstream.cli.impact:command",
    "init": "ftstream.cli.init:init",
    "notifications": "ftstream.cli.notifications:notifications",
    "reconcile": "ftstream.cli.reconcile:reconcile",
    "remove": "ftstream.cli.remove:remove",
    "restored": "ftstream.cli.restored:restored",
    "revert": "ftstream.cli.revert:revert",
    "schemas": "ftstream.cli.schemas:schemas",
    "status": "ftstream.cli.status:status",
    "verify": "ftstream.cli.verify:command",
    "wait": "ftstream.cli.wait:wait",
    "watch": "ftstream.cli.watch:watch",
    "worker": "ftstream.cli.worker:worker",
}


class _Verbs(Group):
    """Imports a verb when it is used, so that `--help` and quick commands stay quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, attribute = _VERBS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        # Where nothing sets logging up: what Kafka's client tells again and again, our message says once.
        logging.getLogger("aiokafka").addHandler(logging.NullHandler())
        try:
            return super().invoke(ctx)
        except click.ClickException:
            raise
        except Exception as error:
            from ftstream.cli.errors import failure

            known = failure(error)
            if known is None:
                raise
            raise known from error


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ftstream")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Settings file; else $FTSTREAM_CONFIG, else ftstream.toml. FTSTREAM_* variables win over it.",
)
def main(config: Path | None) -> None:
    """Keep External and Supabase in step through Kafka.

    \b
    First steps on this machine:
      ftstream dev up --demo-schema
      ftstream --config .ftstream/dev/ftstream.toml init
      ftstream --config .ftstream/dev/ftstream.toml connectors apply
      ftstream --config .ftstream/dev/ftstream.toml worker
    """
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)
