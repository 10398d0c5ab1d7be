"""The case of a flow captured by batch: a first load, a hundredth that changed, and nothing to do."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import psutil

from ftstream.compare.progress import watch
from ftstream.flows import WSOP
from ftstream.local.bench.cases import Say, execute, rig_for
from ftstream.local.bench.measure import measured, peak_rss_mb
from ftstream.local.demo.rig import Rig
from ftstream.local.stack import Stack

POLL_SECONDS = 0.1
TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class RunFigures:
    """`first`: onto an empty target, until all is applied; `one_percent`: the same of what changed;
    `idle`: a run as a command, where nothing differs. `rss_mb` is the worker's peak.
    """

    rows: int
    first_rows_per_s: float
    one_percent_s: float
    idle_s: float
    rss_mb: float


def runs(stack: Stack, rows: int, say: Say) -> RunFigures:
    """So many chip counts."""
    with rig_for(stack, "benchwsop") as rig:
        rig.run("init")
        say(f"writing {rows:,} chip counts on External")
        execute(rig.dsn("external"), "chip_counts", rows=rows)
        execute(rig.dsn("supabase"), "no_run")
        process = psutil.Process(rig.start_worker().pid)
        asyncio.run(_until_assigned(rig))
        say("the first run")
        first = asyncio.run(_run(rig))
        execute(rig.dsn("external"), "one_percent")
        say("a run of what changed")
        changed = asyncio.run(_run(rig))
        say("a run that finds nothing")
        idle = measured(rig, "batch", "run", rows=rows)
        return RunFigures(
            rows,
            round(rows / first, 1),
            round(changed, 1),
            idle.seconds,
            round(peak_rss_mb(process), 1),
        )


async def _until_assigned(rig: Rig) -> None:
    async with watch(WSOP, rig.settings) as progress:
        while not await progress.assigned():
            await asyncio.sleep(POLL_SECONDS)


async def _run(rig: Rig) -> float:
    """Seconds from when a run is due until what it published is applied."""
    execute(rig.dsn("supabase"), "run_now")
    began = time.monotonic()
    async with asyncio.timeout(TIMEOUT_SECONDS), watch(WSOP, rig.settings) as progress:
        while execute(rig.dsn("supabase"), "running"):
            await asyncio.sleep(POLL_SECONDS)
        await progress.wait(TIMEOUT_SECONDS)
    return time.monotonic() - began
