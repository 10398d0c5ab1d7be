"""`ftstream status`: one look at how far each flow is, and at what wakes the workers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click
import psycopg

from ftstream.adapters.kafka.errors import KafkaError
from ftstream.adapters.postgres.connection import open_connection
from ftstream.adapters.postgres.wake_ups import Seen, seen
from ftstream.cli.errors import failure
from ftstream.core.wake_up import Way
from ftstream.flows import READY, Flow
from ftstream.progress import SlotMissing, Standing, watch
from ftstream.settings import Settings, load_settings

SEEN_SECONDS = 90.0
"""A worker says every 30 s that it is there."""


@dataclass
class Looked:
    """What could be seen; `problems` is why the rest could not."""

    flows: list[Standing] = field(default_factory=list)
    workers: list[Seen] = field(default_factory=list)
    problems: list[Exception] = field(default_factory=list)

    @property
    def applied(self) -> bool:
        return not self.problems and all(standing.applied for standing in self.flows)


@click.command(
    epilog="""\b
Examples:
  ftstream status
  ftstream status --json
Exit codes: 0 everything captured is applied, 1 it is not, or a database does not answer,
2 wrong settings, 3 Kafka does not answer."""
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(as_json: bool) -> None:
    """Show how far each flow is, what was put aside, and what wakes the publishers.

    It looks once. What was committed a moment ago may not be captured yet: `ftstream wait` waits for it.
    """
    settings = load_settings()
    settings.require_databases()
    looked = asyncio.run(look(READY, settings))
    if as_json:
        click.echo(json.dumps(_document(looked), indent=2, default=_encoded))
    else:
        for line in _lines(looked):
            click.echo(line)
    if looked.problems:
        # The first is told last, with its exit code; one that both parts met is told once.
        for other in list(dict.fromkeys(map(_message, looked.problems)))[1:]:
            click.echo(other, err=True)
        raise looked.problems[0]
    sys.exit(0 if looked.applied else 1)


async def look(flows: Sequence[Flow], settings: Settings) -> Looked:
    """Both parts, each as far as it goes: without Kafka one still sees the workers."""
    looked = Looked()
    try:
        for flow in flows:
            async with watch(flow, settings) as progress:
                looked.flows += await progress.look()
    except (psycopg.Error, KafkaError, SlotMissing) as error:
        looked.problems.append(error)
    try:
        async with await open_connection(settings.supabase.conninfo()) as connection:
            looked.workers = await seen(connection, SEEN_SECONDS)
    except psycopg.Error as error:
        looked.problems.append(error)
    return looked


def _lines(looked: Looked) -> Iterator[str]:
    for standing in looked.flows:
        yield f"flow {standing.flow} to {standing.target}: {told(standing)}"
    for worker in looked.workers:
        since = worker.since.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        way = "woken by Realtime" if worker.way == Way.REALTIME else "polling"
        reason = f": {worker.reason}" if worker.reason else ""
        yield f"worker {worker.worker}: {way} since {since}{reason}"


def told(standing: Standing) -> str:
    """How far a direction is, in words."""
    if standing.applied:
        return "everything captured is applied"
    found = {
        f"{standing.to_capture} changes to publish": standing.to_capture,
        f"{standing.to_apply} records to apply": standing.to_apply,
        f"{standing.parked} parked": standing.parked,
        f"{standing.dead} dead": standing.dead,
        "the connector is not running (`ftstream connectors status`)": not standing.captures,
    }
    return ", ".join(text for text, there in found.items() if there)


def _document(looked: Looked) -> dict[str, Any]:
    return {
        "applied": looked.applied,
        "flows": [
            dataclasses.asdict(standing) | {"applied": standing.applied}
            for standing in looked.flows
        ],
        "workers": [dataclasses.asdict(worker) for worker in looked.workers],
        "problems": [_message(problem) for problem in looked.problems],
    }


def _message(problem: Exception) -> str:
    known = failure(problem)
    return known.message if known else str(problem)


def _encoded(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not to be in a status")
