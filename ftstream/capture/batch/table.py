"""One table of a run: what differs, and how it travels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice

from psycopg import AsyncConnection

from ftstream.capture.batch.avro_rows import read_rows
from ftstream.capture.batch.drift import Drift
from ftstream.capture.batch.schedule import Basis, ForeignKey, ParkedRow, Rows, RunTurn
from ftstream.capture.batch.table_run import TableRun
from ftstream.compare.comparison import DifferenceKind
from ftstream.compare.digests import Digests, Ranges, compare_ranges
from ftstream.flows import Flow, Names, Site
from ftstream.kafka.publishing import Message, Publishing
from ftstream.messages.avro import Value, ValueRefused, encode
from ftstream.messages.avro_schema import TableSchema
from ftstream.messages.change import Operation
from ftstream.postgres.catalog import carried, read_columns
from ftstream.settings import MAX_REQUEST_BYTES

MOST_KEPT = 50_000
"""Rows that differ and stay in memory between counting and publishing; of more, ranges are read again."""

ROWS = 1_000
BYTES = 4 * 2**20
"""Published together; a row may be larger, and is then alone."""

_OVERHEAD = 4 * 2**10
"""What a record takes beside its value: its key, and its batch's header."""


@dataclass(frozen=True, slots=True)
class RunStep:
    """How far a run is; `total` is None while rows are compared."""

    table: str
    done: int = 0
    total: int | None = None


Say = Callable[[RunStep], None]


@dataclass(frozen=True, slots=True)
class Connections:
    """Each for one purpose: a snapshot lasts as long as its transaction."""

    source: AsyncConnection
    """External, in the run's snapshot."""
    source_now: AsyncConnection
    """External as it is."""
    target: AsyncConnection
    """Supabase, in the run's snapshot."""
    ledger: AsyncConnection
    """What is written to Supabase meanwhile."""


class BatchTable:
    """One table of a run: what differs, and how it travels."""

    def __init__(self, flow: Flow, drift: Drift, namespace: str) -> None:
        assert drift.kept is not None  # else the run has halted
        self.table = drift.table
        self.schema: TableSchema = drift.kept.schema
        known = {field.column for field in self.schema.fields}
        self.run = TableRun(
            self.table.name,
            flow.entity_type(self.table),
            uncarried=tuple(d.column for d in drift.differences if d.column not in known),
        )
        self.topic = Names(flow, namespace).topic(self.table, Site.EXTERNAL)
        key = next(column for column in drift.columns if column.name == self.table.key)
        self._columns = [column for column in drift.columns if column.name in known]
        self._rows = Rows(flow, self.table, key, self.topic)
        self._parked: Mapping[str, ParkedRow] = {}
        self._last: Basis | None = None
        self._ranges: Ranges | None = None
        self._kept: dict[int, dict[str, DifferenceKind]] = {}

    async def compare(self, at: Connections, last: Basis | None = None) -> None:
        """Count what differs; `last`: what the last run has read, if it was of the same server."""
        self._last = last
        self._parked = await self._rows.parked(at.ledger)
        pairs = carried(self._columns, await read_columns(at.target, self.table))
        digests = Digests(at.source, self.table, pairs), Digests(at.target, self.table, pairs)
        self._ranges = await compare_ranges(*digests)
        self.run.rows, self.run.held = self._ranges.rows, self._ranges.held
        kept = 0
        for number in self._ranges.unequal:
            kinds = await self._ranges.differing(number)
            published = await self._to_publish(at, kinds)
            self.run.kinds.update(published.values())
            self.run.waiting += len(kinds) - len(published)
            if (kept := kept + len(kinds)) <= MOST_KEPT:
                self._kept[number] = kinds

    async def differing(self, at: Connections) -> AsyncIterator[dict[str, DifferenceKind]]:
        """The rows that differ and are to be published, a range at a time."""
        assert self._ranges is not None  # compared
        for number in self._ranges.unequal:
            kinds = self._kept.pop(number, None)
            if kinds is None:
                kinds = await self._ranges.differing(number)
            yield await self._to_publish(at, kinds)

    async def _to_publish(
        self, at: Connections, kinds: Mapping[str, DifferenceKind]
    ) -> dict[str, DifferenceKind]:
        """All but what waits at the target already, or is dead: a person has it.

        That is a delete, or a row with a value that does not fit there and that is as it was at the last run.
        """
        parked = {i: self._parked[i] for i in kinds if i in self._parked}
        waiting = {
            i for i, each in parked.items() if each.delete and kinds[i] is DifferenceKind.EXTRA
        }
        misfits = [
            i for i, each in parked.items() if each.misfit and kinds[i] is not DifferenceKind.EXTRA
        ]
        if misfits and self._last is not None:
            seen = self._last.source_seen
            waiting |= await self._rows.unwritten(at.source, misfits, seen, surely=True)
        return {i: kind for i, kind in kinds.items() if i not in waiting}

    async def going(
        self, at: Connections, kinds: Mapping[str, DifferenceKind], references: Sequence[ForeignKey]
    ) -> dict[str, DifferenceKind]:
        """All but the deletes that wait: none of them goes, or rows at the target refer to theirs."""
        if self.run.doubt:
            return {i: kind for i, kind in kinds.items() if kind is not DifferenceKind.EXTRA}
        gone = [i for i, kind in kinds.items() if kind is DifferenceKind.EXTRA]
        staying: set[str] = set()
        for reference in references:
            staying |= await self._rows.referred_to(at.ledger, gone, reference)
        self.run.referred += len(staying)
        return {i: kind for i, kind in kinds.items() if i not in staying}

    async def keep_edits(
        self, at: Connections, last: Basis | None, kinds: Mapping[str, DifferenceKind]
    ) -> None:
        """Keep what was edited on Supabase since the last run: External wins.

        A row is edited if it was written since, and not by ftstream. One is deleted if Supabase lacks it,
        and External has not written it since.
        """
        if last is None:
            return
        known = {i: kind for i, kind in kinds.items() if i not in self._parked}
        missing = [i for i, kind in known.items() if kind is DifferenceKind.MISSING]
        there = known.keys() - missing
        # Where it is not sure, an edit is rather kept that was none.
        unwritten = await self._rows.unwritten(at.ledger, there, last.target_seen, surely=True)
        edited = set(there) - unwritten
        edited -= await self._rows.applied(at.ledger, edited)
        edited |= await self._rows.unwritten(at.source, missing, last.source_seen, surely=False)
        if edited:
            await self._rows.log_edits(at.ledger, edited)
            self.run.undone += len(edited)

    async def send_rows(
        self, at: Connections, sending: Sending, kinds: Mapping[str, DifferenceKind]
    ) -> None:
        """Publish rows of the same snapshot that they were compared in."""
        ids = [entity_id for entity_id, kind in kinds.items() if kind is not DifferenceKind.EXTRA]
        # Closed here, where it was opened: else an error would be lost behind that of its transaction.
        async with aclosing(read_rows(at.source, self.table, self._columns, ids)) as rows:
            async for entity_id, row in rows:
                new = kinds[entity_id] is DifferenceKind.MISSING
                await sending.add(Operation.INSERT if new else Operation.UPDATE, entity_id, row)

    async def send_deletes(
        self, at: Connections, sending: Sending, kinds: Mapping[str, DifferenceKind]
    ) -> None:
        """Publish deletes of rows that External, asked again, does not have."""
        gone = iter(
            [entity_id for entity_id, kind in kinds.items() if kind is DifferenceKind.EXTRA]
        )
        while ids := list(islice(gone, ROWS)):
            there = await self._rows.existing(at.source_now, ids)
            self.run.returned += len(there)
            ids = [entity_id for entity_id in ids if entity_id not in there]
            await self._rows.keep(at.ledger, ids)
            for entity_id in ids:
                await sending.add(Operation.DELETE, entity_id, None)


class Sending:
    """Messages of one table on their way."""

    def __init__(
        self, each: BatchTable, read_at: int, publishing: Publishing, turn: RunTurn, say: Say
    ) -> None:
        self._each = each
        self._read_at = read_at
        self._publishing = publishing
        self._turn = turn
        self._say = say
        self._messages: list[Message] = []
        self._bytes = 0
        self._deletes = 0

    async def add(
        self, operation: Operation, entity_id: str, row: Mapping[str, Value] | None
    ) -> None:
        """Send it, with others; one that cannot travel is noted, and the others go on."""
        run = self._each.run
        try:
            value = encode(self._each.schema, operation, entity_id, self._read_at, row)
            if len(value) > MAX_REQUEST_BYTES - _OVERHEAD:
                raise ValueRefused(f"{run.table} {entity_id}: {len(value):,} bytes are too many")
        except ValueRefused as error:
            run.refuse(str(error))
            return
        if self._messages and self._bytes + len(value) > BYTES:
            await self.flush()
        self._messages.append(Message(self._each.topic, entity_id.encode(), value))
        self._bytes += len(value)
        self._deletes += operation is Operation.DELETE
        if len(self._messages) >= ROWS:
            await self.flush()

    async def flush(self) -> None:
        """Return once Kafka has them all. Raises KafkaUnreachable, TurnLost."""
        run, messages = self._each.run, self._messages
        while messages:
            # A worker that is frozen right here may send what is old by then: the next run finds it.
            await self._turn.keep()
            done = await self._publishing.publish(messages)
            messages = messages[done:]
            run.published += done
        run.deleted += self._deletes
        self._messages, self._bytes, self._deletes = [], 0, 0
        self._say(RunStep(run.table, run.published, run.found))
