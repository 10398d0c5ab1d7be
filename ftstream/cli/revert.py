"""`ftstream revert`: take edits back, or bring one back that lost a conflict."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import click
from rich.console import Console

from ftstream.cli.errors import FAILED
from ftstream.cli.flows import TableType
from ftstream.cli.grid import grid, output
from ftstream.cli.options import dry_run_option, json_option, yes_option
from ftstream.cli.since import SinceType
from ftstream.flows import Capture, Flow, Site, Table
from ftstream.recover.history import moment
from ftstream.recover.reversal import Action, Intent, Left, Result, ReversalPlan, Written
from ftstream.recover.revert import OneWrite, Since, Target, carry_out, plan
from ftstream.recover.rewrite import TriggersOff
from ftstream.settings import Settings, load_settings

SHOWN = 60
"""Characters of a value; --json has all of it."""


class WriteType(click.ParamType):
    """A version as `history` shows it, with the site that wrote it in front if both wrote it."""

    name = "version"

    def convert(
        self,
        value: str | tuple[int, Site | None],
        param: click.Parameter | None,
        context: click.Context | None,
    ) -> tuple[int, Site | None]:
        if isinstance(value, tuple):
            return value
        site, _, number = value.rpartition(":")
        if site not in {"", *Site} or not number.isdecimal():
            self.fail(f"{value!r} is no version, such as ftstream history shows", param, context)
        return int(number), Site(site) if site else None


def _default_author() -> str:
    try:
        return f"{getpass.getuser()} (revert)"
    except (KeyError, OSError):
        raise click.UsageError("this user has no name: give --author") from None


@click.command(
    epilog="""\b
Examples:
  ftstream revert cue_sheets --since 10m --dry-run
  ftstream revert cue_sheets --since 2026-11-24T10:00 --by kim@example.com
  ftstream revert player_overrides --id 6f1c8a5e-... --since 1h
  ftstream revert player_overrides --id 6f1c8a5e-... --version 1795514400123456
Exit codes: 0 done, or nothing to do; 1 some rows could not be reverted, or a database does not answer,
2 wrong use."""
)
@click.argument("table", metavar="TABLE", type=TableType())
@click.option("--id", "ids", metavar="ID", multiple=True, help="These rows; all changed without.")
@click.option("--since", type=SinceType(), help="As they were before: an ISO time, or 10m, 2h, 1d.")
@click.option(
    "--by",
    "user",
    metavar="USER",
    help="Only what this author has written last; of a login, whomever it named.",
)
@click.option("--version", "write", type=WriteType(), help="With one --id: this write of it.")
@click.option(
    "--site", type=click.Choice([*map(str, Site)]), help="Where to write.  [default: supabase]"
)
@click.option("--author", default=_default_author, help="Of the edit.  [default: you (revert)]")
@click.option("--admin", is_flag=True, help="Write as the tables' owner (admin_dsn).")
@dry_run_option
@yes_option
@json_option
@click.pass_context
def revert(
    context: click.Context,
    table: tuple[Flow, Table],
    ids: tuple[str, ...],
    since: datetime | None,
    user: str | None,
    write: tuple[int, Site | None] | None,
    site: str | None,
    author: str,
    admin: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Write rows as they were before a time, as new edits that the other site gets like any other.

    What rows were is read from both sites' logs. Shows first what would change, then asks. A row that
    somebody edits meanwhile is left alone. The whole row goes back, what triggers had derived in it too;
    updated_at becomes now where a trigger sets it, and an inserted row keeps the old one. Deleting a row
    does to those that refer to it what their foreign keys say.
    """
    target, wish = (
        _target(table, Site(site) if site else None, admin),
        _wish(ids, since, user, write),
    )
    settings = load_settings()
    settings.require_databases()
    may_be_admin = bool(settings.database(target.site).admin_dsn.get_secret_value())
    if admin and not may_be_admin:
        raise click.UsageError(f"--admin: no admin_dsn is set for {target.site}")
    try:
        found = asyncio.run(plan(settings, target, wish))
    except TriggersOff as error:
        if not may_be_admin:
            raise click.UsageError(f"{error}, for which {target.site}.admin_dsn is set") from None
        click.echo(
            f"as the administrator of {target.site}: the worker's role has no triggers", err=True
        )
        target = replace(target, admin=True)
        found = asyncio.run(plan(settings, target, wish))
    if not as_json or not (dry_run or yes):
        _show(found, target, output(stderr=as_json))
    results: list[Result] = []
    if found.writes and not dry_run:
        if not yes:
            click.confirm(_question(found, target, author), abort=True, err=as_json)
        results = _write(settings, target, found.writes, author, as_json)
    elif dry_run and not as_json:
        click.echo("dry run: nothing was changed")
    if as_json:
        click.echo(json.dumps(_document(found, target, author, results), indent=2))
    if found.impossible or any(isinstance(result, Left) for result in results):
        context.exit(FAILED)


def _target(table: tuple[Flow, Table], site: Site | None, admin: bool) -> Target:
    """Say where to write. Raises UsageError where nothing can be."""
    flow, chosen = table
    if flow.capture is not Capture.OUTBOX:
        owner = (flow.owner or flow.sources[0]).value.capitalize()
        raise click.UsageError(
            f"{chosen.name} belongs to flow {flow.name}: edit it on {owner}, which the other site follows;"
            " what its rows were is not logged"
        )
    if site is not None and flow.owner not in (None, site):
        raise click.UsageError(f"{chosen.name} can be written on {flow.owner} only")
    return Target(flow, chosen, site or flow.owner or Site.SUPABASE, admin)


def _wish(
    ids: tuple[str, ...],
    since: datetime | None,
    user: str | None,
    write: tuple[int, Site | None] | None,
) -> Since | OneWrite:
    match since, write:
        case datetime(), None:
            return Since(since, ids, user)
        case None, (version, site):
            if len(ids) != 1 or user is not None:
                raise click.UsageError("--version takes one --id, and no --by")
            return OneWrite(ids[0], version, site)
        case _:
            raise click.UsageError("give --since, or --version with --id")


def _write(
    settings: Settings, target: Target, intents: Sequence[Intent], author: str, as_json: bool
) -> list[Result]:
    """Tells of each row as soon as it is written, or not."""

    def say(result: Result) -> None:
        match result:
            case Written(intent):
                click.echo(f"{intent.entity_id}: {intent.action}", err=as_json)
            case Left(intent, reason):
                click.echo(f"{intent.entity_id}: not {intent.action}: {reason}", err=True)

    results = asyncio.run(carry_out(settings, target, intents, author, say))
    done = sum(isinstance(result, Written) for result in results)
    click.echo(f"{done} of {len(intents)} rows written on {target.site}", err=as_json)
    return results


def _show(found: ReversalPlan, target: Target, console: Console) -> None:
    title = f"{target.table.name} on {target.site}"
    table = grid("row", "", "what", whole=["row"], title=title)
    for intent in found.writes:
        table.add_row(intent.entity_id, intent.action, _what(intent))
    for each in found.impossible:
        table.add_row(each.entity_id, "cannot", each.reason)
    if table.rows:
        console.print(table)
    so = [intent.entity_id for intent in found.intents if intent.action is Action.NOTHING]
    for ids, what in ((so, "unchanged"), (found.untouched, "nothing has happened to it since")):
        for entity_id in ids:
            console.print(f"{entity_id}: {what}")
    for site, at in found.reaches.items():
        console.print(f"the log of {site} reaches back to {moment(at):%Y-%m-%d %H:%M} UTC")
    if not found.writes:
        console.print("nothing to write")


def _what(intent: Intent) -> str:
    """Column by column; an inserted or deleted row without the columns that are empty."""
    lines = []
    for name, (now, then) in intent.columns.items():
        match intent.action:
            case Action.UPDATE:
                lines.append(f"{name}: {_short(now)} -> {_short(then)}")
            case _ if (value := now if then is None else then) is not None:
                lines.append(f"{name}: {_short(value)}")
    return "\n".join(lines)


def _short(value: str | None) -> str:
    text = "-" if value is None else value
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _question(found: ReversalPlan, target: Target, author: str) -> str:
    counts = Counter(intent.action for intent in found.writes)
    parts = ", ".join(f"{number} {action}" for action, number in sorted(counts.items()))
    return f"Write {target.table.name} on {target.site} as {author}: {parts}?"


def _document(
    found: ReversalPlan, target: Target, author: str, results: Sequence[Result]
) -> Mapping[str, Any]:
    became = {result.intent.entity_id: result for result in results}
    rows = [_row(intent, became.get(intent.entity_id)) for intent in found.intents]
    rows += [{"id": each.entity_id, "reason": each.reason} for each in found.impossible]
    head = {"table": target.table.name, "site": target.site.value, "author": author}
    reaches = {site: moment(at).isoformat() for site, at in found.reaches.items()}
    return head | {"rows": rows, "untouched": list(found.untouched), "logs_reach_back_to": reaches}


def _row(intent: Intent, result: Result | None) -> dict[str, Any]:
    columns = {name: {"now": now, "then": then} for name, (now, then) in intent.columns.items()}
    row = {"id": intent.entity_id, "action": intent.action.value, "columns": columns}
    match result:
        case None:
            return row | {"written": False}
        case Written():
            return row | {"written": True}
        case Left(_, reason):
            return row | {"written": False, "reason": reason}
