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
log_format_option = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: one object a line, with flow, partition and code where a line is about one.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document on standard output, for programs."
)
