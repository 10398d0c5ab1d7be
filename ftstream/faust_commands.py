"""Faust's own commands, where what they say or do would not be true of this app.

`faust -A ftstream.app worker | agents | tables`; a class takes the place of the command of its name.
"""

from __future__ import annotations

from typing import Any

from faust.cli import tables as faust_tables
from faust.cli import worker as faust_worker

UNUSED = frozenset({"datadir", "appdir", "  web"})
"""Lines of the banner about what the worker has not: a folder on disk, a web server."""


class tables(faust_tables.tables):  # type: ignore[misc]  # Faust is not typed
    """List available tables."""

    async def run(self) -> None:
        """Show the agents' Tables, which are none of `app.tables` (last_write/table.py says why)."""
        held = [agent.table for agent in self.app.change_agents if agent.table is not None]
        rows = [(table.name, table.help) for table in held]
        self.say(self.tabulate(rows, title=self.title, headers=["name", "help"]))


class worker(faust_worker.worker):  # type: ignore[misc]  # Faust is not typed
    """Start worker instance for the app."""

    def _init_worker_options(self, *args: Any, **options: Any) -> None:
        # By default Faust's command switches the web server on, which has no login.
        super()._init_worker_options(*args, **{**options, "with_web": False})

    def _banner_data(self, worker: Any) -> list[tuple[str, str]]:
        return [line for line in super()._banner_data(worker) if line[0] not in UNUSED]
