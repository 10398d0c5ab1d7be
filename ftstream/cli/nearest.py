"""A word that is mistyped is answered with the nearest that there is."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import click


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `: did you mean X?`, or nothing where no word is near."""
    found = get_close_matches(word, list(known), n=1)
    return f": did you mean {found[0]}?" if found else ""


class Group(click.Group):
    """A group of commands."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            nearest = did_you_mean(args[0], self.list_commands(ctx))
            ctx.fail(f"there is no command {args[0]!r}{nearest}")
        return super().resolve_command(ctx, args)
