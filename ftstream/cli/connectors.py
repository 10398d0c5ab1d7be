"""`ftstream connectors`: Kafka Connect's connectors, as flows.py wants them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import click

from ftstream.capture.connector_diff import differences
from ftstream.capture.connectors import connector_config
from ftstream.capture.heartbeat import SILENT_SECONDS, last_heartbeat
from ftstream.cli.connectors_apply import (
    apply_all,
    console,
    large_rows_told,
    met_large_row,
    show_differences,
)
from ftstream.cli.errors import EXIT_CODES, FAILED, UNREACHABLE
from ftstream.cli.flows import FlowType, captures_for, connected_flows
from ftstream.cli.grid import grid
from ftstream.cli.nearest import Group
from ftstream.cli.options import dry_run_option, json_option, yes_option
from ftstream.cli.setup_lines import setup_lines
from ftstream.connect.client import ConnectClient, ConnectorStatus
from ftstream.flows import CaptureNames, Flow
from ftstream.kafka.errors import TopicMissing
from ftstream.settings import Settings, load_settings
from ftstream.setup.look import look_for_certain
from ftstream.setup.site_look import note_slot_lost

_UNKNOWN_SILENCE = "a snapshot under way, or an error in Connect's log"

flows_argument = click.argument(
    "flows",
    metavar="[FLOW]...",
    nargs=-1,
    type=FlowType(connected_flows, "no flow with a connector"),
)


@click.group(cls=Group, epilog=EXIT_CODES)
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
    asyncio.run(apply_all(settings, captures_for(settings, flows), dry_run, pass_too_large))


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
    if code := asyncio.run(_diff_all(settings, captures_for(settings, flows))):
        context.exit(code)


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
    was lost, --forget is the way to a new snapshot; a worker finds rows deleted meanwhile by comparing.

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


async def _diff_all(settings: Settings, captures: Sequence[CaptureNames]) -> int:
    """Show what differs, and return the exit code."""
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
            show_differences(names.connector, found, new=deployed is None)
            differ = differ or bool(found)
    if found_faults.silent:
        return UNREACHABLE
    return FAILED if differ or not found_faults.well else 0


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
    if status is not None and met_large_row(names, status):
        return replace(report, findings=(await large_rows_told(settings, names),))
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
        for names in captures:
            name = names.connector
            if forget:
                await note_slot_lost(settings, names.capture)
                await client.forget_offsets(name)
            click.echo(f"{name}: {'deleted' if await client.delete(name) else 'was not there'}")


def _show_reports(reports: Sequence[Report]) -> None:
    table = grid("connector", "state", "tasks", "heartbeat", whole=["connector"])
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
