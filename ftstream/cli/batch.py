"""`ftstream batch`: runs of the flows captured by batch."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from ftstream.capture import batch as runs
from ftstream.capture.batch.schedule import Schedule, TableStatus
from ftstream.capture.batch.table_run import TableRun
from ftstream.cli.encoding import encoded
from ftstream.cli.errors import FAILED
from ftstream.cli.grid import grid, output
from ftstream.cli.nearest import Group
from ftstream.cli.options import dry_run_option, json_option
from ftstream.compare.comparison import DifferenceKind
from ftstream.flows import FLOWS, Capture, Flow, Site, Table
from ftstream.postgres.connection import open_site
from ftstream.settings import Settings, load_settings

LINE_SECONDS = 5.0
"""Between lines of progress, where there is no terminal."""


def _flows() -> tuple[Flow, ...]:
    return tuple(flow for flow in FLOWS if flow.capture is Capture.BATCH)


def _tables() -> dict[str, tuple[Flow, Table]]:
    return {table.name: (flow, table) for flow in _flows() for table in flow.tables}


@click.group(cls=Group)
def batch() -> None:
    """Run the tables that go to Supabase in batches, and see how they stand.

    \b
    Examples:
      ftstream batch status
      ftstream batch run --dry-run
      ftstream batch run wsop_players
    """


@batch.command(
    epilog="""\b
Examples:
  ftstream batch run
  ftstream batch run wsop_chip_counts --dry-run
  ftstream batch run wsop_players --allow-deletes
Exit codes: 0 Kafka has all that differed (with --dry-run: a run would go through), 1 it failed, or needs
a decision, 2 wrong use or settings, 3 Kafka does not answer."""
)
@click.argument("tables", nargs=-1, type=click.Choice([*_tables()]), metavar="[TABLE]...")
@dry_run_option
@click.option(
    "--allow-deletes",
    is_flag=True,
    help="Delete on Supabase however many rows External does not have, and go on with an External that"
    " has failed over or was restored.",
)
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    help="Seconds to wait for a run that is under way.",
)
@json_option
def run(
    tables: tuple[str, ...], dry_run: bool, allow_deletes: bool, timeout: float, as_json: bool
) -> None:
    """Publish now what differs between External and Supabase, without waiting for the next run.

    External wins: rows that Supabase lacks or has otherwise are carried, those that External does not have
    are deleted. The workers apply what is published; what was published before is waited for first.
    """
    settings = load_settings()
    settings.require_databases()
    told = Told(dry_run)
    with _progress() as say:
        for flow in _flows():
            chosen = [table for table in flow.tables if not tables or table.name in tables]
            if not chosen:
                continue
            try:
                if dry_run:
                    looked = runs.look(flow, settings, chosen, say, allow_deletes=allow_deletes)
                    found = asyncio.run(looked)
                    told.results += found
                    told.problems += [each.problem for each in found if each.problem]
                else:
                    done = runs.run(
                        flow,
                        settings,
                        chosen,
                        allow_deletes=allow_deletes,
                        patience=timeout,
                        say=say,
                    )
                    told.results += asyncio.run(done)
            except runs.RunStopped as error:
                told.results += error.results
                told.problems.append(str(error))
    if as_json:
        click.echo(json.dumps(told.document, indent=2))
    else:
        told.show()
    sys.exit(FAILED if told.problems else 0)


@batch.command(
    epilog="""\b
Examples:
  ftstream batch status
  ftstream batch status --json
Exit codes: 0 the last run of each table was done, and in time, 1 one failed, is overdue, or has never been,
2 wrong settings."""
)
@json_option
def status(as_json: bool) -> None:
    """Show when each table went over last, how its last run ended, and when it runs next."""
    settings = load_settings()
    settings.require_databases()
    found = asyncio.run(_status(settings))
    if as_json:
        click.echo(json.dumps(found, indent=2, default=encoded))
    else:
        _show_status(found)
    healthy = found and all(
        each["health_status"] == "HEALTHY" and each["last_synced_at"] for each in found
    )
    sys.exit(0 if healthy else FAILED)


async def _status(settings: Settings) -> list[dict[str, Any]]:
    async with await open_site(settings, Site.SUPABASE) as connection:
        found: list[dict[str, Any]] = []
        for flow in _flows():
            rows: list[TableStatus] = await Schedule(flow, settings.namespace, connection).status()
            order = [flow.entity_type(table) for table in flow.tables]
            rows.sort(key=lambda row: order.index(row.entity_type))
            found += [{"source": flow.name} | dataclasses.asdict(row) for row in rows]
    return found


@dataclass
class Told:
    """What came of runs, or would."""

    dry_run: bool
    results: list[TableRun] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def document(self) -> dict[str, Any]:
        return {
            "dry_run": self.dry_run,
            "problems": self.problems,
            "tables": [
                {
                    "table": result.table,
                    "missing": result.kinds[DifferenceKind.MISSING],
                    "different": result.kinds[DifferenceKind.DIFFERENT],
                    "extra": result.kinds[DifferenceKind.EXTRA],
                    **result.details,
                    "uncarried": list(result.uncarried),
                }
                for result in self.results
            ],
        }

    def show(self) -> None:
        """As a table, with remarks; problems on standard error."""
        out = output()
        ends = [] if self.dry_run else ["published"]
        columns = ("table", "rows", "new", "changed", "gone", *ends, "seconds")
        table = grid(*columns, whole=["table"])
        for result in self.results:
            counts = [
                result.kinds[k]
                for k in (DifferenceKind.MISSING, DifferenceKind.DIFFERENT, DifferenceKind.EXTRA)
            ]
            numbers = [result.rows, *counts, *([] if self.dry_run else [result.published])]
            table.add_row(result.table, *(f"{n:,}" for n in numbers), f"{result.seconds:.1f}")
        out.print(table)
        for line in (line for result in self.results for line in _remarks(result)):
            out.print(line, soft_wrap=True)
        if self.dry_run:
            out.print("dry run: nothing was published; what is on its way counts as missing")
        elif any(result.published for result in self.results):
            out.print("Next: `ftstream wait` returns once the workers have applied it")
        for problem in self.problems:
            would = "a run would halt over this: " if self.dry_run else "Error: "
            click.echo(f"{would}{problem}", err=True)


def _remarks(result: TableRun) -> Iterator[str]:
    if result.undone:
        yield f"{result.table}: {result.undone} rows were edited on Supabase: undone, and kept in sync_log"
    if result.waiting:
        yield f"{result.table}: {result.waiting} rows wait on Supabase: ftstream dead list"
    if result.referred:
        yield (
            f"{result.table}: {result.referred} deletes wait: rows refer to them on Supabase whose own wait,"
            " or that are of no table of this run (ftstream batch run has all)"
        )
    if result.returned:
        yield f"{result.table}: {result.returned} rows were gone and have come again: left to the next run"
    if result.uncarried:
        columns = ", ".join(result.uncarried)
        yield f"{result.table}: not carried: {columns}; to carry them: ftstream schemas accept"


def _show_status(found: Sequence[dict[str, Any]]) -> None:
    out = output()
    columns = ("table", "status", "health", "last success", "next", "synced", "failures")
    table = grid(*columns, "last run", whole=["table", "health"])
    for each in found:
        last = each["details"] or {}
        told = ", ".join(f"{last[k]} {k}" for k in ("found", "published", "deleted") if k in last)
        table.add_row(
            each["entity_type"],
            each["status"],
            each["health_status"],
            _moment(each["last_synced_at"]),
            _moment(each["next_sync_at"]) if each["next_sync_at"] else "at once",
            f"{each['records_synced']:,}",
            str(each["consecutive_failures"]),
            told,
        )
    out.print(table)
    for error in dict.fromkeys(each["last_error"] for each in found if each["last_error"]):
        out.print(error, soft_wrap=True)


def _moment(at: datetime | None) -> str:
    return at.astimezone().strftime("%m-%d %H:%M:%S") if at else "never"


@contextmanager
def _progress() -> Iterator[runs.Say]:
    """A bar on a terminal; else a line now and then, on standard error."""
    err = Console(stderr=True, highlight=False)
    if not err.is_terminal:
        yield _lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    rate = TextColumn("{task.fields[rate]}")
    with Progress(*columns, rate, TimeRemainingColumn(), console=err, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def say(step: runs.RunStep) -> None:
            if step.table not in tasks:
                tasks[step.table] = bar.add_task(step.table, total=None, rate="comparing")
            task = tasks[step.table]
            if step.total is not None:
                speed = bar.tasks[bar.task_ids.index(task)].finished_speed or 0
                current = bar.tasks[bar.task_ids.index(task)].speed or speed
                bar.update(
                    task, completed=step.done, total=step.total, rate=f"{current:,.0f} rows/s"
                )

        yield say


def _lines() -> runs.Say:
    began: dict[str, float] = {}
    told: dict[str, float] = {}

    def say(step: runs.RunStep) -> None:
        now = time.monotonic()
        if step.total is None:
            click.echo(f"{step.table}: comparing", err=True)
            return
        since = now - began.setdefault(step.table, now)
        if not step.total or (
            step.done < step.total and now - told.get(step.table, 0) < LINE_SECONDS
        ):
            return
        told[step.table] = now
        rate = step.done / since if since else 0.0
        left = f", {(step.total - step.done) / rate:.0f} s left" if rate else ""
        click.echo(
            f"{step.table}: {step.done:,} of {step.total:,} published, {rate:,.0f} rows/s{left}",
            err=True,
        )

    return say
