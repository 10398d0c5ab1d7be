"""`ftstream connectors`: Kafka Connect's connectors, as flows.py wants them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import click
import psycopg
from rich.console import Console
from rich.table import Table as RichTable

from ftstream.capture import oversize
from ftstream.capture.connector_diff import SettingDifference, added_tables, differences
from ftstream.capture.connectors import PASSING, connector_config, snapshot_over
from ftstream.capture.heartbeat import SILENT_SECONDS, RecordCounts, last_heartbeat, written
from ftstream.capture.oversize import LargeRow, too_large
from ftstream.cli.errors import EXIT_CODES, CommandFailure, failure
from ftstream.cli.flows import FlowType, captures_for, connected_flows
from ftstream.cli.options import dry_run_option, json_option, yes_option
from ftstream.cli.setup_lines import setup_lines
from ftstream.compare.progress import slot_exists, watch
from ftstream.compare.repair import open_repairs
from ftstream.connect.client import ConnectClient, ConnectorStatus
from ftstream.connect.errors import ConnectError, ConnectUnreachable, PluginMissing, TaskFailed
from ftstream.flows import CaptureNames, Flow, Names, Site
from ftstream.kafka.errors import TopicMissing
from ftstream.kafka.topics import (
    TopicSpec,
    capture_topics,
    change_topics,
    ensure_topics,
    missing_topics,
)
from ftstream.postgres.connection import open_site
from ftstream.settings import MAX_REQUEST_BYTES, Settings, load_settings
from ftstream.setup.look import look_for_certain

POLL_SECONDS = 1.0

POSITION_LOST = "no longer available on the server"
"""What Debezium says of a position that its slot does not reach back to."""

_UNKNOWN_SILENCE = "a snapshot under way, or an error in Connect's log"

LARGEST_VALUES = MAX_REQUEST_BYTES - 64 * 2**10
"""Bytes of a row's values beside which a record has room for the names of its columns and its source."""

# Java's messages are full of square brackets, which would be taken for markup.
console = Console(markup=False, highlight=False)

flows_argument = click.argument(
    "flows",
    metavar="[FLOW]...",
    nargs=-1,
    type=FlowType(connected_flows, "no flow with a connector"),
)


@click.group(epilog=EXIT_CODES)
def connectors() -> None:
    """Create, compare, watch and delete the Debezium connectors.

    \b
    Examples:
      ftstream connectors diff           what differs from what is deployed
      ftstream connectors apply gfx      create or change it, wait until it runs
      ftstream connectors status --json  for scripts
      ftstream connectors delete gfx     slot and publication stay
    """


@connectors.command(epilog=EXIT_CODES)
@flows_argument
@dry_run_option
@click.option(
    "--pass-too-large",
    is_flag=True,
    help="Leave out rows that are too large for Kafka, where a task has failed of one; the worker reads"
    " them from External.",
)
def apply(flows: tuple[Flow, ...], dry_run: bool, pass_too_large: bool) -> None:
    """Create the connectors, or change them, and wait until they run (all flows, or FLOW).

    Also creates the topics that are missing, and restarts a task that has failed.

    \b
    Examples:
      ftstream connectors apply
      ftstream connectors apply gfx --dry-run
      ftstream connectors apply gfx --pass-too-large
    """
    settings = load_settings()
    asyncio.run(_apply_all(settings, captures_for(settings, flows), dry_run, pass_too_large))


@connectors.command(epilog=EXIT_CODES)
@flows_argument
@click.pass_context
def diff(context: click.Context, flows: tuple[Flow, ...]) -> None:
    """Compare what is deployed with what flows.py and the settings say; exit code 1 if it differs.

    \b
    Examples:
      ftstream connectors diff
      ftstream connectors diff gfx && echo as it should be
    """
    settings = load_settings()
    if asyncio.run(_diff_all(settings, captures_for(settings, flows))):
        context.exit(1)


@connectors.command(epilog=EXIT_CODES)
@flows_argument
@json_option
@click.pass_context
def status(context: click.Context, flows: tuple[Flow, ...], as_json: bool) -> None:
    """Show connectors, tasks and the last heartbeat; exit code 1 unless all of them run.

    A task that says RUNNING but sent no heartbeat for a minute does not count as running.

    \b
    Examples:
      ftstream connectors status
      ftstream connectors status --json | jq '.[].heartbeat_age_seconds'
    """
    settings = load_settings()
    reports = asyncio.run(_report_all(settings, captures_for(settings, flows)))
    if as_json:
        click.echo(json.dumps([report.as_json() for report in reports], indent=2))
    else:
        _show_reports(reports)
    if not all(report.healthy for report in reports):
        context.exit(1)


@connectors.command(epilog=EXIT_CODES)
@flows_argument
@click.option("--forget", is_flag=True, help="Its offsets too: the next apply reads all rows.")
@yes_option
@dry_run_option
def delete(flows: tuple[Flow, ...], forget: bool, yes: bool, dry_run: bool) -> None:
    """Delete connectors; slot, publication, topics and offsets stay (`ftstream remove` takes them).

    Until it is applied again the slot holds back External's log, whose disk fills up. After a slot
    was lost, --forget is the way to a new snapshot; it does not tell of rows deleted meanwhile.

    \b
    Examples:
      ftstream connectors delete gfx
      ftstream connectors delete gfx --dry-run
    """
    settings = load_settings()
    chosen = captures_for(settings, flows)
    for names in chosen:
        click.echo(_what_stays(names, forget))
    if dry_run:
        return
    if not yes:
        click.confirm("Delete?", abort=True)
    asyncio.run(_delete_all(settings, chosen, forget))


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of one connector."""

    flows: tuple[str, ...]
    connector: str
    status: ConnectorStatus | None
    heartbeat_age: float | None
    findings: tuple[str, ...] = ()
    """What Debezium's own check says of a connector that is silent; of a failed one, what holds it up."""

    @property
    def silent(self) -> bool:
        return self.heartbeat_age is None or self.heartbeat_age > SILENT_SECONDS

    @property
    def healthy(self) -> bool:
        return self.status is not None and self.status.running and not self.silent

    @property
    def problem(self) -> str:
        """What an operator should know, or an empty string."""
        if self.status is None:
            return "does not exist: `ftstream connectors apply`"
        if self.status.failed:
            return "; ".join(self.findings) or self.status.failed.cause
        if not self.status.running:
            return str(self.status)
        if self.silent:
            return "no heartbeat: " + ("; ".join(self.findings) or _UNKNOWN_SILENCE)
        return ""

    def as_json(self) -> dict[str, Any]:
        status = self.status
        return {
            "flows": list(self.flows),
            "connector": self.connector,
            "state": None if status is None else status.connector.state,
            "tasks": [
                {"id": part.task, "state": part.state, "worker": part.worker}
                for part in (() if status is None else status.tasks)
            ],
            "heartbeat_age_seconds": self.heartbeat_age,
            "healthy": self.healthy,
            "problem": self.problem,
        }


async def _apply_all(
    settings: Settings, captures: Sequence[CaptureNames], dry_run: bool, pass_too_large: bool
) -> None:
    async with ConnectClient(settings.connect) as client:
        console.print(f"Debezium {await client.debezium_version()}")
        failed: list[Exception] = []
        for names in captures:
            try:
                await _apply_one(client, settings, names, dry_run, pass_too_large)
            except (ConnectUnreachable, PluginMissing):
                raise  # no other connector would fare better
            except (CommandFailure, ConnectError) as error:
                failed.append(error)
    if failed:
        raise _all_of(failed)
    if not dry_run:
        console.print("Next: ftstream worker")


async def _apply_one(
    client: ConnectClient,
    settings: Settings,
    names: CaptureNames,
    dry_run: bool,
    pass_too_large: bool,
) -> None:
    status = await client.status(names.connector)
    met = _met_large_row(names, status)
    if not dry_run:
        await _require_slot(settings, names)
        if _position_lost(status):
            await _forget(client, names)
    if met and pass_too_large and not dry_run:
        await _pass_large_rows(client, settings, names)
    elif met and not await _differs(client, settings, names):
        # Restarted, it would run until it meets the row again.
        raise CommandFailure(await _large_rows_told(settings, names))
    else:
        await _apply(client, settings, names, dry_run)


async def _require_slot(settings: Settings, names: CaptureNames) -> None:
    """Without one Debezium would make it, from now on, and nobody knew of what was written before."""
    async with await open_site(settings, Site.EXTERNAL) as connection:
        if not await slot_exists(connection, names.slot):
            raise CommandFailure(
                f"External has no replication slot {names.slot}: run `ftstream init`, then this again"
            )


def _position_lost(status: ConnectorStatus | None) -> bool:
    """Say whether it knows a position that its slot, which was made again, does not reach back to."""
    failed = status.failed if status else None
    return failed is not None and POSITION_LOST in failed.trace


async def _forget(client: ConnectClient, names: CaptureNames) -> None:
    console.print("its position in the log is lost with the slot that it had: it begins anew")
    if not names.capture.outbox:
        console.print("all rows are read; those deleted meanwhile a worker finds by comparing")
    await client.forget_offsets(names.connector)
    await client.delete(names.connector)


def _all_of(failed: Sequence[Exception]) -> Exception:
    """One error that tells of several connectors."""
    if len(failed) == 1:
        return failed[0]
    told = [error if isinstance(error, CommandFailure) else failure(error) for error in failed]
    return CommandFailure("\n".join(each.message for each in told if each is not None))


async def _apply(
    client: ConnectClient, settings: Settings, names: CaptureNames, dry_run: bool
) -> None:
    wanted = connector_config(names, settings)
    deployed = await client.get_config(names.connector)
    found = differences(wanted, deployed)
    _show_differences(names.connector, found, new=deployed is None)
    if dry_run:
        _list("Topics to create", await missing_topics(settings, _topics(names, settings)))
        return
    await _check(client, names, wanted)
    _list("Topics created", await ensure_topics(settings, _topics(names, settings)))
    # Of an outbox there is nothing to read but the log.
    snapshot = not names.capture.outbox and (deployed is None or not snapshot_over(deployed))
    if snapshot:
        await _take_snapshot(client, settings, names, deployed)
        await client.put_config(names.connector, wanted)
    else:
        await _deploy(client, names, wanted, changed=bool(found))
    try:
        await client.wait_running(names.connector, settings.connect.task_timeout, console.print)
    except TaskFailed:
        # A position that is lost shows when the task starts.
        if not _position_lost(await client.status(names.connector)):
            raise
        await _forget(client, names)
        await _apply(client, settings, names, dry_run)
    else:
        _offer_backfill(added_tables(wanted, deployed))


def _topics(names: CaptureNames, settings: Settings) -> tuple[TopicSpec, ...]:
    changes = (
        spec
        for flow in names.capture.flows
        for spec in change_topics(Names(flow, settings.namespace), settings)
    )
    return (*changes, *capture_topics(names, settings))


async def _check(client: ConnectClient, names: CaptureNames, wanted: Mapping[str, str]) -> None:
    """Debezium checks the settings, and that it can log in."""
    if problems := await client.validate(names.connector, wanted):
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise CommandFailure(
            f"Debezium does not accept the configuration of {names.connector}:\n{listed}"
        )


async def _deploy(
    client: ConnectClient, names: CaptureNames, wanted: Mapping[str, str], *, changed: bool
) -> None:
    status = await client.status(names.connector)
    if status is not None and status.held:
        console.print(f"somebody has it {status.connector.state.lower()}: resuming it")
        await client.resume(names.connector)
    if changed:
        await client.put_config(names.connector, wanted)
        return
    if status is None or not status.failed:
        return
    if names.capture.outbox:
        # It may know a position that a slot which was recreated does not reach back to; the slot knows.
        console.print("recreating it: it goes on where its slot is")
        await client.forget_offsets(names.connector)
        await client.delete(names.connector)
        await client.put_config(names.connector, wanted)
    else:
        console.print("restarting what has failed")
        await client.restart(names.connector, only_failed=True)


def _met_large_row(names: CaptureNames, status: ConnectorStatus | None) -> bool:
    failed = status.failed if status else None
    # The trigger of an outbox refuses such a row.
    return failed is not None and oversize.CAUSE in failed.cause and not names.capture.outbox


async def _differs(client: ConnectClient, settings: Settings, names: CaptureNames) -> bool:
    deployed = await client.get_config(names.connector)
    wanted = connector_config(
        names, settings, first_snapshot=deployed is not None and not snapshot_over(deployed)
    )
    return bool(differences(wanted, deployed))


async def _pass_large_rows(client: ConnectClient, settings: Settings, names: CaptureNames) -> None:
    """Read on without what Kafka does not take; the flow's agent reads those rows from External."""
    rows = await _large_rows(settings, names)
    for row in rows:
        click.echo(f"left out: {row}")
    deployed = await client.get_config(names.connector)
    over = deployed is not None and snapshot_over(deployed)
    try:
        if over:
            await client.put_config(names.connector, connector_config(names, settings) | PASSING)
            await client.wait_running(names.connector, settings.connect.task_timeout, console.print)
            await _read_on(settings, names)
        else:
            await _take_snapshot(client, settings, names, deployed, PASSING)
            over = True
    finally:
        # By now rows may have been left out, however it ends.
        try:
            # Left passing, it would lose in silence whatever Kafka refuses; and in its final form, a snapshot
            # that is not over would count as over.
            wanted = connector_config(names, settings, first_snapshot=not over)
            await client.put_config(names.connector, wanted)
        finally:
            await _make_up(settings, names, rows)
    await client.wait_running(names.connector, settings.connect.task_timeout, console.print)


async def _make_up(settings: Settings, names: CaptureNames, rows: Sequence[LargeRow]) -> None:
    """Have the worker read these rows, which were left out; tell how to find others."""
    for flow in names.capture.flows:
        console.print(
            f"Whatever was left out is found by comparing: ftstream verify {flow.name} --repair"
        )
        await _request(settings, flow, rows)
        console.print(f"{len(rows)} rows are read from External by the worker")


async def _read_on(settings: Settings, names: CaptureNames) -> None:
    """Wait until all that is in the log by now is in Kafka."""
    for flow in names.capture.flows:
        async with watch(flow, settings) as progress:
            await progress.captured(settings.connect.task_timeout, console.print)


async def _request(settings: Settings, flow: Flow, rows: Sequence[LargeRow]) -> None:
    names = Names(flow, settings.namespace)
    async with open_repairs(settings.kafka, names, flow.targets[0]) as repairs:
        for row in rows:
            await repairs.request(flow.table(row.table), [row.id])


async def _large_rows(settings: Settings, names: CaptureNames) -> list[LargeRow]:
    """The rows on External that no record can hold."""
    rows = []
    async with await open_site(settings, Site.EXTERNAL) as connection:
        for table in names.capture.tables:
            click.echo(f"looking for rows too large in {table.name}", err=True)
            rows += await too_large(connection, table, LARGEST_VALUES)
    return rows


async def _large_rows_told(settings: Settings, names: CaptureNames) -> str:
    try:
        rows = await _large_rows(settings, names)
    except psycopg.Error as error:
        return f"a row is too large for Kafka; which one, External does not say: {error}"
    return oversize.told(rows, MAX_REQUEST_BYTES, names.capture.name)


async def _take_snapshot(
    client: ConnectClient,
    settings: Settings,
    names: CaptureNames,
    deployed: Mapping[str, str] | None,
    passing: Mapping[str, str] | None = None,
) -> None:
    """Start the connector as it must be for its first snapshot, and wait until it streams."""
    before = await written(settings.kafka, names)
    first = connector_config(names, settings, first_snapshot=True) | dict(passing or {})
    await _deploy(client, names, first, changed=bool(differences(first, deployed)))
    await client.wait_running(names.connector, settings.connect.task_timeout, console.print)
    console.print("first snapshot (interrupting this is safe: it goes on; then apply once more)")
    await _wait_streaming(client, settings, names, before)


async def _wait_streaming(
    client: ConnectClient, settings: Settings, names: CaptureNames, before: RecordCounts
) -> None:
    """Heartbeats come through the log, so the first one says that the snapshot is over."""
    seen, since = before, time.monotonic()
    while (now := await written(settings.kafka, names)).heartbeats == before.heartbeats:
        await client.check(names.connector)
        if now != seen:
            seen, since = now, time.monotonic()
            console.print(f"  {now.changes - before.changes:,} rows")
        elif time.monotonic() - since > SILENT_SECONDS:
            raise CommandFailure(_snapshot_stuck(settings))
        await asyncio.sleep(POLL_SECONDS)


def _snapshot_stuck(settings: Settings) -> str:
    # Debezium takes every SQL error for a passing one: the task stays RUNNING and tries for ever.
    return (
        f"the snapshot has sent nothing for {SILENT_SECONDS:.0f} s; if it fails it is tried again "
        "and again, and Connect's log has the reason. Most often "
        f"{settings.connect.capture_user} may not read a whole table: it needs SELECT, and "
        "BYPASSRLS or a policy where the table has row level security."
    )


async def _diff_all(settings: Settings, captures: Sequence[CaptureNames]) -> bool:
    differ = False
    found_faults = (await look_for_certain(settings)).of(
        [flow for names in captures for flow in names.capture.flows]
    )
    for line in setup_lines(found_faults):
        console.print(line, soft_wrap=True)
    async with ConnectClient(settings.connect) as client:
        for names in captures:
            deployed = await client.get_config(names.connector)
            found = differences(connector_config(names, settings), deployed)
            _show_differences(names.connector, found, new=deployed is None)
            differ = differ or bool(found)
    return differ or not found_faults.well


async def _report_all(settings: Settings, captures: Sequence[CaptureNames]) -> list[Report]:
    async with ConnectClient(settings.connect) as client:
        return [await _report(client, settings, names) for names in captures]


async def _report(client: ConnectClient, settings: Settings, names: CaptureNames) -> Report:
    status = await client.status(names.connector)
    beat, lacking = None, ""
    if status is not None:  # without a connector there may be no topic either
        try:
            beat = await last_heartbeat(settings.kafka, names)
        except TopicMissing as error:
            lacking = str(error)
    age = None if beat is None else max(0.0, (datetime.now(UTC) - beat).total_seconds())
    flows = tuple(flow.name for flow in names.capture.flows)
    report = Report(flows, names.connector, status, age)
    if lacking:
        return replace(report, findings=(lacking,))
    if status is not None and _met_large_row(names, status):
        return replace(report, findings=(await _large_rows_told(settings, names),))
    if status is not None and status.running and report.silent:
        return replace(report, findings=await _findings(client, names))
    return report


async def _findings(client: ConnectClient, names: CaptureNames) -> tuple[str, ...]:
    """Why a running connector is silent: it repeats what fails and keeps the reason to its log.

    Checking its configuration logs in to the database, and says what went wrong there.
    """
    deployed = await client.get_config(names.connector)
    return () if deployed is None else await client.validate(names.connector, deployed)


async def _delete_all(settings: Settings, captures: Sequence[CaptureNames], forget: bool) -> None:
    async with ConnectClient(settings.connect) as client:
        for name in (names.connector for names in captures):
            if forget:
                await client.forget_offsets(name)
            click.echo(f"{name}: {'deleted' if await client.delete(name) else 'was not there'}")


def _show_differences(connector: str, found: Sequence[SettingDifference], *, new: bool) -> None:
    if new:
        console.print(f"{connector} does not exist ({len(found)} settings)")
    elif not found:
        console.print(f"{connector} is as it should be")
    else:
        table = RichTable("setting", "", "deployed", "wanted", title=connector)
        for one in found:
            table.add_row(one.key, one.kind, one.deployed or "", one.wanted or "")
        console.print(table)


def _show_reports(reports: Sequence[Report]) -> None:
    table = RichTable("connector", "state", "tasks", "heartbeat")
    for report in reports:
        age = report.heartbeat_age
        status = report.status
        table.add_row(
            report.connector,
            "-" if status is None else status.connector.state,
            "-" if status is None else ", ".join(part.state for part in status.tasks) or "none",
            "-" if age is None else f"{age:.0f} s ago",
        )
    console.print(table)
    for report in reports:
        if report.problem:  # on a line of its own: a table would break what is to be copied
            click.echo(f"{report.connector}: {report.problem}")


def _list(title: str, names: Sequence[str]) -> None:
    if names:
        console.print(f"{title}: {', '.join(names)}")


def _offer_backfill(tables: Sequence[str]) -> None:
    if tables:
        names = " ".join(table.rpartition(".")[2] for table in tables)
        console.print(
            "New in an existing connector, so only changes from now on arrive. "
            f"For the rows there are:\n  ftstream backfill {names}"
        )


def _what_stays(names: CaptureNames, forget: bool) -> str:
    offsets = (
        "its offsets go too, so applying it again begins with a snapshot"
        if forget
        else "its offsets stay, so applying it again goes on where it was"
    )
    return (
        f"{names.connector}: to be deleted; {offsets}. Slot {names.slot}, publication "
        f"{names.publication} and the topics stay: `ftstream remove` takes them."
    )
