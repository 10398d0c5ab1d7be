"""`ftstream dead`: changes that were parked, and what a person decides about them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

import click
import psycopg
from click.shell_completion import CompletionItem

from ftstream.apply import dead_letters
from ftstream.apply.dead_letters import Letter
from ftstream.cli.errors import CommandFailure
from ftstream.cli.flows import FlowType, complete
from ftstream.cli.grid import grid, output
from ftstream.cli.nearest import Group
from ftstream.cli.options import json_option, yes_option
from ftstream.flows import FLOWS, Flow, Site
from ftstream.postgres.connection import open_site
from ftstream.settings import SettingsError, load_settings

POLL_SECONDS = 0.2
SHOWN_BYTES = 4_000
COMPLETE_SECONDS = 2.0
"""For which a shell waits for references."""

FLOW = click.option("--flow", type=FlowType(), help="One flow.")
EVERY_DEAD = click.option("--all", "every", is_flag=True, help="All dead ones.")
EVERY = click.option("--all", "every", is_flag=True, help="All that `dead list` shows.")


@dataclasses.dataclass(frozen=True, slots=True)
class LetterReference:
    """A letter of one site: `supabase:17`."""

    site: Site
    id: int

    def __str__(self) -> str:
        return f"{self.site}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        site, _, number = text.partition(":")
        if site not in set(Site) or not number.isdecimal():
            raise ValueError(text)
        return cls(Site(site), int(number))


class ReferenceType(click.ParamType):
    """A reference as `dead list` prints it."""

    name = "ref"

    def convert(
        self,
        value: str | LetterReference,
        param: click.Parameter | None,
        context: click.Context | None,
    ) -> LetterReference:
        if isinstance(value, LetterReference):
            return value
        try:
            return LetterReference.parse(value)
        except ValueError:
            self.fail(f"{value!r} is no reference, such as supabase:17", param, context)

    def shell_complete(
        self, context: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Those that there are now, if the sites answer while somebody waits for a word."""
        try:
            found = asyncio.run(asyncio.wait_for(_references(), COMPLETE_SECONDS))
        except (SettingsError, psycopg.Error, TimeoutError):
            return []
        return complete(incomplete, found)


REFERENCES = click.argument("references", metavar="[REF]...", nargs=-1, type=ReferenceType())

Found = list[tuple[LetterReference, Letter]]


@click.group(cls=Group)
def dead() -> None:
    """Changes that could not be applied: parked ones are tried again, dead ones wait for you.

    \b
    Examples:
      ftstream dead list
      ftstream dead show supabase:17
      ftstream dead retry --all
      ftstream dead drop supabase:17
    """


@dead.command(name="list")
@FLOW
@click.option("--state", type=click.Choice(["dead", "parked"]), help="Only these; both without.")
@click.option("--limit", default=100, show_default=True, help="At most so many on a site.")
@json_option
def list_(flow: Flow | None, state: str | None, limit: int, as_json: bool) -> None:
    """List parked and dead changes, the oldest first."""
    found = asyncio.run(_find(flow=flow, state=state, limit=limit))
    if as_json:
        click.echo(json.dumps([_report(*each) for each in found], indent=2))
        return
    if not found:
        click.echo("nothing is parked or dead")
        return
    whole = ("ref", "state", "table")
    table = grid(*whole, "row", "since", "attempts", "error", whole=whole)
    for reference, letter in found:
        since = letter.parked_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        row = (str(reference), letter.state, letter.table_name, letter.entity_id, since)
        table.add_row(*row, str(letter.attempts), letter.error)
    output().print(table)


@dead.command()
@click.argument("reference", metavar="REF", type=ReferenceType())
@click.option("--raw", is_flag=True, help="The record's value only, byte for byte.")
@json_option
def show(reference: LetterReference, raw: bool, as_json: bool) -> None:
    """Show one: the error, the hint, where the record came from, and the record."""
    letter, key, message = asyncio.run(_show(reference))
    if raw:
        click.get_binary_stream("stdout").write(message)
    elif as_json:
        click.echo(json.dumps(_report(reference, letter) | _contents(key, message), indent=2))
    else:
        for name, value in _report(reference, letter).items():
            click.echo(f"{name.replace('_', ' '):<16} {'' if value is None else value}")
        for name, value in _contents(key, message).items():
            cut = len(value) > SHOWN_BYTES
            more = f"... ({letter.bytes:,} bytes; all: --raw)" if cut else ""
            click.echo(f"{name:<16} {value[:SHOWN_BYTES]}{more}")


@dead.command()
@REFERENCES
@EVERY
@FLOW
@click.option("--timeout", default=10.0, show_default=True, help="Seconds to wait for the outcome.")
def retry(
    references: tuple[LetterReference, ...], every: bool, flow: Flow | None, timeout: float
) -> None:
    """Have them tried again, and tell what came of it. A worker must be running.

    Exit codes: 0 all are applied, 1 some are not.
    """
    found = asyncio.run(_chosen(references, every, flow, state=None))
    left = asyncio.run(_retry(found, timeout))
    for reference, letter in left:
        click.echo(f"{reference} {letter.table_name} {letter.entity_id}: {letter.error}", err=True)
    if left:
        raise CommandFailure(f"{len(left)} are not applied; they are tried further")
    click.echo(f"{len(found)} are applied")


@dead.command()
@REFERENCES
@EVERY_DEAD
@FLOW
@yes_option
def drop(
    references: tuple[LetterReference, ...], every: bool, flow: Flow | None, yes: bool
) -> None:
    """Give them up for good; sync_log notes it. The row may then differ: see `ftstream verify`."""
    found = asyncio.run(_chosen(references, every, flow))
    for reference, letter in found:
        click.echo(f"{reference} {letter.table_name} {letter.entity_id}: {letter.error}")
    if found and not yes:
        click.confirm(f"Give these {len(found)} up?", abort=True)
    asyncio.run(_drop(found))
    click.echo(f"{len(found)} dropped")


async def _references() -> list[str]:
    return [str(reference) for reference, _ in await _find(limit=100)]


async def _find(
    *,
    flow: Flow | None = None,
    state: str | None = None,
    limit: int | None = None,
    references: Sequence[LetterReference] | None = None,
) -> Found:
    """On every site that is a target of a flow."""
    settings = load_settings()
    found: Found = []
    for site in dict.fromkeys(target for flow in FLOWS for target in flow.targets):
        ids = None if references is None else [r.id for r in references if r.site is site]
        async with await open_site(settings, site) as connection:
            letters = await dead_letters.letters(
                connection, flow=flow.name if flow else None, state=state, ids=ids, limit=limit
            )
            found += [(LetterReference(site, letter.id), letter) for letter in letters]
    return found


async def _chosen(
    references: Sequence[LetterReference],
    every: bool,
    flow: Flow | None,
    state: str | None = "dead",
) -> Found:
    """Return those that are named, or all in this state."""
    if bool(references) is every:
        raise click.UsageError("name some, as `ftstream dead list` has them, or --all")
    if every:
        return await _find(flow=flow, state=state)
    found = await _find(references=references)
    if missing := set(references) - {reference for reference, _ in found}:
        raise CommandFailure(
            f"there is no {', '.join(sorted(map(str, missing)))}; see: ftstream dead list"
        )
    return found


async def _show(reference: LetterReference) -> tuple[Letter, bytes | None, bytes]:
    ((_, letter),) = await _chosen([reference], False, None)
    async with await open_site(load_settings(), reference.site) as connection:
        return letter, *await dead_letters.record(connection, reference.id)


async def _retry(found: Found, timeout: float) -> Found:
    """Return those that are not applied when the time is up."""
    for site, ids in _by_site(found).items():
        async with await open_site(load_settings(), site) as connection:
            await dead_letters.retry(connection, ids)
    click.echo(f"{len(found)} are tried again")
    deadline = time.monotonic() + timeout
    names = [reference for reference, _ in found]
    left = found
    while left and time.monotonic() < deadline:
        await asyncio.sleep(POLL_SECONDS)
        left = await _find(references=names)
        if all(letter.state == "dead" for _, letter in left):
            break
    return left


async def _drop(found: Found) -> None:
    for site, ids in _by_site(found).items():
        async with await open_site(load_settings(), site) as connection:
            await dead_letters.drop(connection, ids)


def _by_site(found: Found) -> dict[Site, list[int]]:
    sites: dict[Site, list[int]] = {}
    for reference, _ in found:
        sites.setdefault(reference.site, []).append(reference.id)
    return sites


def _report(reference: LetterReference, letter: Letter) -> dict[str, Any]:
    fields = {field.name: getattr(letter, field.name) for field in dataclasses.fields(letter)[1:]}
    shown = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in fields.items()
    }
    return {"ref": str(reference)} | shown


def _contents(key: bytes | None, message: bytes) -> dict[str, str]:
    """As text; what is none shows as escapes."""
    return {
        "key": "" if key is None else key.decode(errors="backslashreplace"),
        "value": message.decode(errors="backslashreplace"),
    }
