"""Measures a worker as a process: time, processor time and peak memory."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from ftstream.compare.progress import FlowProgress, watch
from ftstream.flows import GFX
from ftstream.local.demo.rig import CommandFailed, Rig

POLL_SECONDS = 0.02
SETTLE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Run:
    """One worker's way through what lay in Kafka."""

    rows: int
    rows_per_s: float
    cpu_us_per_row: float
    rss_mb: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of equal rows, as a command: seconds, and its peak memory."""

    rows: int
    seconds: float
    rss_mb: float


def measured(rig: Rig, *arguments: str, rows: int) -> Comparison:
    """Run an ftstream command to its end."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "ftstream", *arguments],
        env=os.environ | rig.environment,
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise CommandFailed(f"ftstream {' '.join(arguments)}: exit code {process.returncode}")
    # In kilobytes on Linux, in bytes on macOS.
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return Comparison(rows, round(seconds, 1), round(peak, 1))


async def startup_cpu(rig: Rig) -> float:
    """Processor seconds of a worker that finds nothing to do, to take off a run's."""
    async with watch(GFX, rig.settings) as progress:
        process = psutil.Process(rig.start_worker().pid)
        while await progress.assigned() == 0:
            await asyncio.sleep(POLL_SECONDS)
        await asyncio.sleep(SETTLE_SECONDS)
        used = _cpu(process)
        rig.stop_workers()
        return used


async def drain(rig: Rig, rows: int, idle_cpu: float) -> Run:
    """Start a worker on a backlog of `rows` and measure until all are applied."""
    async with watch(GFX, rig.settings) as progress:
        process = psutil.Process(rig.start_worker().pid)
        first, began = await _first_applied(progress, rows)
        while await progress.unapplied():
            await asyncio.sleep(POLL_SECONDS)
        seconds = time.monotonic() - began
        run = Run(
            rows=rows,
            rows_per_s=(rows - first) / seconds,
            cpu_us_per_row=(_cpu(process) - idle_cpu) * 1e6 / rows,
            rss_mb=peak_rss_mb(process),
        )
        rig.stop_workers()
        return run


async def _first_applied(progress: FlowProgress, rows: int) -> tuple[int, float]:
    """Rows applied when the first batch is seen, and when that was."""
    while (left := await progress.unapplied()) >= rows:
        await asyncio.sleep(POLL_SECONDS)
    return rows - left, time.monotonic()


def peak_rss_mb(process: psutil.Process) -> float:
    """The highest resident memory so far; where the system does not keep it, the present one."""
    status = Path(f"/proc/{process.pid}/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return float(process.memory_info().rss) / 2**20


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
