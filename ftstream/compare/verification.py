"""Verification: compares a flow's tables on both sites while changes go on, and tells what differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from psycopg import AsyncConnection

from ftstream.capture import batch
from ftstream.compare import gaps, reconciliation
from ftstream.compare.comparison import (
    Difference,
    DifferenceKind,
    differing_columns,
    differing_rows,
)
from ftstream.compare.digests import Digests, compare_ranges, snapshot
from ftstream.compare.progress import FlowProgress, NotCaughtUp, watch
from ftstream.compare.repair import open_repairs
from ftstream.flows import Capture, Flow, Names, Site, Table
from ftstream.postgres.catalog import carried, read_columns
from ftstream.postgres.connection import open_site
from ftstream.settings import Settings

SETTLE_ROWS = 20_000
"""Rows that differ and are looked at again together."""

SETTLE_ROUNDS = 30
"""A row that has changed each time it was looked at, this often, is given up as unsettled."""

PARKED_SECONDS = 3.0
"""A row that somebody holds for a moment is parked for a moment; one that stays so differs."""

Say = Callable[[str], None]


@dataclass(slots=True)
class TableVerdict:
    """What the comparison of one table came to; `listed` holds the first differences only."""

    flow: Flow
    table: Table
    rows: int = 0
    counts: Counter[DifferenceKind] = field(default_factory=Counter)
    listed: list[Difference] = field(default_factory=list)
    only_at: dict[Site, tuple[str, ...]] = field(default_factory=dict)
    """Columns that one site has alone: they are not compared."""

    @property
    def equal(self) -> bool:
        return not self.counts.total()


Found = Callable[[Table, Collection[str]], Awaitable[None]]


class Verification:
    """Compares the tables of one flow; made by `verification`."""

    def __init__(
        self,
        flow: Flow,
        source: AsyncConnection,
        target: AsyncConnection,
        progress: FlowProgress,
        timeout: float,
    ) -> None:
        self._flow = flow
        self._source, self._target = source, target
        self._progress = progress
        self._timeout = timeout

    async def compare(
        self, table: Table, limit: int, say: Say = lambda _: None, found: Found | None = None
    ) -> TableVerdict:
        """Compare one table; `found` is told every row that differs, the verdict lists `limit`.

        Raises NotCaughtUp when rows differ and cannot be told from rows in flight; TableMissing.
        """
        verdict, source, target = await self._open(table)
        closing = [
            (each, await gaps.settled(each, [table])) for each in (self._source, self._target)
        ]
        say(f"{table.name}: digests")
        async with snapshot(self._source), snapshot(self._target):
            ranges = await compare_ranges(source, target)
        verdict.rows = ranges.rows
        candidates: set[str] = set()
        for position, number in enumerate(ranges.unequal, 1):
            say(f"{table.name}: range {position} of {len(ranges.unequal)} that differ")
            candidates |= (await ranges.differing(number)).keys()
            if len(candidates) >= SETTLE_ROWS or (candidates and number == ranges.unequal[-1]):
                say(f"{table.name}: looking again at {len(candidates)} rows that differ")
                await self._conclude(verdict, source, target, candidates, limit, found)
                candidates = set()
        if verdict.equal:
            for connection, closed in closing:
                await gaps.compared(connection, closed)
        return verdict

    async def _open(self, table: Table) -> tuple[TableVerdict, Digests, Digests]:
        at_source = await read_columns(self._source, table)
        at_target = await read_columns(self._target, table)
        pairs = carried(at_source, at_target)
        compared = {column.name for column, _ in pairs}
        site = self._flow.targets[0]
        names = {site.other: [c.name for c in at_source], site: [c.name for c in at_target]}
        # One that both generate is on both, though it is not compared.
        alone = {
            at: tuple(n for n in names[at] if n not in compared and n not in names[at.other])
            for at in names
        }
        verdict = TableVerdict(
            self._flow, table, only_at={at: names for at, names in alone.items() if names}
        )
        return verdict, Digests(self._source, table, pairs), Digests(self._target, table, pairs)

    async def _conclude(
        self,
        verdict: TableVerdict,
        source: Digests,
        target: Digests,
        candidates: Collection[str],
        limit: int,
        found: Found | None,
    ) -> None:
        """Take what still differs once everything is applied into the verdict."""
        kinds = await self._settle(verdict.table, source, target, candidates)
        verdict.counts.update(kinds.values())
        if found is not None and kinds:
            await found(verdict.table, kinds)
        listed = sorted(kinds)[: max(0, limit - len(verdict.listed))]
        verdict.listed += await _described(source, target, {i: kinds[i] for i in listed})

    async def _settle(
        self, table: Table, source: Digests, target: Digests, candidates: Collection[str]
    ) -> dict[str, DifferenceKind]:
        """Return which of these rows differ, none of them in flight.

        A row counts if both sites held the same in two looks, everything having been applied between.
        """
        found: dict[str, DifferenceKind] = {}
        waiting = set(candidates)
        seen: dict[str, tuple[int | None, int | None]] = {}
        for _ in range(SETTLE_ROUNDS):
            before = await source.rows(waiting)
            await self._catch_up(table, len(waiting))
            there = await target.rows(waiting)
            after = await source.rows(waiting)
            # A row that the target holds as the source had it is in step, however fast it moves.
            odd = {i for i in waiting if there.get(i) not in (before.get(i), after.get(i))}
            looks = {i: (after.get(i), there.get(i)) for i in odd}
            # Twice, lest it be one that has moved and come back, or that is on its way to the source.
            sure = {i for i in odd if before.get(i) == after.get(i) and looks[i] == seen.get(i)}
            found |= differing_rows(_only(before, sure), _only(there, sure))
            seen = looks
            waiting = odd - sure
            if not waiting:
                return found
        return found | dict.fromkeys(waiting, DifferenceKind.UNSETTLED)

    async def _catch_up(self, table: Table, rows: int) -> None:
        try:
            await self._progress.wait(self._timeout, patience=PARKED_SECONDS)
        except NotCaughtUp as error:
            raise NotCaughtUp(
                f"{table.name}: {rows} rows differ, and may be in flight: {error}"
            ) from error


def _only(digests: Mapping[str, int], ids: Collection[str]) -> dict[str, int]:
    return {i: digest for i, digest in digests.items() if i in ids}


async def _described(
    source: Digests, target: Digests, kinds: Mapping[str, DifferenceKind]
) -> list[Difference]:
    """The differences with the columns in which they are."""
    ours, theirs = await source.column_digests(kinds), await target.column_digests(kinds)
    return [
        Difference(
            i,
            kind,
            differing_columns(source.columns, ours[i], theirs[i])
            if i in ours and i in theirs
            else (),
        )
        for i, kind in kinds.items()
    ]


@asynccontextmanager
async def verification(
    flow: Flow, settings: Settings, timeout: float = 60.0
) -> AsyncIterator[Verification]:
    """Open what comparing a flow takes; `timeout`: seconds that applying may take.

    Raises psycopg.OperationalError, KafkaUnreachable, TopicMissing.
    """
    site = flow.targets[0]
    async with watch(flow, settings) as progress:
        source = await open_site(settings, site.other)
        target = await open_site(settings, site)
        async with source, target:
            yield Verification(flow, source, target, progress, timeout)


async def verify(
    flow: Flow,
    settings: Settings,
    *,
    tables: Sequence[Table] | None = None,
    limit: int = 20,
    timeout: float = 60.0,
    say: Say = lambda _: None,
    found: Found | None = None,
) -> list[TableVerdict]:
    """Compare these tables of a flow, or all of them."""
    async with verification(flow, settings, timeout) as opened:
        return [await opened.compare(table, limit, say, found) for table in tables or flow.tables]


async def repair(
    flow: Flow,
    settings: Settings,
    *,
    tables: Sequence[Table] | None = None,
    timeout: float = 60.0,
    say: Say = lambda _: None,
) -> int:
    """Bring every row that differs in step, through the flow's own agent, and return how many.

    Rows that the owner does not have are removed; where there is no owner the last write stays. Raises
    like `verify`, and KafkaError; of a flow captured by batch, like `batch.run`.
    """
    if flow.capture is Capture.OUTBOX:
        return await reconciliation.repair(flow, settings, tables or flow.tables, say)
    if flow.capture is Capture.BATCH:
        runs = await batch.run(flow, settings, tables or flow.tables, patience=timeout)
        return sum(run.published for run in runs)
    requested = 0
    names, target = Names(flow, settings.namespace), flow.targets[0]
    async with open_repairs(settings.kafka, names, target) as repairs:

        async def request(table: Table, ids: Collection[str]) -> None:
            nonlocal requested
            await repairs.request(table, ids)
            requested += len(ids)

        await verify(
            flow, settings, tables=tables, limit=0, timeout=timeout, say=say, found=request
        )
    return requested
