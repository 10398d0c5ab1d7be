"""What goes wrong in the demo while traffic runs, and what the person on duty does about it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import psycopg
from aiokafka import AIOKafkaProducer

from ftstream.flows import GFX, Names, Site
from ftstream.kafka.clients import client_options
from ftstream.local.demo.rig import Rig
from ftstream.postgres.queries import Queries, statement

QUERIES = Queries.load(__package__, "incidents.sql")

DEAD_AFTER_SECONDS = "2"
"""So that the demo need not wait ten minutes for a change to be given up."""

POISON = b'{"op": "c", "after": {"id": '
PATIENCE_SECONDS = 60.0

Say = Callable[[str], None]


async def play(rig: Rig, seconds: float, say: Say) -> None:
    """Incidents over these seconds of traffic; returns when each of them is over."""
    pause = seconds / 4
    await asyncio.sleep(pause)
    say("two players change seats: the unique (hand, seat) moves between two rows")
    await asyncio.to_thread(_external, rig, "swap_seats")
    await _send_poison(rig)
    await asyncio.to_thread(_supabase, rig, "forbid_odd_players")
    await asyncio.to_thread(_external, rig, "add_odd_player")
    say("Supabase Realtime dies: the publisher looks for edits by itself")
    await asyncio.to_thread(rig.stack.kill, "realtime")
    await asyncio.sleep(pause)
    say("the worker is killed, and another takes over; Realtime is back")
    await asyncio.to_thread(_replace_worker, rig)
    await asyncio.to_thread(rig.stack.start, "realtime")
    await _until_dead(rig, 2)


def decide(rig: Rig, say: Say) -> None:
    """Look at what is dead: fix and retry one, give the other up."""
    say(rig.run("dead", "list").rstrip())
    for letter in _letters(rig):
        if letter["operation"] is None:
            say("a poison message: no change event, kept byte for byte; it is dropped")
            rig.run("dead", "drop", "--yes", letter["ref"])
        else:
            say(f"$ ftstream dead show {letter['ref']}")
            say(
                "\n".join(
                    f"    {line[:100]}"
                    for line in rig.run("dead", "show", letter["ref"]).splitlines()
                )
            )
            say("Supabase's constraint is fixed, and the change is retried")
            _supabase(rig, "allow_odd_players")
            for line in rig.run("dead", "retry", letter["ref"]).splitlines():
                say(f"    {line}")


def _replace_worker(rig: Rig) -> None:
    rig.workers[-1].kill()
    rig.workers.pop().wait()
    rig.start_worker()


def _external(rig: Rig, query: str) -> None:
    with psycopg.connect(rig.dsn("external")) as connection:
        connection.execute(statement(QUERIES[query]))


def _supabase(rig: Rig, query: str) -> None:
    with psycopg.connect(rig.dsn("supabase")) as connection:
        connection.execute(statement(QUERIES[query]))


async def _send_poison(rig: Rig) -> None:
    topic = Names(GFX, rig.namespace).topic(GFX.table("gfx_hands"), Site.EXTERNAL)
    async with AIOKafkaProducer(**client_options(rig.settings.kafka)) as producer:
        await producer.send_and_wait(topic, POISON, key=b"a poison message")


def _letters(rig: Rig) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(rig.run("dead", "list", "--state", "dead", "--json"))
    return found


async def _until_dead(rig: Rig, letters: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(await asyncio.to_thread(_letters, rig)) < letters:
            await asyncio.sleep(0.5)
