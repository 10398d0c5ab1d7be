"""A tournament on External, whose data goes to Supabase in batches, while the demo runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
from psycopg import AsyncConnection

from ftstream.local.demo.rig import CommandFailed, Rig
from ftstream.postgres.queries import Queries, statement

QUERIES = Queries.load(__package__, "tournament.sql")

INTERVAL_SECONDS = "5"
"""Between two runs: a quarter of an hour would be too long to watch."""

ROWS = 600
PAUSE_SECONDS = 0.5

Say = Callable[[str], None]


async def play(rig: Rig, seconds: float) -> None:
    """Chips move, and counts are taken out, for these seconds."""
    clock = asyncio.get_running_loop().time
    end = clock() + seconds
    async with await AsyncConnection.connect(rig.dsn("external"), autocommit=True) as connection:
        for query in ("events", "players", "counts"):
            values = {"rows": ROWS} if query == "counts" else None
            await connection.execute(statement(QUERIES[query]), values)
        while clock() < end:
            for query in ("chips_move", "count_comes", "count_goes"):
                await connection.execute(statement(QUERIES[query]))
            await asyncio.sleep(PAUSE_SECONDS)


def clear_out(rig: Rig, say: Say) -> None:
    """Delete more than a run deletes by itself, and have it done."""
    runs, published, deleted = _runs(rig)
    say(f"runs so far: {runs}, with {published} rows, {deleted} of them deletes")
    say("a whole level of chip counts is deleted on External")
    with psycopg.connect(rig.dsn("external")) as connection:
        connection.execute(statement(QUERIES["day_goes"]))
    say("$ ftstream batch run")
    try:
        rig.run("batch", "run")
    except CommandFailed as error:
        say(f"    {str(error).splitlines()[-1]}")
    else:
        raise AssertionError("a run deleted too much")
    say("$ ftstream batch run --allow-deletes")
    for line in rig.run("batch", "run", "--allow-deletes").splitlines():
        say(f"    {line}")


def _runs(rig: Rig) -> tuple[int, int, int]:
    with psycopg.connect(rig.dsn("supabase")) as connection:
        row = connection.execute(statement(QUERIES["runs"])).fetchone()
    assert row is not None  # the statement has always one row
    return row
