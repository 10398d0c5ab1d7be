"""Codes of the watcher as arguments of commands."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from ftstream.cli.errors import WRONG_USE, CommandFailure
from ftstream.cli.flows import complete
from ftstream.cli.nearest import did_you_mean
from ftstream.watch.codes import CODES


def known_code(word: str) -> str:
    """Return the code as it is written. Raises CommandFailure if there is none."""
    if word.upper() not in CODES:
        nearest = did_you_mean(word.upper(), CODES) or ": see `ftstream explain`"
        raise CommandFailure(f"there is no code {word}{nearest}", WRONG_USE)
    return word.upper()


def complete_codes(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the codes that begin so."""
    return complete(incomplete.upper(), CODES)
