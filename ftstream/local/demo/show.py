"""The demo: everything from nothing to two equal sites, with traffic in between."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live

from ftstream.compare.progress import FlowProgress, watch
from ftstream.compare.verification import TableVerdict, verify
from ftstream.flows import FLOWS, GFX, OVERRIDES, Flow, Site
from ftstream.local.demo import editors, incidents, tournament
from ftstream.local.demo.rig import Rig, temporary_stack
from ftstream.local.demo.traffic import Traffic, TrafficStats

WAIT_SECONDS = 60


def show(folder: Path, seconds: float, rate: float, seed: int | None, console: Console) -> bool:
    """Run the demo and say whether both sites ended equal. Leaves no process and no folder behind."""
    console.print("local stack: Kafka, Connect, two PostgreSQL clusters")
    with (
        temporary_stack(folder, lambda line: console.print(f"  {line}", style="dim")) as stack,
        Rig(stack) as rig,
    ):
        return _play(
            rig, seconds, rate, secrets.randbelow(10**6) if seed is None else seed, console
        )


def _play(rig: Rig, seconds: float, rate: float, seed: int, console: Console) -> bool:
    with _step(console, "demo schema on both sites"):
        rig.create_databases()
    with _step(console, "ftstream init"):
        rig.run("init")
    with _step(console, "ftstream connectors apply"):
        rig.run("connectors", "apply")
    console.print("ftstream worker")
    rig.overrides = {
        "FTSTREAM_APPLY__DEAD_AFTER_SECONDS": incidents.DEAD_AFTER_SECONDS,
        "FTSTREAM_BATCH__INTERVAL_SECONDS": tournament.INTERVAL_SECONDS,
    }
    rig.start_worker()
    stats, edits = asyncio.run(_traffic(rig, seconds, rate, seed, console))
    done = ", ".join(f"{count} {kind}" for kind, count in sorted(stats.operations.items()))
    console.print(f"written on External (seed {seed}): {stats.changes} rows: {done}")
    console.print(f"edited on both sites at once: {edits.number} times")

    def say(line: str) -> None:
        console.print(line, markup=False)

    editors.refused(rig, say)
    incidents.decide(rig, say)
    editors.bring_back(rig, say)
    tournament.clear_out(rig, say)
    with _step(console, "ftstream wait"):
        rig.run("wait", "--timeout", str(WAIT_SECONDS))
    say(f"$ ftstream status\n{rig.run('status').rstrip()}")
    with _step(console, "ftstream verify"):
        verdicts = asyncio.run(_verified(rig))
    return _told(verdicts, console)


async def _traffic(
    rig: Rig, seconds: float, rate: float, seed: int, console: Console
) -> tuple[TrafficStats, editors.Edits]:
    traffic = asyncio.create_task(Traffic(seed, rig.dsn("external"), rate).run(seconds=seconds))
    trouble = asyncio.create_task(incidents.play(rig, seconds, console.print))
    people = asyncio.create_task(editors.play(rig, seconds, seed, console.print))
    dealers = asyncio.create_task(tournament.play(rig, seconds))
    async with AsyncExitStack() as stack:
        watched = {
            flow: await stack.enter_async_context(watch(flow, rig.settings)) for flow in FLOWS
        }
        began = time.monotonic()
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            while not traffic.done():
                await asyncio.wait({traffic}, timeout=1)
                line = await _line(watched, time.monotonic() - began)
                live.update(line)
                if not console.is_terminal and int(time.monotonic() - began) % 10 == 0:
                    console.print(line)
    await trouble
    await dealers
    return await traffic, await people


async def _line(watched: Mapping[Flow, FlowProgress], elapsed: float) -> str:
    lag = await watched[GFX].directions[0].lag(5)
    edits = {each.target: (await each.lag(5)).p50_ms for each in watched[OVERRIDES].directions}
    waiting = sum([await each.unapplied() for each in watched.values()])
    every = [direction for each in watched.values() for direction in each.directions]
    conflicts = sum([await direction.conflicts() for direction in every])
    return (
        f"  {elapsed:4.0f} s   {lag.rows / 5:6.0f} changes/s applied   lag p50 {lag.p50_ms} ms,"
        f" p99 {lag.p99_ms} ms   edits p50 {edits[Site.SUPABASE]} ms to Supabase,"
        f" {edits[Site.EXTERNAL]} ms back   {conflicts} conflicts settled   {waiting} waiting in Kafka"
    )


async def _verified(rig: Rig) -> list[TableVerdict]:
    return [verdict for flow in FLOWS for verdict in await verify(flow, rig.settings)]


def _told(verdicts: list[TableVerdict], console: Console) -> bool:
    for found in verdicts:
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.counts.items())
        console.print(f"  {found.table.name:<18} {found.rows:>8} rows  {kinds or 'equal'}")
    equal = all(found.equal for found in verdicts)
    total = sum(found.rows for found in verdicts)
    console.print(f"both sites equal: {total} rows" if equal else "the sites differ")
    return equal


@contextmanager
def _step(console: Console, name: str) -> Iterator[None]:
    began = time.monotonic()
    console.print(name)
    yield
    console.print(f"  done in {time.monotonic() - began:.1f} s", style="dim")
