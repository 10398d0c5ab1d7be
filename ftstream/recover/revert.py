"""Takes edits back: finds in both sites' logs what rows were, and writes it as new edits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import AsyncConnection

from ftstream.flows import Flow, Site, Table
from ftstream.messages.change import Stamp
from ftstream.postgres.connection import open_site
from ftstream.recover import read_history
from ftstream.recover.history import HistoryEntry, Restoration, restoration, version_of, writes
from ftstream.recover.reversal import Impossible, Intent, Left, Result, ReversalPlan, Written
from ftstream.recover.rewrite import ChangedMeanwhile, NotWritten, Reversals
from ftstream.settings import Settings

PATIENCE = 6
"""How often rows that others hold are tried, half a second each, when no other row makes progress."""

TOGETHER = 200
"""Entities whose logged writes, whole rows, are read together."""

Connections = Mapping[Site, AsyncConnection]


@dataclass(frozen=True, slots=True)
class Since:
    """Undo what was written since a time; `author`: only what that author has written last."""

    at: datetime
    ids: tuple[str, ...] = ()
    author: str | None = None


@dataclass(frozen=True, slots=True)
class OneWrite:
    """Bring one write of an entity back; `site` None: whichever made it."""

    entity_id: str
    version: int
    site: Site | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows are written; `admin`: as the tables' owner."""

    flow: Flow
    table: Table
    site: Site
    admin: bool = False


async def plan(settings: Settings, target: Target, wish: Since | OneWrite) -> ReversalPlan:
    """Return what is to be written, as the rows are now. Raises psycopg.Error, TableMissing, KeyMissing."""
    async with AsyncExitStack() as stack:
        connections = {}
        for site in Site:
            admin = target.admin and site is target.site
            opened = read_history.reading(settings, site, admin=admin)
            connections[site] = await stack.enter_async_context(opened)
        reaches = await _reaches(connections, target.flow)
        found, untouched = await _wanted(connections, target, wish, reaches)
        states = {r.entity_id: r.state for r in found if r.state is not None}
        reversals = await Reversals.open(connections[target.site], target.table)
        intents = [intent async for intent in reversals.intents(states)]
    impossible = (Impossible(r.entity_id, r.reason) for r in found if r.state is None)
    return ReversalPlan(tuple(intents), tuple(impossible), tuple(untouched), reaches)


async def carry_out(
    settings: Settings,
    target: Target,
    intents: Sequence[Intent],
    author: str,
    say: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Write these, each in a transaction of its own, as far as they still are as they were shown.

    Raises psycopg.OperationalError if the database does not answer at first, TriggersOff.
    """
    results: list[Result] = []
    async with await open_site(settings, target.site, admin=target.admin) as connection:
        reversals = await Reversals.open(connection, target.table)
        async for result in _results(connection, reversals, intents, author):
            say(result)
            results.append(result)
    return results


async def _wanted(
    connections: Connections, target: Target, wish: Since | OneWrite, reaches: Mapping[str, int]
) -> tuple[list[Restoration], list[str]]:
    """Return what each entity is to be, and the ids that were asked for to which nothing has happened."""
    match wish:
        case OneWrite(entity_id):
            known = await _known(connections, target, [entity_id])
            return [of_write(known[entity_id], wish)], []
        case Since():
            return await _since(connections, target, wish, reaches)


def of_write(entries: Sequence[HistoryEntry], wish: OneWrite) -> Restoration:
    """Return what that write left, of the writes of its entity."""
    stamps = [entry.stamp for entry in entries if entry.stamp]
    found = [
        entry
        for entry in entries
        if entry.stamp
        and entry.stamp.version == wish.version
        and wish.site in (None, entry.stamp.site)
    ]
    match found:
        case [entry]:
            return Restoration(wish.entity_id, entry.state)
        case []:
            reason = f"none of its {len(stamps)} writes that are logged has version {wish.version}"
        case _:
            versions = " or ".join(f"{e.stamp.site}:{wish.version}" for e in found if e.stamp)
            reason = f"both sites have written that version: name one, {versions}"
    return Restoration(wish.entity_id, None, reason)


async def _since(
    connections: Connections, target: Target, wish: Since, reaches: Mapping[str, int]
) -> tuple[list[Restoration], list[str]]:
    ids = sorted(set(wish.ids) or await _changed(connections, target.table, wish.at))
    found: list[Restoration] = []
    untouched: list[str] = []
    for group in (ids[start : start + TOGETHER] for start in range(0, len(ids), TOGETHER)):
        known = await _known(connections, target, group)
        last = [
            await read_history.last_writes(c, target.table, group) for c in connections.values()
        ]
        for key in group:
            stamps = [stamps[key] for stamps in last if key in stamps]
            each = _restoration(key, known[key], wish, stamps, reaches)
            if each is not None:
                found.append(each)
            elif wish.ids:
                untouched.append(key)
    return found, untouched


def _restoration(
    key: str,
    entries: Sequence[HistoryEntry],
    wish: Since,
    last: Sequence[Stamp],
    reaches: Mapping[str, int],
) -> Restoration | None:
    if not entries and not last:
        return Restoration(key, None, "neither site knows of a write of it")
    since = version_of(wish.at)
    return restoration(key, entries, since, wish.author, last=last, reaches=reaches)


async def _changed(connections: Connections, table: Table, since: datetime) -> set[str]:
    found: set[str] = set()
    for connection in connections.values():
        found |= await read_history.changed_since(connection, table, since)
    return found


async def _known(
    connections: Connections, target: Target, ids: Collection[str]
) -> dict[str, list[HistoryEntry]]:
    """The writes of each in order: what one site has written is in the other's log."""
    found: dict[str, list[HistoryEntry]] = {key: [] for key in ids}
    for site, connection in connections.items():
        for key, logged in (
            await read_history.entries(connection, site, target.table, ids)
        ).items():
            found[key] += logged
    return {key: writes(logged) for key, logged in found.items()}


async def _reaches(connections: Connections, flow: Flow) -> dict[str, int]:
    """By site that receives, since when its log is whole."""
    found = {site: await read_history.reaches(connections[site]) for site in flow.targets}
    return {site.value: version_of(at) for site, at in found.items() if at is not None}


async def _results(
    connection: AsyncConnection, reversals: Reversals, intents: Sequence[Intent], author: str
) -> AsyncIterator[Result]:
    """Try those that fail again as long as others succeed, which may be what they wait for.

    Parents before children, values that another row is to give up: nobody has to know the order.
    """
    waiting, patience = list(intents), PATIENCE
    errors: dict[str, psycopg.Error] = {}
    while waiting and patience:
        failed = []
        for intent in waiting:
            try:
                yield await _written(reversals, intent, author)
            except psycopg.Error as error:
                failed.append(intent)
                errors[intent.entity_id] = error
        if len(failed) == len(waiting):
            held = any(isinstance(errors[intent.entity_id], _HELD) for intent in failed)
            patience = patience - 1 if held else 0
        waiting = failed
    for intent in waiting:
        yield Left(intent, _words(errors[intent.entity_id], connection.broken))


_HELD = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)


async def _written(reversals: Reversals, intent: Intent, author: str) -> Result:
    try:
        await reversals.write(intent, author)
    except ChangedMeanwhile:
        return Left(intent, "changed meanwhile: run it again")
    except NotWritten:
        return Left(intent, "the database wrote no row: a trigger or a policy keeps it from that")
    return Written(intent)


def _words(error: psycopg.Error, broken: bool) -> str:
    """Return what the database says, and what to do."""
    said = ": ".join(filter(None, (error.diag.message_primary, error.diag.message_detail)))
    said = said or str(error).strip()
    match error:
        case _ if broken:
            return f"the connection was lost ({said}): run it again to see what is left to do"
        case psycopg.errors.LockNotAvailable() | psycopg.errors.DeadlockDetected():
            return f"somebody else is writing it, and goes first ({said}): run it again"
        case psycopg.errors.InsufficientPrivilege():
            return f"{said}: --admin writes as the tables' owner"
        case _:
            return said
