"""The cases of flows captured by outbox: latency both ways, publishing, and what capture costs a writer."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from dataclasses import dataclass

import psycopg

from ftstream.flows import Site
from ftstream.local.bench.cases import (
    QUERIES,
    WARM_UP_SECONDS,
    Latency,
    Say,
    execute,
    quantiles,
    rig_for,
)
from ftstream.local.demo.rig import Rig, SiteName
from ftstream.local.stack import Stack
from ftstream.postgres.connection import open_connection
from ftstream.postgres.queries import statement

POLL_SECONDS = 0.02
REPEATS = 5
PLAYER = str(uuid.UUID(int=1))


@dataclass(frozen=True, slots=True)
class CaptureCost:
    """Microseconds that a captured row costs its writer, over one that is not."""

    us_per_row: float


def latency(stack: Stack, rate: int, seconds: float, say: Say) -> dict[str, Latency]:
    """Single-row transactions on both sites at once, at a steady rate each."""
    with rig_for(stack, "benchtwoway") as rig:
        rig.run("init")
        rig.run("connectors", "apply")
        rig.start_worker()
        rig.run("wait")
        say(f"{rate} edits/s on each site for {seconds:.0f} s")
        since = time.time() + WARM_UP_SECONDS
        asyncio.run(_edit_both(rig, rate, seconds + WARM_UP_SECONDS))
        rig.run("wait")
        return {f"to_{site}": _lags(rig.dsn(_name(site)), since) for site in Site}


def publishing(stack: Stack, rows: int, say: Say) -> float:
    """Changes a second that a worker takes out of Supabase's outbox, and Kafka acknowledges."""
    with rig_for(stack, "benchoutbox") as rig:
        rig.run("init")
        say(f"writing {rows:,} overrides on Supabase")
        execute(rig.dsn("supabase"), "overrides", rows=rows)
        rig.start_worker()
        say("publishing them")
        with psycopg.connect(rig.dsn("supabase"), autocommit=True) as connection:
            first, began = _first_published(connection, rows), time.monotonic()
            while _waiting(connection):
                time.sleep(POLL_SECONDS)
            return first / (time.monotonic() - began)


def capture(stack: Stack, rows: int, say: Say) -> CaptureCost:
    """An update of many rows with its commit, captured and not: medians of a few."""
    with rig_for(stack, "benchcapture") as rig:
        rig.run("init")
        execute(rig.dsn("supabase"), "overrides", rows=rows)
        say(f"updating {rows:,} overrides, captured and not")
        seconds: dict[str, list[float]] = {"off": [], "on": []}
        with psycopg.connect(rig.dsn("supabase", "supabase_admin"), autocommit=True) as connection:
            for _ in range(REPEATS):
                for applying, taken in seconds.items():
                    connection.execute(statement(QUERIES["empty_outbox"]))
                    connection.execute(statement(QUERIES["tidy"]))
                    began = time.monotonic()
                    with connection.transaction():
                        connection.execute(statement(QUERIES["applying"]), {"applying": applying})
                        connection.execute(statement(QUERIES["update_overrides"]))
                    taken.append(time.monotonic() - began)
        extra = statistics.median(seconds["off"]) - statistics.median(seconds["on"])
        return CaptureCost(round(extra / rows * 1e6, 1))


async def _edit_both(rig: Rig, rate: int, seconds: float) -> None:
    await asyncio.gather(*(_edit(rig.dsn(_name(site)), rate, seconds) for site in Site))


async def _edit(dsn: str, rate: int, seconds: float) -> None:
    async with await open_connection(dsn) as connection:
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            values = {"number": number, "player": PLAYER}
            await connection.execute(statement(QUERIES["override"]), values)
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))


def _lags(dsn: str, since: float) -> Latency:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(statement(QUERIES["edit_latency"]), {"since": since})
        return quantiles([float(row[0]) for row in found])


def _first_published(connection: psycopg.Connection, rows: int) -> int:
    """Return what is left when the first changes are gone."""
    while (left := _waiting(connection)) == rows:
        time.sleep(POLL_SECONDS)
    return left


def _waiting(connection: psycopg.Connection) -> int:
    row = connection.execute(statement(QUERIES["outbox"])).fetchone()
    return int(row[0]) if row else 0


def _name(site: Site) -> SiteName:
    return "external" if site is Site.EXTERNAL else "supabase"
