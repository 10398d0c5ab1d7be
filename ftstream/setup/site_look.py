"""Looks at whether one site is as `init` promises, and keeps account of when it was not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from psycopg import AsyncConnection

from ftstream.compare import gaps
from ftstream.compare.gaps import Gap
from ftstream.flows import LogCapture, Site
from ftstream.postgres.connection import SESSION, open_site
from ftstream.postgres.queries import Queries, statement
from ftstream.settings import Settings
from ftstream.setup.expectations import TriggerKind, Wanted
from ftstream.setup.faults import Fault, site_faults
from ftstream.setup.site_state import read_catalogs

_QUERIES = Queries.load(__package__, "site_look.sql")

_TRIGGERS = [kind.value for kind in TriggerKind if kind is not TriggerKind.ROW_BY_ROW]
"""Those without which something that is written is lost."""

CHANGED_BACK = "its triggers or publication were changed, and changed back"


@dataclass(frozen=True, slots=True)
class SiteLook:
    """What one look at a site has found; `unnoted`: tables that were changed and changed back unseen."""

    site: Site
    faults: tuple[Fault, ...] = ()
    gaps: tuple[Gap, ...] = ()
    unnoted: tuple[str, ...] = ()


@dataclass(slots=True)
class Account:
    """What there is to note: tables that are well, gaps that have begun, and such as are over already."""

    well: dict[str, str] = field(default_factory=dict)
    begun: dict[str, str] = field(default_factory=dict)
    over: list[str] = field(default_factory=list)


def account(
    fingerprints: Mapping[str, str],
    seen: Mapping[str, str],
    lasting: Collection[str],
    faults: Iterable[Fault],
    certain: Collection[Fault],
) -> Account:
    """Judge each watched table by what it is made of now, and by what was seen of it before.

    `lasting`: tables with a gap that is not over. Only of a fault that is `certain` a gap begins: a
    single look may come amid somebody's change. A table that was never well has no gap: it is
    unreconciled.
    """
    found = Account()
    broken = {table: fault for fault in faults for table in fault.tables}
    for table, fingerprint in fingerprints.items():
        fault, before = broken.get(table), seen.get(table)
        if fault is None:
            if before and before != fingerprint and table not in lasting:
                found.over.append(table)
            found.well[table] = fingerprint
        elif fault in certain and before and table not in lasting:
            found.begun[table] = fault.what
    # A table that is gone has no fingerprint.
    for table in (seen.keys() & broken.keys()) - fingerprints.keys() - set(lasting):
        if broken[table] in certain:
            found.begun[table] = broken[table].what
    return found


async def look(
    connection: AsyncConnection,
    wanted: Wanted,
    *,
    certain: Collection[Fault] | None = None,
    others: Collection[Fault] = (),
) -> SiteLook | None:
    """Look at a site; None while somebody sets it up. Raises psycopg.Error.

    With `certain` what was found is noted: see `account`. Without it, or by a role that may not,
    nothing is. `others` were found elsewhere, and have the site's writes lost.
    """
    async with connection.transaction():
        await connection.execute(statement(SESSION["safe_names"]))
        await connection.execute(statement(_QUERIES["patience"]))
        if await _yes(connection, "turns") and not await _yes(connection, "quiet"):
            return None
        faults = await _faults(connection, wanted)
        if not await _yes(connection, "kept"):
            return SiteLook(wanted.site, faults)
        every = (*faults, *others)
        unnoted: tuple[str, ...] = ()
        if certain is not None and await _yes(connection, "noted"):
            await connection.execute(statement(_QUERIES["in_turn"]))
            await _note(connection, wanted, await _account(connection, wanted, every, certain))
        else:
            found = await _account(connection, wanted, every, every)
            unnoted = (*found.begun, *found.over)
        return SiteLook(wanted.site, faults, tuple(await gaps.gaps(connection)), unnoted)


async def note_before(connection: AsyncConnection, wanted: Wanted) -> None:
    """Note what is broken, before a transaction sets the site up. Raises psycopg.Error."""
    if await _yes(connection, "noted"):
        faults = await _faults(connection, wanted)
        await connection.execute(statement(_QUERIES["in_turn"]))
        await _begin(connection, wanted, await _account(connection, wanted, faults, faults))


async def note_after(connection: AsyncConnection, wanted: Wanted) -> None:
    """Note what is well by now; what differs this transaction has done: no gap. Raises psycopg.Error."""
    if await _yes(connection, "noted"):
        faults = await _faults(connection, wanted)
        made_of = await _fingerprints(connection, wanted)
        # The next look closes gaps: whatever began before this transaction's end has a lower id than that.
        await gaps.see(connection, account(made_of, {}, (), faults, ()).well)


async def note_slot_lost(settings: Settings, capture: LogCapture) -> None:
    """Note a gap that is over of all that a slot which was made again was for. Raises psycopg.Error."""
    async with (
        await open_site(settings, Site.EXTERNAL) as connection,
        connection.transaction(),
    ):
        if await _yes(connection, "noted"):
            for flow in capture.flows:
                for table in flow.tables:
                    reason = "its replication slot was made again"
                    await gaps.note(connection, flow.name, table.qualified, reason, over=True)


async def _faults(connection: AsyncConnection, wanted: Wanted) -> tuple[Fault, ...]:
    return tuple(site_faults(wanted, await read_catalogs(connection, wanted)))


async def _account(
    connection: AsyncConnection,
    wanted: Wanted,
    faults: Collection[Fault],
    certain: Collection[Fault],
) -> Account:
    lasting = {gap.table for gap in await gaps.gaps(connection) if gap.until is None}
    before = await gaps.seen(connection)
    watched = wanted.watched()
    known = {table: each for table, each in before.items() if table in watched}
    return account(await _fingerprints(connection, wanted), known, lasting, faults, certain)


async def _note(connection: AsyncConnection, wanted: Wanted, found: Account) -> None:
    await _begin(connection, wanted, found)
    await gaps.see(connection, found.well)
    await gaps.close(connection, found.well)


async def _begin(connection: AsyncConnection, wanted: Wanted, found: Account) -> None:
    flows = wanted.watched()
    for table, reason in found.begun.items():
        await gaps.note(connection, flows[table], table, reason, over=False)
    for table in found.over:
        await gaps.note(connection, flows[table], table, CHANGED_BACK, over=True)


async def _fingerprints(connection: AsyncConnection, wanted: Wanted) -> dict[str, str]:
    """What each watched table's capture is made of: of an outbox, of the outbox too."""
    shared = ["ftstream.last_write", "ftstream.outbox"]
    values = {
        "tables": [*wanted.watched(), *shared],
        "triggers": _TRIGGERS,
        "publications": [wanted.names(capture).publication for capture in wanted.captures],
    }
    cursor = await connection.execute(statement(_QUERIES["fingerprints"]), values)
    found: dict[str, str] = dict(await cursor.fetchall())
    outbox = " ".join(found.pop(name, "") for name in shared)
    by_outbox = {table.qualified for flow in wanted.outbox_flows for table in flow.tables}
    return {
        table: f"{made_of} {outbox}" if table in by_outbox else made_of
        for table, made_of in found.items()
    }


async def _yes(connection: AsyncConnection, query: str) -> bool:
    row = await (await connection.execute(statement(_QUERIES[query]))).fetchone()
    return bool(row and row[0])
