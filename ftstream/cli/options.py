"""Options that several commands have."""

from __future__ import annotations

import click

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Show what would be done; change nothing."
)
log_level_option = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document on standard output, for programs."
)
