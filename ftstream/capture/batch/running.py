"""A run, from whose turn it is to what came of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import psycopg
from psycopg import AsyncConnection

from ftstream.capture.batch.drift import Drift, drifts
from ftstream.capture.batch.schedule import (
    Basis,
    ForeignKey,
    RunTurn,
    Schedule,
    TurnLost,
    read_basis,
    read_references,
    turn,
)
from ftstream.capture.batch.table import BatchTable, Connections, RunStep, Say, Sending
from ftstream.capture.batch.table_run import TableRun
from ftstream.compare.comparison import DifferenceKind
from ftstream.compare.digests import snapshot
from ftstream.compare.progress import watch
from ftstream.flows import Flow, Site, Table
from ftstream.kafka.publishing import Publishing
from ftstream.messages.kept_schemas import kept_schemas
from ftstream.postgres.catalog import KeyMissing, TableMissing
from ftstream.postgres.connection import open_site
from ftstream.postgres.errors import failure_of
from ftstream.settings import Settings

log = logging.getLogger(__name__)

PUBLISH_SECONDS = 10.0
"""In which Kafka takes what is sent, or it is sent again."""

NOTE_SECONDS = 5.0

_OF_A_TABLE = ("0A", "22", "42", "54", "XX", "40P01", "53200", "55P03", "57014")
"""How SQLSTATEs begin that are of a table: its columns, rights, values, pages, size, and who holds it.
Others are of the database. If its connection is lost, the next statement says so.
"""

UNAPPLIED_SECONDS = 60.0
"""For which a run waits, without any progress, until what the run before published is applied."""


class RunStopped(Exception):
    """A run that has not gone through; `results` are as far as it came."""

    def __init__(self, message: str, results: Sequence[TableRun] = ()) -> None:
        super().__init__(message)
        self.results = tuple(results)


class RunHalted(RunStopped):
    """Something of a run waits for a person; all else is published. The message says what to do."""


class RowsRefused(RunStopped):
    """Some rows cannot travel, or those of some tables; all others are published."""


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

    A table's trouble is its own: the others go on, and it is told at the end.
    `allow_deletes`: however many, and whichever server External is; `patience`: seconds for which another
    run is waited for. What comes of it is in sync_status.
    Raises RunUnderWay, RunHalted, RowsRefused, TurnLost, NotCaughtUp, KafkaError, psycopg.Error,
    SchemaFileError.
    """
    async with AsyncExitStack() as stack:
        ledger, holding = [
            await stack.enter_async_context(await open_site(settings, Site.SUPABASE))
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
                done = [result for result in this.results if not result.problem]
                held = Schedule(flow, settings.namespace, holding)
                await held.done(done, basis.read_at)
                await held.note_basis(this.published, basis)
            if troubled := [result for result in this.results if result.problem]:
                for result in troubled:
                    await schedule.failed([result], result.problem)
                raise stopped(this.results)
        except (RunUnderWay, RunHalted, RowsRefused, TurnLost):
            raise  # what came of it is noted, or another's to note
        except asyncio.CancelledError:
            await _note(schedule.interrupted(this.results))
            raise
        except Exception as error:
            await _note(schedule.failed(this.results, str(error) or repr(error)))
            raise
        return this.results


async def look(
    flow: Flow,
    settings: Settings,
    tables: Sequence[Table],
    say: Say = lambda _: None,
    *,
    allow_deletes: bool = False,
) -> list[TableRun]:
    """Return what a run would find in these tables; `problem` says what would keep it from publishing it.

    Raises like `run`.
    """
    async with (
        await open_site(settings, Site.SUPABASE) as ledger,
        _opened(settings, ledger) as at,
    ):
        this = _Run(flow, settings, say)
        this.begin(tables)
        await this.prepare(at)
        async with snapshot(at.source), snapshot(at.target):
            basis = await read_basis(at.source, at.target)
            last = await Schedule(flow, settings.namespace, ledger).known_bases()
            await this.find(at, {table: b for table, b in last.items() if b.same_history(basis)})
        if not allow_deletes:
            this.doubt(basis, last)
        return this.results


async def check(flow: Flow, settings: Settings) -> list[TableRun]:
    """Each table, with a `problem` if it is not as its kept schema is. Raises like `run`."""
    async with await open_site(settings, Site.EXTERNAL) as external:
        this = _Run(flow, settings, lambda _: None)
        this.begin(flow.tables)
        await this.read_schemas(external)
        return this.results


def stopped(results: Sequence[TableRun]) -> RunStopped:
    """Return what to raise for a run in which some tables have met trouble."""
    told = "; ".join(result.problem for result in results if result.problem)
    if any(result.doubt for result in results):
        return RunHalted(told, results)
    return RowsRefused(told, results)


class _Run:
    """A run of some tables; `results` are as far as it is."""

    def __init__(self, flow: Flow, settings: Settings, say: Say) -> None:
        self._flow = flow
        self._settings = settings
        self._say = say
        self._tables: list[BatchTable] = []
        self._references: list[ForeignKey] = []
        # Tables of which nothing is published.
        self._stopped: set[str] = set()
        self.results: list[TableRun] = []

    def begin(self, tables: Sequence[Table]) -> None:
        """These are to be run."""
        self.results = [TableRun(table.name, self._flow.entity_type(table)) for table in tables]

    @property
    def published(self) -> list[TableRun]:
        """Tables whose rows are published, if not all: some cannot travel, or deletes wait."""
        return [
            each.run
            for each in self._tables
            if not each.run.failure and each.run.table not in self._stopped
        ]

    async def carry_out(
        self, at: Connections, schedule: Schedule, mine: RunTurn, allow_deletes: bool
    ) -> Basis:
        """Find and publish; what was read."""
        await self.prepare(at)
        await self._until_applied()
        last = await schedule.known_bases()
        async with snapshot(at.source), snapshot(at.target):
            basis = await read_basis(at.source, at.target)
            comparable = {table: b for table, b in last.items() if b.same_history(basis)}
            await self.find(at, comparable)
            if not allow_deletes:
                self.doubt(basis, last)
            await self._publish(at, basis, comparable, mine)
        return basis

    async def prepare(self, at: Connections) -> None:
        """Read catalogs and schemas; a table where they do not agree is not run."""
        await self.read_schemas(at.source_now)
        self._references = await read_references(at.ledger, self._flow)

    async def read_schemas(self, external: AsyncConnection) -> None:
        """Read the schema of each table, as it is and as it is kept."""
        kept, namespace = kept_schemas(self._flow, self._settings), self._settings.namespace
        for number, result in enumerate(self.results):
            with _own_trouble(result):
                table = self._flow.table(result.table)
                (drift,) = await drifts(external, self._flow, kept, [table])
                if broken := _broken(drift):
                    result.doubt = _drifted(table, broken)
                else:
                    each = BatchTable(self._flow, drift, namespace)
                    self._tables.append(each)
                    self.results[number] = each.run

    def doubt(self, basis: Basis, last: Mapping[str, Basis]) -> None:
        """Find what a person is to decide before it is published."""
        bounds = self._settings.batch
        most = bounds.most_deletes, bounds.most_deleted_percent, bounds.least_deletes
        for each in self._tables:
            run, before = each.run, last.get(each.table.name)
            if run.problem:
                continue
            if before is not None and not before.same_history(basis):
                run.doubt, run.withheld = _another(basis, before, run), run.found
                self._stopped.add(run.table)
            elif excess := run.excess(*most):
                run.doubt, run.withheld = _too_many(excess, run), run.kinds[DifferenceKind.EXTRA]

    async def find(self, at: Connections, last: Mapping[str, Basis]) -> None:
        """Compare the tables. In both sites' snapshots."""
        for each in self._tables:
            began = time.monotonic()
            self._say(RunStep(each.table.name))
            async with _in_its_snapshot(at, each.run):
                await each.compare(at, last.get(each.table.name))
            each.run.seconds += time.monotonic() - began

    async def _until_applied(self) -> None:
        """Wait until what an earlier run has published is applied: it is not to be published again."""
        async with watch(self._flow, self._settings) as progress:
            await progress.wait(UNAPPLIED_SECONDS, patience=0)

    async def _publish(
        self, at: Connections, basis: Basis, last: Mapping[str, Basis], mine: RunTurn
    ) -> None:
        publishing = Publishing(self._settings.kafka, PUBLISH_SECONDS)
        going = {each.table.qualified for each in self._tables if not each.run.problem}
        try:
            for each in self._tables:
                if each.run.failure or each.run.table in self._stopped:
                    continue
                began = time.monotonic()
                # Rows of tables whose deletes do not go now must find what they refer to.
                references = [
                    reference
                    for reference in self._references
                    if reference.parent == each.table.qualified and reference.child not in going
                ]
                sending = Sending(each, basis.read_at, publishing, mine, self._say)
                async with _in_its_snapshot(at, each.run):
                    async for found in each.differing(at):
                        kinds = await each.going(at, found, references)
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
            await stack.enter_async_context(await open_site(settings, site))
            for site in (Site.EXTERNAL, Site.EXTERNAL, Site.SUPABASE)
        ]
        yield Connections(source, source_now, target, ledger)


@asynccontextmanager
async def _in_its_snapshot(at: Connections, run: TableRun) -> AsyncIterator[None]:
    """One table's work; what goes wrong there leaves the snapshots as they are for the next table."""
    with _own_trouble(run):
        async with at.source.transaction(), at.target.transaction():
            yield


@contextmanager
def _own_trouble(run: TableRun) -> Iterator[None]:
    """Note what goes wrong with one table, which is then not run; what concerns all is raised on."""
    try:
        yield
    except (TableMissing, KeyMissing) as error:
        run.failure = f"{error}. The other tables go on"
    except psycopg.Error as error:
        failure = failure_of(error)
        if not failure.sqlstate.startswith(_OF_A_TABLE):
            raise
        run.failure = f"{run.table}: {failure.message} ({failure.hint}). The other tables go on"


def _too_many(excess: str, run: TableRun) -> str:
    return (
        f"{excess}. Its other changes are published, its deletes wait. See which rows: ftstream verify wsop"
        f" --table {run.table}. If it is right: ftstream batch run --allow-deletes"
    )


def _another(now: Basis, last: Basis, run: TableRun) -> str:
    """Say how External is not the one that the last run read, and what differs."""
    if now.system != last.system:
        what = f"is another server ({now.system}) than the last run read ({last.system})"
    else:
        what = f"is on timeline {now.timeline}, and was on {last.timeline} when it ran last"
    kinds = DifferenceKind.MISSING, DifferenceKind.DIFFERENT, DifferenceKind.EXTRA
    new, changed, gone = (f"{run.kinds[kind]:,}" for kind in kinds)
    return (
        f"{run.table}: External {what}: has it failed over, or been restored? Rows may be missing there:"
        f" {new} new, {changed} changed, {gone} gone."
        " Nothing of the table was published. See which rows differ: ftstream verify wsop. If it is right:"
        " ftstream batch run --allow-deletes"
    )


def _broken(drift: Drift) -> list[str]:
    """Why the table's rows cannot be written with the schema that is kept for it."""
    if drift.kept is None:
        return ["no schema is kept"]
    # Compatible, for a reader; but a writer could only put NULL there.
    lost = [str(d) for d in drift.differences if d.compatible and d.now is None]
    return [*drift.breaks, *lost]


def _drifted(table: Table, broken: Sequence[str]) -> str:
    return (
        f"{table.name} is not as its schema is on External: {', '.join(broken)}. Nothing of the table was"
        " published. See `ftstream schemas diff`; to take it as it is:"
        f" `ftstream schemas accept {table.name}`"
    )


async def _note(noting: Awaitable[None]) -> None:
    """Note what came of a run, if the database takes it: it may be why the run has failed."""
    try:
        async with asyncio.timeout(NOTE_SECONDS):
            await noting
    except (psycopg.Error, TimeoutError) as error:
        log.warning("what came of a run cannot be noted: %s", " ".join(str(error).split()))
