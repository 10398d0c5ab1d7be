"""Brings two filled databases together, or back together: each row's last write goes to the other site."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import permutations

from psycopg import AsyncConnection

from ftstream.apply.sites import open_both
from ftstream.compare import gaps
from ftstream.compare.bounds import too_many
from ftstream.compare.decision import Clash, Decision, clashes, decide
from ftstream.compare.digests import Digests, compare_ranges, snapshot
from ftstream.compare.gaps import Gap
from ftstream.compare.reconcile import Holding
from ftstream.flows import Flow, Site, Table
from ftstream.last_write.reconciled import mark, unreconciled
from ftstream.last_write.tombstones import horizon
from ftstream.messages.change import Stamp
from ftstream.postgres.catalog import carried, read_columns, read_unique_keys
from ftstream.settings import BatchSettings, Settings

LOOK_ROWS = 5_000
"""Rows that are looked at together on both sites."""

Say = Callable[[str], None]


class Undecided(Exception):
    """Something is for a person to decide first; the message says what."""


@dataclass(slots=True)
class TablePlan:
    """What reconciling one table would do."""

    table: Table
    decisions: dict[str, Decision] = field(default_factory=dict)
    clashes: list[Clash] = field(default_factory=list)
    doubles: dict[str, str] = field(default_factory=dict)
    """Rows that go, to those that stay in their place."""
    rows: int = 0
    gaps: dict[Site, list[Gap]] = field(default_factory=dict)
    """Those that carrying it out closes."""
    horizon: int = 0
    """Up to which version a site refuses writes of entities that it does not know."""

    def wins(self) -> Counter[tuple[str, bool]]:
        """Say how many rows stay, by site and whether only that site has them."""
        return Counter((each.winner, each.alone) for each in self.decisions.values())


class Reconciliation:
    """Of one flow captured by outbox; made by `reconciliation`. Every method may raise psycopg.Error."""

    def __init__(
        self, flow: Flow, connections: Mapping[Site, AsyncConnection], prefer: Site | None
    ) -> None:
        self._flow = flow
        self._connections = connections
        self._prefer = prefer

    async def plan(
        self,
        table: Table,
        doubles: Mapping[str, str],
        say: Say = lambda _: None,
    ) -> TablePlan:
        """Compare the table, rows and last writes, and decide what differs.

        `doubles` go for those that stay. Raises TableMissing, Undecided.
        """
        plan = TablePlan(table)
        gap = await self._find_gaps(plan)
        horizons = [await horizon(each, table) for each in self._connections.values()]
        plan.horizon = max(horizons)
        digests, holdings = await self._open(table)
        say(f"{table.name}: digests")
        at_source, at_target = self._connections.values()
        async with snapshot(at_source), snapshot(at_target):
            ranges = await compare_ranges(*digests)
            plan.rows = max(ranges.rows, ranges.held)
        for position, number in enumerate(ranges.unequal, 1):
            say(f"{table.name}: range {position} of {len(ranges.unequal)} that differ")
            await self._decide(plan, holdings, [*await ranges.differing(number)], gap)
        say(f"{table.name}: last writes")
        await self._decide(plan, holdings, await _unequal_ledgers(*holdings))
        await self._take_doubles(plan, holdings, doubles)
        await self._find_clashes(plan, holdings)
        return plan

    async def carry_out(self, plan: TablePlan, say: Say = lambda _: None) -> int:
        """Hand over the rows that stay, and keep copies of those that do not; how many rows.

        Each write is decided on by itself at the other site, so that users and workers may go on. Run
        again, it finds what is left. Raises Undecided.
        """
        _, holdings = await self._open(plan.table)
        for holding in holdings:
            for goes, stays in plan.doubles.items():
                if referring := await holding.give_up(goes, stays):
                    raise Undecided(_referred(plan.table, goes, stays, holding.site, referring))
        done = 0
        for winner, loser in permutations(holdings):
            staying = [d for d in plan.decisions.values() if d.winner == winner.site]
            say(f"{plan.table.name}: {len(staying)} rows of {winner.site}")
            await loser.keep([each.entity_id for each in staying])
            done += await winner.hand_over(staying)
        return done

    async def met(self, plan: TablePlan) -> None:
        """Note that each site knows of every row of the other: the flow may start, and gaps are closed."""
        for site in self._flow.sources:
            await mark(self._connections[site], [plan.table])
        for site, closed in plan.gaps.items():
            await gaps.compared(self._connections[site], closed)

    async def must_have_met(self) -> None:
        """Raises Undecided as long as there may be rows that the other site was never told of."""
        for site in self._flow.sources:
            if await unreconciled(self._connections[site], self._flow.tables):
                raise Undecided(f"run `ftstream reconcile {self._flow.name}` first")

    async def _open(self, table: Table) -> tuple[tuple[Digests, Digests], tuple[Holding, Holding]]:
        external, supabase = (self._connections[site] for site in (Site.EXTERNAL, Site.SUPABASE))
        pairs = carried(await read_columns(external, table), await read_columns(supabase, table))
        both = [column for column, _ in pairs]
        return (
            (Digests(external, table, pairs), Digests(supabase, table, pairs)),
            (
                Holding(external, Site.EXTERNAL, table, both),
                Holding(supabase, Site.SUPABASE, table, both),
            ),
        )

    async def _find_gaps(self, plan: TablePlan) -> Site | None:
        """Return the site of which writes may not have been captured."""
        for site, connection in self._connections.items():
            found = [g for g in await gaps.gaps(connection) if g.table == plan.table.qualified]
            plan.gaps[site] = [gap for gap in found if gap.settled]
            if self._flow.owner is None and len(found) > len(plan.gaps[site]):
                raise Undecided(
                    f"{plan.table.name}: writes of {site} may go missing still: see `ftstream status`"
                )
        having = [site for site, found in plan.gaps.items() if found]
        if len(having) > 1 and self._flow.owner is None and self._prefer is None:
            raise Undecided(
                f"{plan.table.name}: writes of both sites were not captured: decide by"
                f" `ftstream reconcile {self._flow.name} --prefer SITE`"
            )
        return having[0] if len(having) == 1 else self._prefer if having else None

    async def _decide(
        self,
        plan: TablePlan,
        holdings: Sequence[Holding],
        ids: Sequence[str],
        gap: Site | None = None,
    ) -> None:
        flow, prefer = self._flow, self._prefer
        due = [i for i in ids if i not in plan.decisions]
        for start in range(0, len(due), LOOK_ROWS):
            some = due[start : start + LOOK_ROWS]
            looks = await asyncio.gather(*(holding.held(some) for holding in holdings))
            for i in some:
                held = {h.site.value: look[i] for h, look in zip(holdings, looks, strict=True)}
                decision = decide(
                    i, held, owner=flow.owner, prefer=prefer, horizon=plan.horizon, gap=gap
                )
                if decision is not None:
                    plan.decisions[i] = decision

    async def _take_doubles(
        self, plan: TablePlan, holdings: Sequence[Holding], doubles: Mapping[str, str]
    ) -> None:
        ids = {*doubles, *doubles.values()}
        looks = [await holding.held(ids) for holding in holdings]
        there = {i for i in ids if any(look[i].there for look in looks)}
        for goes, stays in doubles.items():
            if goes not in there:
                continue  # it has gone before
            if self._flow.owner is not None:
                raise Undecided(
                    f"{plan.table.name}: {self._flow.owner} owns its rows: delete {goes} there"
                )
            if stays not in there or stays in doubles:
                raise Undecided(
                    f"{plan.table.name} {stays} is on no site, or goes too: {goes} stays"
                )
            plan.doubles[goes] = stays
            plan.decisions.pop(goes, None)

    async def _find_clashes(self, plan: TablePlan, holdings: Sequence[Holding]) -> None:
        """Only rows that differ can have a value that another one has on the other site."""
        staying: dict[str, list[str]] = {}
        for decision in plan.decisions.values():
            staying.setdefault(decision.winner, []).append(decision.entity_id)
        for columns in await read_unique_keys(self._connections[self._flow.targets[0]], plan.table):
            values: dict[str, Mapping[str, str]] = {
                holding.site: await holding.unique_values(columns, staying.get(holding.site, []))
                for holding in holdings
            }
            plan.clashes += clashes(columns, values)


@asynccontextmanager
async def reconciliation(
    flow: Flow, settings: Settings, prefer: Site | None = None
) -> AsyncIterator[Reconciliation]:
    """Open what reconciling a flow takes. Raises psycopg.OperationalError."""
    async with open_both(settings) as connections:
        yield Reconciliation(flow, connections, prefer)


async def repair(
    flow: Flow,
    settings: Settings,
    tables: Collection[Table],
    say: Say = lambda _: None,
    *,
    bounds: BatchSettings | None = None,
) -> int:
    """Have each site tell the other one of what differs; how many rows.

    Raises Undecided: with `bounds` if more rows would be deleted than a run of a flow captured by batch may.
    """
    async with reconciliation(flow, settings) as opened:
        await opened.must_have_met()
        plans = [await opened.plan(table, {}, say) for table in tables]
        for plan in plans if bounds else ():
            deletes = sum(decision.deletes for decision in plan.decisions.values())
            if bounds and (many := too_many(deletes, plan.rows, bounds)):
                raise Undecided(f"{plan.table.name}: {many}")
        if clashing := [plan.table.name for plan in plans if plan.clashes]:
            names = ", ".join(clashing)
            raise Undecided(f"rows of {names} share a value: see `ftstream reconcile {flow.name}`")
        done = sum([await opened.carry_out(plan, say) for plan in plans])
        for plan in plans:
            await opened.met(plan)
        return done


async def _unequal_ledgers(ours: Holding, theirs: Holding) -> list[str]:
    """The entities of which the sites know different last writes."""
    found: list[str] = []
    left, right = ours.ledger(), theirs.ledger()
    one, other = await _next(left), await _next(right)
    while one is not None or other is not None:
        if one == other:
            one, other = await _next(left), await _next(right)
        elif other is None or (one is not None and _comes(one) < _comes(other)):
            assert one is not None
            found.append(one[0])
            one = await _next(left)
        elif one is None or _comes(other) < _comes(one):
            found.append(other[0])
            other = await _next(right)
        else:
            found.append(one[0])
            one, other = await _next(left), await _next(right)
    return found


async def _next(ledger: AsyncIterator[tuple[str, Stamp]]) -> tuple[str, Stamp] | None:
    return await anext(ledger, None)


def _comes(entry: tuple[str, Stamp]) -> bytes:
    """As the "C" collation orders keys."""
    return entry[0].encode()


def _referred(
    table: Table, goes: str, stays: str, site: Site, referring: Sequence[tuple[str, int]]
) -> str:
    listed = ", ".join(f"{rows} of {child}" for child, rows in referring)
    return (
        f"{table.name} {goes} is referred to on {site} by {listed}: have them refer to {stays},"
        " or give them up, and run it again"
    )
