"""`ftstream explain`: what a code of the watcher means, and what to do."""

from __future__ import annotations

import dataclasses
import json

import click

from ftstream.cli.codes import complete_codes, known_code
from ftstream.cli.encoding import encoded
from ftstream.cli.options import json_option
from ftstream.watch.codes import CODES, explained


@click.command(
    epilog="""\b
Examples:
  ftstream explain FT110
  ftstream explain            every code, a line each
Exit codes: 0 told, 2 there is no such code."""
)
@click.argument("name", required=False, metavar="[CODE]", shell_complete=complete_codes)
@json_option
def explain(name: str | None, as_json: bool) -> None:
    """Tell what a code means that `ftstream watch` and `ftstream status` show."""
    chosen = [CODES[known_code(name)]] if name is not None else list(CODES.values())
    if as_json:
        shown = [dataclasses.asdict(code) for code in chosen]
        click.echo(json.dumps(shown, indent=2, default=encoded, ensure_ascii=False))
    elif name is None:
        for code in chosen:
            click.echo(f"{code.name}  {code.severity.value:<8}  {code.title} · {code.korean}")
    else:
        click.echo(explained(name))
