"""`ftstream alerts`: what the watcher has found and told; acknowledge, mute, and try the receivers."""

from __future__ import annotations

import asyncio
import dataclasses
import getpass
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import click

from ftstream.cli.codes import complete_codes, known_code
from ftstream.cli.encoding import encoded
from ftstream.cli.errors import FAILED, WRONG_USE, CommandFailure
from ftstream.cli.grid import grid, output
from ftstream.cli.nearest import Group
from ftstream.cli.options import json_option
from ftstream.cli.since import span
from ftstream.failures import Severity
from ftstream.settings import Settings, load_settings
from ftstream.watch.alerts import RANKS, Alert, Mute
from ftstream.watch.store import Links, Store
from ftstream.watch.words import code_title, test_message

T = TypeVar("T")


@click.group(cls=Group)
def alerts() -> None:
    """Show what `ftstream watch` has found, and say that somebody is at it."""


@alerts.command(
    "list",
    epilog="""\b
Examples:
  ftstream alerts list
  ftstream alerts list --days 7 --json
Exit codes: 0 nothing is open, 1 something is, 2 wrong use.""",
)
@click.option("--days", default=0, show_default=True, help="Also what was over in the last days.")
@json_option
@click.pass_context
def listed(context: click.Context, days: int, as_json: bool) -> None:
    """List alerts, the worst first."""
    settings = load_settings()
    found = asyncio.run(_read(settings, days * 86_400.0))
    if as_json:
        shown = [dataclasses.asdict(each) for each in found]
        click.echo(json.dumps(shown, indent=2, default=encoded, ensure_ascii=False))
    else:
        _show(found, settings)
    if any(each.closed_at is None for each in found):
        context.exit(FAILED)


@alerts.command(
    epilog="""\b
Examples:
  ftstream alerts ack FT110
  ftstream alerts ack FT131 "gfx to supabase"
Exit codes: 0 acknowledged, 1 there is no such alert, 2 wrong use."""
)
@click.argument("code", shell_complete=complete_codes)
@click.argument("subject", default="")
def ack(code: str, subject: str) -> None:
    """Say that somebody is at it: it is not told again, unless it gets worse."""
    done = asyncio.run(
        _with_store(lambda s: s.acknowledge(known_code(code), subject, getpass.getuser()))
    )
    if not done:
        raise CommandFailure(f"no alert {code} is open: see `ftstream alerts list`")
    click.echo(f"{done} acknowledged")


@alerts.command(
    epilog="""\b
Examples:
  ftstream alerts mute FT120 --for 2h       while a large import runs
  ftstream alerts mute all --for 30m
Exit codes: 0 muted, 1 no site answers, 2 wrong use."""
)
@click.argument("code", shell_complete=complete_codes)
@click.argument("subject", default="")
@click.option("--for", "long", required=True, metavar="DURATION", help="Such as 30m, 2h or 1d.")
def mute(code: str, subject: str, long: str) -> None:
    """Do not tell these for a while; `ftstream alerts list` shows them all the same."""
    lasts = span(long)
    if lasts is None:
        raise CommandFailure(f"{long!r} is no duration: give 30m, 2h or 1d", WRONG_USE)
    until = datetime.now(UTC) + lasts
    what = Mute("" if code == "all" else known_code(code), subject, until)
    if not asyncio.run(_with_store(lambda store: store.mute(what, getpass.getuser()))):
        raise CommandFailure("no site answers: nothing is muted")
    click.echo(f"muted until {until.astimezone():%Y-%m-%d %H:%M}")


@alerts.command(
    epilog="""\b
Examples:
  ftstream alerts unmute FT120
  ftstream alerts unmute all
Exit codes: 0 told again, 1 nothing was muted, 2 wrong use."""
)
@click.argument("code", shell_complete=complete_codes)
@click.argument("subject", default="")
def unmute(code: str, subject: str) -> None:
    """Tell these again."""
    name = "" if code == "all" else known_code(code)
    if not asyncio.run(_with_store(lambda store: store.unmute(name, subject))):
        raise CommandFailure("nothing of the kind is muted")
    click.echo("told again")


@alerts.command(
    epilog="""\b
Examples:
  ftstream alerts test
  ftstream alerts test duty-slack
Exit codes: 0 every receiver has taken it, 1 one has not, 2 there is none of the name."""
)
@click.argument("receiver", required=False)
def test(receiver: str | None) -> None:
    """Send each receiver of the settings a message that says that it is a test."""
    settings = load_settings()
    chosen = [r for r in settings.watch.receivers if receiver in (None, r.name)]
    if not chosen:
        raise CommandFailure("the settings have no such receiver: watch.receivers", WRONG_USE)
    outcomes = asyncio.run(_test(settings, [each.name for each in chosen]))
    for name, error in outcomes.items():
        click.echo(f"{name}: {error or 'taken'}", err=bool(error))
    if any(outcomes.values()):
        raise click.exceptions.Exit(FAILED)


async def _test(settings: Settings, names: Sequence[str]) -> dict[str, str]:
    from ftstream.watch.deliver import AlertMessage, BadReceiver, send, service_of

    title, body = test_message(settings.watch.language)
    outcomes: dict[str, str] = {}
    for receiver in settings.watch.receivers:
        if receiver.name in names:
            try:
                service = service_of(receiver)
            except BadReceiver as error:
                raise CommandFailure(str(error), WRONG_USE) from error
            outcomes[receiver.name] = await send(service, AlertMessage(Severity.INFO, title, body))
    return outcomes


async def _read(settings: Settings, seconds: float) -> list[Alert]:
    found = await _with_store(lambda s: s.alerts(seconds) if seconds else s.open_alerts())
    return sorted(
        found,
        key=lambda a: (a.closed_at is not None, -RANKS[a.severity], a.opened_at),
    )


async def _with_store(work: Callable[[Store], Awaitable[T]]) -> T:
    links = Links(load_settings())
    try:
        return await work(Store(links))
    finally:
        await links.close()


def _show(found: Sequence[Alert], settings: Settings) -> None:
    if not found:
        click.echo("nothing is open")
        return
    table = grid("code", "severity", "since", "what", "then", whole=("code",))
    for each in found:
        since = each.opened_at.astimezone().strftime("%m-%d %H:%M:%S")
        state = "over" if each.closed_at else each.acknowledged_by and f"({each.acknowledged_by})"
        what = f"{code_title(each.code, settings.watch.language)}: {each.what}"
        table.add_row(
            each.code, f"{each.severity.value} {state}".strip(), since, what, each.command
        )
    output().print(table)
