"""`ftstream backfill`: reads tables of a log-captured flow again, while changes go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import click

from ftstream.capture.signals import (
    Notifications,
    Signal,
    SnapshotStep,
    incremental_snapshot,
    open_notifications,
    send,
)
from ftstream.cli.errors import EXIT_CODES, CommandFailure
from ftstream.cli.flows import complete_tables, log_flows
from ftstream.cli.options import dry_run_option
from ftstream.connect.client import ConnectClient
from ftstream.flows import CaptureNames, Flow, Table, log_captures
from ftstream.settings import Settings, load_settings

PATIENCE_SECONDS = 120.0
"""How long the connector may say nothing: it works on a chunk at each heartbeat (10 s) at least."""

PROGRESS_SECONDS = 2.0


@click.command(epilog=EXIT_CODES)
@click.argument(
    "tables",
    metavar="TABLE...",
    nargs=-1,
    required=True,
    shell_complete=complete_tables(log_flows),
)
@dry_run_option
@click.option("--wait/--no-wait", default=True, help="Wait for the end (the default) or not.")
def backfill(tables: tuple[str, ...], dry_run: bool, wait: bool) -> None:
    """Send every row of TABLE through Kafka again, as Debezium's incremental snapshot.

    For a table added to an existing connector, or for a target that lost rows. Changes made
    meanwhile win over what is read. Rows deleted at the source are not noticed.

    \b
    Examples:
      ftstream backfill gfx_hands
      ftstream backfill gfx_hands gfx_players --no-wait
    """
    flow, chosen = _flow_of(tables)
    settings = load_settings()
    (capture,) = log_captures([flow])
    names = CaptureNames(capture, settings.namespace)
    signal = incremental_snapshot(chosen)
    if dry_run:
        click.echo(f"{names.signal_topic}  {names.prefix}  {signal.encoded().decode()}")
        return
    asyncio.run(_backfill(settings, names, signal, wait))


def _flow_of(tables: Sequence[str]) -> tuple[Flow, tuple[Table, ...]]:
    """One flow, since one connector is asked and answers."""
    found = {name: _find(name) for name in tables}
    flows = {flow.name: flow for flow, _ in found.values()}
    if len(flows) > 1:
        raise click.UsageError(f"the tables belong to several flows ({', '.join(flows)})")
    return next(iter(flows.values())), tuple(table for _, table in found.values())


def _find(name: str) -> tuple[Flow, Table]:
    for flow in log_flows():
        for table in flow.tables:
            if name in (table.name, table.qualified):
                return flow, table
    known = ", ".join(table.name for flow in log_flows() for table in flow.tables)
    raise click.UsageError(f"{name!r} is no table that a connector captures; there are: {known}")


async def _backfill(settings: Settings, names: CaptureNames, signal: Signal, wait: bool) -> None:
    await _check_running(settings, names)
    async with open_notifications(settings.kafka, names) as notifications:
        await send(settings.kafka, names, signal)
        click.echo(f"asked {names.connector} (signal {signal.identity})")
        if wait:
            await _follow(notifications, signal)


async def _check_running(settings: Settings, names: CaptureNames) -> None:
    async with ConnectClient(settings.connect) as client:
        status = await client.status(names.connector)
    if status is None or not status.running:
        state = "does not exist" if status is None else str(status)
        raise CommandFailure(f"{names.connector}: {state}. First: ftstream connectors apply")


async def _follow(notifications: Notifications, signal: Signal) -> None:
    failed: list[str] = []
    shown = 0.0
    async for notification in notifications.of(signal, PATIENCE_SECONDS):
        if notification.kind != "IN_PROGRESS" or time.monotonic() - shown > PROGRESS_SECONDS:
            click.echo(_line(notification))
            shown = time.monotonic()
        if notification.failure:
            failed.append(f"{notification.table or 'snapshot'}: {notification.failure}")
    if failed:
        raise CommandFailure(
            f"not all rows were read ({'; '.join(failed)}); Connect's log has the reason"
        )


def _line(notification: SnapshotStep) -> str:
    table = notification.table
    match notification.kind:
        case "IN_PROGRESS":
            last = notification.details.get("last_processed_key", "the beginning")
            return f"{table}: read up to {last}"
        case "TABLE_SCAN_COMPLETED":
            # Counted from the task's last start: fewer than there are, if it was restarted.
            return f"{table}: {notification.scan.lower()}, {notification.rows or 0} rows"
        case kind:
            return f"snapshot {kind.lower()}"
