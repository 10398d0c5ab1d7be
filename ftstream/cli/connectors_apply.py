"""Bringing a connector about: `ftstream connectors apply`, and what it meets on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import click
import psycopg

from ftstream.capture import oversize
from ftstream.capture.connector_diff import SettingDifference, added_tables, differences
from ftstream.capture.connectors import PASSING, connector_config, snapshot_over
from ftstream.capture.heartbeat import SILENT_SECONDS, RecordCounts, written
from ftstream.capture.oversize import LargeRow, too_large
from ftstream.cli.errors import CommandFailure, failure
from ftstream.cli.grid import grid, output
from ftstream.compare.progress import slot_exists, watch
from ftstream.compare.repair import open_repairs
from ftstream.connect.client import ConnectClient, ConnectorStatus
from ftstream.connect.errors import ConnectError, ConnectUnreachable, PluginMissing, TaskFailed
from ftstream.flows import CaptureNames, Flow, Names, Site
from ftstream.kafka.topics import (
    TopicSpec,
    capture_topics,
    change_topics,
    ensure_topics,
    missing_topics,
)
from ftstream.postgres.connection import open_site
from ftstream.settings import MAX_REQUEST_BYTES, Settings
from ftstream.setup.site_look import note_slot_lost

POLL_SECONDS = 1.0

POSITION_LOST = "no longer available on the server"
"""What Debezium says of a position that its slot does not reach back to."""

LARGEST_VALUES = MAX_REQUEST_BYTES - 64 * 2**10
"""Bytes of a row's values beside which a record has room for the names of its columns and its source."""

# Java's messages are full of square brackets, which would be taken for markup.
console = output()


async def apply_all(
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
    met = met_large_row(names, status)
    if not dry_run:
        await _require_slot(settings, names)
        if _position_lost(status):
            await _forget(client, settings, names)
    if met and pass_too_large and not dry_run:
        await _pass_large_rows(client, settings, names)
    elif met and not await _differs(client, settings, names):
        # Restarted, it would run until it meets the row again.
        raise CommandFailure(await large_rows_told(settings, names))
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


async def _forget(client: ConnectClient, settings: Settings, names: CaptureNames) -> None:
    console.print("its position in the log is lost with the slot that it had: it begins anew")
    if not names.capture.outbox:
        console.print("all rows are read; those deleted meanwhile a worker finds by comparing")
    await note_slot_lost(settings, names.capture)
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
    show_differences(names.connector, found, new=deployed is None)
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
        await _forget(client, settings, names)
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


def met_large_row(names: CaptureNames, status: ConnectorStatus | None) -> bool:
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


async def large_rows_told(settings: Settings, names: CaptureNames) -> str:
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


def show_differences(connector: str, found: Sequence[SettingDifference], *, new: bool) -> None:
    if new:
        console.print(f"{connector} does not exist ({len(found)} settings)")
    elif not found:
        console.print(f"{connector} is as it should be")
    else:
        table = grid("setting", "", "deployed", "wanted", whole=["setting"], title=connector)
        for one in found:
            table.add_row(one.key, one.kind, one.deployed or "", one.wanted or "")
        console.print(table)


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
