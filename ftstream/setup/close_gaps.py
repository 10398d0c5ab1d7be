"""Closes gaps: compares both sites, and brings in step what was written while nobody captured it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from psycopg import AsyncConnection

from ftstream.compare import gaps, reconciliation
from ftstream.compare.bounds import too_many
from ftstream.compare.comparison import DifferenceKind
from ftstream.compare.gaps import Gap
from ftstream.compare.reconciliation import Undecided
from ftstream.compare.verification import TableVerdict, repair, verify
from ftstream.flows import FLOWS, Capture, Flow, Site, Table
from ftstream.postgres.connection import open_site
from ftstream.postgres.queries import Queries, statement
from ftstream.settings import Settings

_QUERIES = Queries.load(__package__, "site_look.sql")


@dataclass(frozen=True, slots=True)
class LeftOpen:
    """A gap that does not close now, why, and what to do."""

    gap: Gap
    reason: str
    command: str


@dataclass(frozen=True, slots=True)
class Closed:
    """A gap that is no more, and how many rows were brought in step.

    `kept` were overwritten meanwhile by the other site, before anybody had told of them.
    """

    gap: Gap
    rows: int
    kept: int


async def close_gaps(
    settings: Settings, found: Iterable[tuple[Site, Gap]]
) -> AsyncIterator[Closed | LeftOpen]:
    """Close those that are settled, unless somebody else does."""
    flows = {flow.name: flow for flow in FLOWS}
    for site, gap in found:
        if gap.settled and gap.flow in flows:
            flow = flows[gap.flow]
            try:
                closed = await _close(settings, flow, site, gap)
            except Exception as error:  # noqa: BLE001  # whatever it is, the gap stays, and is told
                reason = " ".join(str(error).split()) or repr(error)
                yield LeftOpen(gap, reason, command_for(flow, gap))
                continue
            if closed is not None:
                yield closed


def command_for(flow: Flow, gap: Gap) -> str:
    """Return what a person runs, where it does not close by itself."""
    if flow.two_way:
        return f"ftstream reconcile {flow.name}"
    return f"ftstream verify {flow.name} --table {gap.table.partition('.')[2]} --repair"


async def _close(settings: Settings, flow: Flow, site: Site, gap: Gap) -> Closed | None:
    """Compare and repair, one worker at a time; None if there is nothing to do."""
    table = next((each for each in flow.tables if each.qualified == gap.table), None)
    async with await open_site(settings, site) as connection, connection.transaction():
        await connection.execute(statement(_QUERIES["patient"]))
        if table is None or not await _alone(connection, gap):
            return None
        kept = await gaps.kept(connection, gap)
        if flow.capture is Capture.OUTBOX:
            bounds = settings.batch
            rows = await reconciliation.repair(flow, settings, [table], bounds=bounds)
        else:
            rows = await _repair(settings, flow, table)
        return Closed(gap, rows, kept)


async def _repair(settings: Settings, flow: Flow, table: Table) -> int:
    (before,) = await verify(flow, settings, tables=[table], limit=0)
    if before.equal:
        return 0
    if many := too_many(before.counts[DifferenceKind.EXTRA], _held(before), settings.batch):
        raise Undecided(f"{table.name}: {many}")
    rows = await repair(flow, settings, tables=[table])
    (after,) = await verify(flow, settings, tables=[table], limit=0)
    if not after.equal:
        raise Undecided(f"{after.counts.total()} rows of {table.name} still differ")
    return rows


def _held(verdict: TableVerdict) -> int:
    """Rows of the target, of which some may go."""
    counts = verdict.counts
    return verdict.rows + counts[DifferenceKind.EXTRA] - counts[DifferenceKind.MISSING]


async def _alone(connection: AsyncConnection, gap: Gap) -> bool:
    """Say whether nobody else closes it, and it is still there."""
    row = await (await connection.execute(statement(_QUERIES["closing"]))).fetchone()
    return bool(row and row[0]) and gap.id in {each.id for each in await gaps.gaps(connection)}
