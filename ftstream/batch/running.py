"""A run, from whose turn it is to what came of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import psycopg
from psycopg import AsyncConnection

from ftstream.adapters.kafka.kept_schemas import kept_schemas
from ftstream.adapters.kafka.publishing import Publishing
from ftstream.adapters.postgres.batch import Basis, Schedule, Turn, TurnLost, read_basis, turn
from ftstream.adapters.postgres.compare import snapshot
from ftstream.adapters.postgres.connection import open_connection
from ftstream.batch.table import BatchTable, Connections, Say, Sending, Step
from ftstream.core.batch import MOST_NAMED, TableRun
from ftstream.core.comparison import Kind
from ftstream.drift import Drift, drifts
from ftstream.flows import Flow, Table
from ftstream.progress import watch
from ftstream.settings import Settings

log = logging.getLogger(__name__)

PUBLISH_SECONDS = 10.0
"""In which Kafka takes what is sent, or it is sent again."""

NOTE_SECONDS = 5.0

UNAPPLIED_SECONDS = 60.0
"""For which a run waits, without any progress, until what the run before published is applied."""


class RunStopped(Exception):
    """A run that has not gone through; `results` are as far as it came."""

    def __init__(self, message: str, results: Sequence[TableRun] = ()) -> None:
        super().__init__(message)
        self.results = tuple(results)


class RunHalted(RunStopped):
    """A run that does not go on by itself; nothing of it was published. The message says what to do."""


class RowsRefused(RunStopped):
    """Some rows cannot travel; all others are published."""


class RunUnderWay(Exception):
    """Another worker's turn."""


async def run(
    flow: Flow,
    settings: Settings,
    tables: Sequence[Table] | None = None,
    *,
    allow_deletes: bool = False,
    patience: float = 0.0,
    say: Say = lambda _: None,
) -> list[TableRun]:
    """Publish what differs in these tables, or in those that are due, and return once Kafka has it all.

    `allow_deletes`: however many, and whichever server External is; `patience`: seconds for which another
    run is waited for. What comes of it is in sync_status.
    Raises RunUnderWay, RunHalted, RowsRefused, TurnLost, NotCaughtUp, KafkaError, psycopg.Error,
    SchemaFileError, TableMissing, KeyMissing.
    """
    async with AsyncExitStack() as stack:
        ledger, holding = [
            await stack.enter_async_context(await open_connection(settings.supabase.conninfo()))
            for _ in range(2)
        ]
        schedule = Schedule(flow, settings.namespace, ledger)
        this = _Run(flow, settings, say)
        try:
            async with turn(holding, flow, patience) as mine:
                if mine is None:
                    raise RunUnderWay(f"a run of flow {flow.name} is under way elsewhere")
                this.begin(await schedule.due() if tables is None else tables)
                if not this.results:
                    return []
                await schedule.begun(this.results)
                async with mine.kept(), _opened(settings, ledger) as at:
                    basis = await this.carry_out(at, schedule, mine, allow_deletes)
                done = [result for result in this.results if not result.refused]
                await Schedule(flow, settings.namespace, holding).done(done, basis)
            if refused := [result for result in this.results if result.refused]:
                await schedule.failed(refused, _refusals(refused))
                raise RowsRefused(_refusals(refused), this.results)
        except (RunUnderWay, RowsRefused, TurnLost):
            raise  # what came of it is noted, or another's to note
        except asyncio.CancelledError:
            await _note(schedule.interrupted(this.results))
            raise
        except Exception as error:
            await _note(schedule.failed(this.results, str(error) or repr(error)))
            raise
        return this.results


async def look(
    flow: Flow, settings: Settings, tables: Sequence[Table], say: Say = lambda _: None
) -> tuple[list[TableRun], list[str]]:
    """What a run would find in these tables, and what would keep it from publishing it.

    Raises like `run`.
    """
    async with (
        await open_connection(settings.supabase.conninfo()) as ledger,
        _opened(settings, ledger) as at,
    ):
        this = _Run(flow, settings, say)
        this.begin(tables)
        await this.prepare(at)
        async with snapshot(at.source), snapshot(at.target):
            basis = await read_basis(at.source, at.target)
            last = await Schedule(flow, settings.namespace, ledger).known_bases()
            await this.find(at, {table: b for table, b in last.items() if b.same_history(basis)})
        return this.results, this.doubts(basis, last)


async def check(flow: Flow, settings: Settings) -> None:
    """Whether External's tables are as their kept schemas are. Raises RunHalted, and like `run`."""
    async with await open_connection(settings.external.conninfo()) as external:
        _require_kept(await drifts(external, flow, kept_schemas(flow, settings)))


class _Run:
    """A run of some tables; `results` are as far as it is."""

    def __init__(self, flow: Flow, settings: Settings, say: Say) -> None:
        self._flow = flow
        self._settings = settings
        self._say = say
        self._tables: list[BatchTable] = []
        self.results: list[TableRun] = []

    def begin(self, tables: Sequence[Table]) -> None:
        """These are to be run."""
        self.results = [TableRun(table.name, self._flow.entity_type(table)) for table in tables]

    async def carry_out(
        self, at: Connections, schedule: Schedule, mine: Turn, allow_deletes: bool
    ) -> Basis:
        """Find and publish; what was read."""
        await self.prepare(at)
        await self._until_applied()
        last = await schedule.known_bases()
        async with snapshot(at.source), snapshot(at.target):
            basis = await read_basis(at.source, at.target)
            comparable = {table: b for table, b in last.items() if b.same_history(basis)}
            await self.find(at, comparable)
            if not allow_deletes and (doubts := self.doubts(basis, last)):
                raise RunHalted(_halting(doubts), self.results)
            await self._publish(at, basis, comparable, mine)
        return basis

    async def prepare(self, at: Connections) -> None:
        """Read catalogs and schemas. Raises RunHalted where they do not agree."""
        names = {result.table for result in self.results}
        kept = kept_schemas(self._flow, self._settings)
        tables = [table for table in self._flow.tables if table.name in names]
        found = await drifts(at.source_now, self._flow, kept, tables)
        _require_kept(found)
        namespace = self._settings.namespace
        self._tables = [BatchTable(self._flow, each, namespace) for each in found]
        self.results = [each.run for each in self._tables]

    def doubts(self, basis: Basis, last: Mapping[str, Basis]) -> list[str]:
        """What a person is to decide before this is published."""
        bounds = self._settings.batch
        known = [last[result.table] for result in self.results if result.table in last]
        others = [each for each in known if not each.same_history(basis)]
        excess = (r.excess(bounds.most_deletes, bounds.most_deleted_percent) for r in self.results)
        another = [_another(basis, others[0], self.results)] if others else []
        return [*another, *filter(None, excess)]

    async def find(self, at: Connections, last: Mapping[str, Basis]) -> None:
        """Compare the tables. In both sites' snapshots."""
        for each in self._tables:
            began = time.monotonic()
            self._say(Step(each.table.name))
            await each.compare(at, last.get(each.table.name))
            each.run.seconds += time.monotonic() - began

    async def _until_applied(self) -> None:
        """What an earlier run has published is not to be found, and published, again."""
        async with watch(self._flow, self._settings) as progress:
            await progress.wait(UNAPPLIED_SECONDS, patience=0)

    async def _publish(
        self, at: Connections, basis: Basis, last: Mapping[str, Basis], mine: Turn
    ) -> None:
        publishing = Publishing(self._settings.kafka, PUBLISH_SECONDS)
        try:
            for each in self._tables:
                began = time.monotonic()
                sending = Sending(each, basis.read_at, publishing, mine, self._say)
                async for kinds in each.differing(at):
                    await each.keep_edits(at, last.get(each.table.name), kinds)
                    await each.send_rows(at, sending, kinds)
                    await each.send_deletes(at, sending, kinds)
                await sending.flush()
                each.run.seconds += time.monotonic() - began
        finally:
            await publishing.close()


@asynccontextmanager
async def _opened(settings: Settings, ledger: AsyncConnection) -> AsyncIterator[Connections]:
    async with AsyncExitStack() as stack:
        source, source_now, target = [
            await stack.enter_async_context(await open_connection(database.conninfo()))
            for database in (settings.external, settings.external, settings.supabase)
        ]
        yield Connections(source, source_now, target, ledger)


def _halting(doubts: Sequence[str]) -> str:
    return (
        f"{'; '.join(doubts)}. Nothing was published. See which rows differ: ftstream verify wsop."
        " If it is right: ftstream batch run --allow-deletes"
    )


def _another(now: Basis, last: Basis, results: Sequence[TableRun]) -> str:
    """How External is not the one that the last run read, and what differs."""
    kinds = sum((result.kinds for result in results), Counter())
    if now.system != last.system:
        what = f"is another server ({now.system}) than the last run read ({last.system})"
    else:
        what = f"is on timeline {now.timeline}, and was on {last.timeline} when it ran last"
    return (
        f"External {what}: has it failed over, or been restored? Rows may be missing there:"
        f" {kinds[Kind.MISSING]:,} new, {kinds[Kind.DIFFERENT]:,} changed, {kinds[Kind.EXTRA]:,} gone"
    )


def _refusals(results: Sequence[TableRun]) -> str:
    rows = sum(result.refused for result in results)
    told = [reason for result in results for reason in result.reasons][:MOST_NAMED]
    more = f", and {rows - len(told):,} more" if rows > len(told) else ""
    return f"{rows:,} rows cannot travel, all others do: {'; '.join(told)}{more}"


def _require_kept(found: Sequence[Drift]) -> None:
    """Raises RunHalted where a table's rows cannot be written with the schema that is kept for it."""
    broken: list[str] = []
    for drift in found:
        name = drift.table.name
        if drift.kept is None:
            broken.append(f"{name}: no schema is kept")
            continue
        broken += [f"{name}: {each}" for each in drift.breaks]
        # Compatible, for a reader; but a writer could only put NULL there.
        broken += [f"{name}: {d}" for d in drift.differences if d.compatible and d.now is None]
    if broken:
        raise RunHalted(
            f"External's tables are not as their schemas are: {'; '.join(broken)}. Nothing was published."
            " See `ftstream schemas diff`; to take them as they are: `ftstream schemas accept`"
        )


async def _note(noting: Awaitable[None]) -> None:
    """What came of a run, if the database takes it: it may be why the run has failed."""
    try:
        async with asyncio.timeout(NOTE_SECONDS):
            await noting
    except (psycopg.Error, TimeoutError) as error:
        log.warning("what came of a run cannot be noted: %s", " ".join(str(error).split()))
