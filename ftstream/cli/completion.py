"""`ftstream completion`: have the shell complete commands, flows, tables, codes and references."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import get_completion_class

from ftstream.cli.errors import CommandFailure

PLACES = {
    "bash": ".local/share/bash-completion/completions/ftstream",
    "zsh": ".zfunc/_ftstream",
    "fish": ".config/fish/completions/ftstream.fish",
}
"""Where each shell looks, below the home folder."""

AFTER = {
    "bash": "start a new shell (it needs the package bash-completion)",
    "zsh": "put `fpath+=~/.zfunc; autoload -Uz compinit; compinit` into ~/.zshrc, and start a new shell",
    "fish": "start a new shell",
}


@click.command(
    epilog="""\b
Examples:
  ftstream completion bash --install
  ftstream completion zsh > ~/.zfunc/_ftstream
Exit codes: 0 done, 1 the file cannot be written, 2 wrong use."""
)
@click.argument("shell", type=click.Choice([*PLACES]))
@click.option("--install", is_flag=True, help="Write it where the shell looks.")
@click.pass_context
def completion(context: click.Context, shell: str, install: bool) -> None:
    """Print the script that completes ftstream's words in this shell, or install it."""
    kind = get_completion_class(shell)
    assert kind is not None  # each of PLACES is one that click knows
    script = kind(context.find_root().command, {}, "ftstream", "_FTSTREAM_COMPLETE").source()
    if not install:
        click.echo(script)
        return
    place = Path.home() / PLACES[shell]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(script, encoding="utf-8")
    except OSError as error:
        raise CommandFailure(f"{place}: {error.strerror}") from error
    click.echo(f"written: {place}. Next: {AFTER[shell]}")
