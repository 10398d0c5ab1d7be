"""`ftstream status`: one look at how far each flow is, and at what wakes the workers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click
import psycopg
from psycopg import AsyncConnection

from ftstream.capture.batch.schedule import Schedule
from ftstream.capture.wake_ups import WorkerWakeUp, seen
from ftstream.cli.encoding import encoded
from ftstream.cli.errors import FAILED, UNREACHABLE, failure
from ftstream.cli.options import json_option
from ftstream.cli.setup_lines import setup_lines
from ftstream.compare.progress import SlotMissing, Standing, parked_and_dead, watch
from ftstream.connect.client import ConnectClient, ConnectorStatus
from ftstream.connect.errors import ConnectError
from ftstream.failures import Severity
from ftstream.flows import FLOWS, Capture, CaptureNames, Flow, Site, log_captures
from ftstream.kafka.errors import KafkaError
from ftstream.postgres.connection import open_site
from ftstream.settings import Settings, load_settings
from ftstream.setup.look import SetupLook, look_for_certain
from ftstream.supabase.wake_up import Way
from ftstream.watch.alerts import RANKS, Alert
from ftstream.watch.heal import Restarts
from ftstream.watch.judge import duration, size
from ftstream.watch.look import glance
from ftstream.watch.signals import SlotSignal, worst
from ftstream.watch.store import Links, Store


@dataclass
class DirectionStatus:
    """What could be seen of a flow to one site; None: it could not."""

    flow: str
    target: Site
    standing: Standing | None = None
    parked: int | None = None
    dead: int | None = None
    failed_runs: tuple[str, ...] = ()
    """Of a flow captured by batch: tables whose last run failed."""
    p50_ms: int | None = None
    p99_ms: int | None = None
    """How late its changes came in the last minute; None: none came."""
    oldest_seconds: float = 0.0
    """How long what waits has waited: in the outbox, or parked or dead at the target."""
    halted: str = ""
    """Why a worker that lives does not carry the flow any more."""

    @property
    def applied(self) -> bool:
        """Whether all that was captured is on the other site, and nothing keeps the rest from it."""
        standing = self.standing
        if standing is None or self.parked is None or self.dead is None:
            return False
        if self.failed_runs or self.halted:
            return False
        captured = standing.captures and not (standing.to_capture or standing.log_bytes)
        return captured and not (standing.to_apply or self.parked or self.dead)


@dataclass
class Looked:
    """What could be seen; `problems` is why the rest could not."""

    directions: list[DirectionStatus]
    workers: list[WorkerWakeUp] = field(default_factory=list)
    problems: list[Exception] = field(default_factory=list)
    setup: SetupLook = field(default_factory=SetupLook)
    slots: Sequence[SlotSignal] = ()
    alerts: Sequence[Alert] = ()
    """What `ftstream watch` has found, and is not over."""
    connectors: dict[str, ConnectorStatus | None] = field(default_factory=dict)
    restarts: dict[str, Restarts] = field(default_factory=dict)
    """By the watcher, of those that had failed."""

    @property
    def applied(self) -> bool:
        return not self.problems and all(direction.applied for direction in self.directions)

    @property
    def well(self) -> bool:
        return self.applied and self.setup.well

    @property
    def exit_code(self) -> int:
        """Whoever does not answer hides the rest."""
        if self.setup.silent:
            return UNREACHABLE
        codes = [known.exit_code for p in self.problems if (known := failure(p))]
        return 0 if self.well else max([FAILED, *codes])


@click.command(
    epilog="""\b
Examples:
  ftstream status
  ftstream status --watch      again and again, until Ctrl-C
  ftstream status --json
Exit codes: 0 everything captured is applied, and capture is well; 1 something is not; 2 wrong use, or
wrong settings; 3 something does not answer, so that nobody can tell."""
)
@json_option
@click.option("--watch", "again", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--every",
    "seconds",
    type=click.FloatRange(min=1),
    default=5.0,
    show_default=True,
    help="Seconds between two looks of --watch.",
)
def status(as_json: bool, again: bool, seconds: float) -> None:
    """Show how far each flow is, what is parked, and what wakes the publishers; the worst first.

    It tells of what was committed before it looked: a connector is given a few seconds to show that it has
    all of that. `ftstream wait` waits for the rest.
    """
    settings = load_settings()
    settings.require_databases()
    while again:
        looked = asyncio.run(look(FLOWS, settings))
        if not as_json:
            click.clear()
            click.echo(f"{datetime.now():%H:%M:%S}, every {seconds:.0f} s")
        _show(looked, as_json)
        time.sleep(seconds)
    looked = asyncio.run(look(FLOWS, settings))
    _show(looked, as_json)
    sys.exit(looked.exit_code)


def _show(looked: Looked, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_document(looked), indent=2, default=encoded))
        return
    color = False if "NO_COLOR" in os.environ else None  # https://no-color.org; None: on a terminal
    for colour, line in _lines(looked):
        click.echo(click.style(line, fg=colour), color=color)
    for problem in dict.fromkeys(map(_message, looked.problems)):
        click.echo(click.style(f"Error: {problem}", fg="red"), err=True, color=color)


async def look(flows: Sequence[Flow], settings: Settings) -> Looked:
    """Each part as far as it goes: without Kafka one still sees what is parked, and the workers."""
    looked = Looked(
        [DirectionStatus(flow.name, target) for flow in flows for target in flow.targets]
    )
    looked.setup = await look_for_certain(settings, flows)
    try:
        for flow in flows:
            async with watch(flow, settings) as progress:
                found = {(s.flow, s.target): s for s in await progress.look()}
            for direction in looked.directions:
                key = direction.flow, direction.target
                direction.standing = found.get(key, direction.standing)
    except (psycopg.Error, KafkaError, SlotMissing) as error:
        looked.problems.append(error)
    links = Links(settings)
    store = Store(links)
    looked.alerts, looked.restarts = await store.open_alerts(), await store.restarts()
    await links.close()
    if not any(fault.silent and fault.where == "connect" for fault in looked.setup.faults):
        try:
            looked.connectors = await _connectors(settings, flows)
        except ConnectError as error:
            looked.problems.append(error)
    for site in Site:
        try:
            async with await open_site(settings, site) as connection:
                await _look_at(site, connection, looked, flows, settings)
        except psycopg.Error as error:
            looked.problems.append(error)
    return looked


async def _connectors(
    settings: Settings, flows: Sequence[Flow]
) -> dict[str, ConnectorStatus | None]:
    names = [CaptureNames(each, settings.namespace).connector for each in log_captures(flows)]
    async with ConnectClient(settings.connect) as client:
        return {name: await client.status(name) for name in names}


async def _look_at(
    site: Site,
    connection: AsyncConnection,
    looked: Looked,
    flows: Sequence[Flow],
    settings: Settings,
) -> None:
    """Add what one site knows by itself to what was seen."""
    here = [direction for direction in looked.directions if direction.target is site]
    if here:
        counts = await parked_and_dead(connection)
        for direction in here:
            direction.parked, direction.dead = counts.get(direction.flow, (0, 0))
    seen_here = await glance(settings, flows, site, connection)
    looked.slots = seen_here.slots or looked.slots
    for direction in (each for each in looked.directions if each.target is site.other):
        if direction.standing is not None and direction.standing.to_capture:
            direction.oldest_seconds = max(direction.oldest_seconds, seen_here.outbox_seconds)
    for direction in here:
        oldest = (w.oldest_seconds for w in seen_here.waiting if w.flow == direction.flow)
        direction.oldest_seconds = max([direction.oldest_seconds, *oldest])
        late = worst(lag for lag in seen_here.lags if lag.flow == direction.flow)
        direction.p50_ms, direction.p99_ms = late or (None, None)
    if site is Site.SUPABASE:
        looked.workers = await seen(connection)
        halted = {flow: why for worker in looked.workers for flow, why in worker.halted.items()}
        for direction in looked.directions:
            direction.halted = halted.get(direction.flow, "")
        for flow in (flow for flow in flows if flow.capture is Capture.BATCH):
            found = await Schedule(flow, settings.namespace, connection).status()
            failed = tuple(each.entity_type for each in found if each.status == "failed")
            for direction in looked.directions:
                if direction.flow == flow.name:
                    direction.failed_runs = failed


_COLOURS = {
    Severity.INFO: "cyan",
    Severity.WARNING: "yellow",
    Severity.ERROR: "red",
    Severity.CRITICAL: "bright_red",
}

_COLOURS_WORST = ("red", "yellow", "green")

Line = tuple[str | None, str]
"""A colour, and what to say in it."""


def _lines(looked: Looked) -> Iterator[Line]:
    for alert in sorted(looked.alerts, key=lambda each: -RANKS[each.severity]):
        said = f"{alert.code} {alert.severity}: {alert.what}. Then: {alert.command}"
        yield _COLOURS[alert.severity], said
    # The worst first; those that are well in the order of flows.py.
    for direction in sorted(
        looked.directions, key=lambda each: _COLOURS_WORST.index(_colour(each))
    ):
        said = f"flow {direction.flow} to {direction.target}: {told(direction)}{_late(direction)}"
        yield _colour(direction), said
    yield from map(_slot, looked.slots)
    yield from (_connector(looked, name) for name in looked.connectors)
    yield from (("red", line) for line in setup_lines(looked.setup))
    if not looked.workers and not looked.setup.silent:
        yield "red", "no worker has been seen lately: start one (`ftstream worker`)"
    for worker in looked.workers:
        way = "woken by Realtime" if worker.way == Way.REALTIME else "polling"
        reason = f": {worker.reason}" if worker.reason else ""
        yield None, f"worker {worker.worker}: {way} since {_at(worker.since)}{reason}"


def _colour(direction: DirectionStatus) -> str:
    if direction.applied:
        return "green"
    return "red" if direction.halted or direction.dead or direction.failed_runs else "yellow"


def _slot(slot: SlotSignal) -> Line:
    left, waits = "no limit to what is kept", size(slot.retained_bytes)
    if slot.safe_bytes is not None:
        left = f"{size(max(slot.safe_bytes, 0))} left before changes are lost"
    return None, f"slot {slot.name}: {waits} of External's log wait, {left}"


def _connector(looked: Looked, name: str) -> Line:
    status, restarts = looked.connectors[name], looked.restarts.get(name)
    said = f"connector {name}: {status or 'there is none (`ftstream connectors apply`)'}"
    if restarts is not None and restarts.last is not None:
        said += f"; restarted by the watcher, the last time {_at(restarts.last)}"
    return "green" if status is not None and status.running else "red", said


def _at(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _late(direction: DirectionStatus) -> str:
    waited = f"; the oldest waits for {duration(direction.oldest_seconds)}"
    late = f"; p50 {direction.p50_ms} ms, p99 {direction.p99_ms} ms in the last minute"
    return (waited if direction.oldest_seconds else "") + (
        late if direction.p50_ms is not None else ""
    )


def told(direction: DirectionStatus) -> str:
    """Say how far a direction is, in words."""
    if direction.applied:
        return "everything captured is applied"
    return ", ".join(_left(direction)) or "parked changes cannot be seen"


def _left(direction: DirectionStatus) -> Iterator[str]:
    standing = direction.standing
    if direction.halted:
        yield direction.halted
    if standing is None:
        yield "how far it is cannot be seen"
    else:
        if standing.to_capture:
            yield f"{standing.to_capture} changes to publish"
        if not standing.captures:
            yield "the connector is not running (`ftstream connectors status`)"
        elif standing.log_bytes:
            yield f"{standing.log_bytes} bytes of log to capture"
        if standing.to_apply:
            yield f"{standing.to_apply} records to apply"
    if direction.failed_runs:
        yield f"runs of {', '.join(direction.failed_runs)} failed (`ftstream batch status`)"
    if direction.parked:
        yield f"{direction.parked} parked"
    if direction.dead:
        yield f"{direction.dead} dead (`ftstream dead list`)"


def _document(looked: Looked) -> dict[str, Any]:
    return {
        "applied": looked.applied,
        "flows": [dataclasses.asdict(d) | {"applied": d.applied} for d in looked.directions],
        "workers": [dataclasses.asdict(worker) for worker in looked.workers],
        "well": looked.well,
        "setup": [dataclasses.asdict(fault) for fault in looked.setup.faults],
        "unnoted": [{"site": site, "table": table} for site, table in looked.setup.unnoted],
        "gaps": [dataclasses.asdict(gap) | {"site": site} for site, gap in looked.setup.gaps],
        "connectors": [_connector_document(looked, name) for name in looked.connectors],
        "slots": [dataclasses.asdict(slot) for slot in looked.slots],
        "alerts": [dataclasses.asdict(alert) for alert in looked.alerts],
        "problems": [_message(problem) for problem in looked.problems],
    }


def _connector_document(looked: Looked, name: str) -> dict[str, Any]:
    status, restarts = looked.connectors[name], looked.restarts.get(name)
    return {
        "name": name,
        "state": str(status) if status else None,
        "running": status is not None and status.running,
        "restarted_at": restarts.last if restarts else None,
    }


def _message(problem: Exception) -> str:
    known = failure(problem)
    return known.message if known else str(problem)
