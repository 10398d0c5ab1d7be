"""The cases: what is written on External, and what is measured of it."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import psycopg

from ftstream.compare.progress import watch
from ftstream.flows import GFX
from ftstream.local.bench.measure import Comparison, Run, drain, measured, peak_rss_mb, startup_cpu
from ftstream.local.demo.rig import Rig
from ftstream.local.stack import Stack, jars
from ftstream.postgres.connection import open_connection
from ftstream.postgres.queries import Queries, statement

QUERIES = Queries.load(__package__, "bench.sql")

CAPTURE_SECONDS = 600.0
WARM_UP_SECONDS = 3.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Latency:
    """From commit on one site to visible on the other, in milliseconds."""

    p50: float
    p95: float
    p99: float


def throughput(stack: Stack, rows: int, say: Say, *, narrow: bool) -> Run:
    """A backlog of gfx_hands, in 35 columns or 15."""
    with rig_for(stack, "bench15" if narrow else "bench35") as rig:
        if narrow:
            for site in (rig.dsn("external"), rig.dsn("supabase")):
                execute(site, "narrow")
        _set_up(rig)
        idle = asyncio.run(startup_cpu(rig))
        say(f"writing {rows:,} hands")
        execute(rig.dsn("external"), "narrow_hands" if narrow else "hands", rows=rows)
        asyncio.run(_captured(rig))
        say("applying them")
        return asyncio.run(drain(rig, rows, idle))


def large_rows(stack: Stack, rows: int, say: Say) -> Run:
    """A backlog of sessions with 1 MB of raw_json each."""
    with rig_for(stack, "benchlarge") as rig:
        _set_up(rig)
        say(f"writing {rows:,} sessions of 1 MB")
        execute(rig.dsn("external"), "sessions", rows=rows)
        asyncio.run(_captured(rig))
        say("applying them")
        return asyncio.run(drain(rig, rows, 0.0))


def snapshot(stack: Stack, rows: int, say: Say) -> tuple[Run, Comparison]:
    """Rows that were there before the connector: Debezium reads them, the worker applies meanwhile.

    Then they are equal on both sites, and compared.
    """
    with rig_for(stack, "benchsnap") as rig:
        rig.run("init")
        say(f"writing {rows:,} hands before the connector starts")
        execute(rig.dsn("external"), "hands", rows=rows)
        process = psutil.Process(rig.start_worker().pid)
        say("snapshot")
        began = time.monotonic()
        rig.run("connectors", "apply")
        rig.run("wait", "--timeout", str(CAPTURE_SECONDS))
        seconds = time.monotonic() - began
        times = process.cpu_times()
        run = Run(
            rows=rows,
            rows_per_s=rows / seconds,
            cpu_us_per_row=(times.user + times.system) * 1e6 / rows,
            rss_mb=peak_rss_mb(process),
        )
        say("comparing them")
        return run, measured(rig, "verify", "--table", "gfx_hands", rows=rows)


def latency(stack: Stack, rate: int, seconds: float, say: Say) -> Latency:
    """Single-row transactions at a steady rate."""
    with rig_for(stack, "benchlatency") as rig:
        _set_up(rig)
        rig.start_worker()
        rig.run("wait")
        say(f"{rate} rows/s for {seconds:.0f} s")
        since = time.time() + WARM_UP_SECONDS
        asyncio.run(_write_steadily(rig, rate, seconds + WARM_UP_SECONDS))
        rig.run("wait")
        with psycopg.connect(rig.dsn("supabase")) as connection:
            query = connection.execute(statement(QUERIES["latency"]), {"since": since})
            return quantiles([float(row[0]) for row in query])


def quantiles(lags: list[float]) -> Latency:
    """Return the quantiles of milliseconds."""
    cuts = statistics.quantiles(lags, n=100)
    return Latency(round(cuts[49], 1), round(cuts[94], 1), round(cuts[98], 1))


def servers(stack: Stack) -> dict[str, str]:
    """The versions of what runs beside the worker."""
    with psycopg.connect(stack.dsn("supabase")) as connection:
        row = connection.execute("show server_version").fetchone()
    assert row is not None
    jars_of = {name: jars.pinned(name) for name in ("kafka", "debezium")}
    return {"postgresql": str(row[0]), **jars_of}


@contextmanager
def rig_for(stack: Stack, name: str) -> Iterator[Rig]:
    """A rig that is gone before the next case is measured."""
    with Rig(stack, name) as rig:
        rig.create_databases()
        yield rig
        rig.remove()


def _set_up(rig: Rig) -> None:
    rig.run("init")
    rig.run("connectors", "apply")


def execute(dsn: str, name: str, **values: object) -> list[tuple[Any, ...]]:
    """Run a statement by its name; the rows that it returns."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement(QUERIES[name]), values or None)
        return cursor.fetchall() if cursor.description else []


async def _captured(rig: Rig) -> None:
    async with watch(GFX, rig.settings) as progress:
        await progress.captured(CAPTURE_SECONDS)


async def _write_steadily(rig: Rig, rate: int, seconds: float) -> None:
    async with await open_connection(rig.dsn("external")) as connection:
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            await connection.execute(statement(QUERIES["player"]), {"number": number})
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))


def figures(run: Run) -> dict[str, float]:
    """A run as it stands in the report."""
    return {key: round(value, 1) for key, value in asdict(run).items()}
