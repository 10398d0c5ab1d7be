"""Rows that those of a flow refer to: carried once, where no flow carries them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import msgspec

from ftstream.apply.sites import ApplyFailed, Sites
from ftstream.apply.statements import PARENTS
from ftstream.apply.transaction import Transactions
from ftstream.failures import Failure
from ftstream.flows import FLOWS, Capture, Flow, Site
from ftstream.messages.change import Entity
from ftstream.postgres.queries import statement

log = logging.getLogger(__name__)

IN_FLOWS = {table.qualified: table.name for flow in FLOWS for table in flow.tables}
"""Their rows come by themselves, and are waited for."""

FLOW_OF = {table.qualified: flow for flow in FLOWS for table in flow.tables}

BATCHED = {
    table.qualified: (flow.name, flow.entity_type(table))
    for flow in FLOWS
    if flow.capture is Capture.BATCH
    for table in flow.tables
}
"""Source and entity type of those that come in batches, by table."""

Found = dict[tuple[str, tuple[str, ...]], str]
"""Images of rows by table and key, those that refer to others before them."""


class Missing(msgspec.Struct, frozen=True):
    """A row of the flow that refers to one which the target does not have: see require_parents.

    `nulls` are the columns that refer to it and may be null.
    """

    table: str
    id: str
    parent: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    nulls: tuple[str, ...] = ()

    @property
    def child(self) -> Entity:
        return self.table, self.id

    @property
    def flow(self) -> Flow | None:
        """The flow that carries the row referred to."""
        return FLOW_OF.get(self.parent)

    @property
    def owner(self) -> Site | None:
        """The site whose rows stand there; None where no flow carries it, or either site may write it."""
        return self.flow.owner if self.flow else None

    @property
    def within(self) -> bool:
        """Whether the row referred to is of the same flow."""
        return self.flow is not None and self.table in {each.name for each in self.flow.tables}

    @property
    def parent_entity(self) -> Entity:
        return IN_FLOWS.get(self.parent, self.parent), self.key[0]

    @property
    def because(self) -> str:
        return f"{self.parent} {' '.join(self.key)}, to which it refers, is not there"

    @property
    def message(self) -> str:
        return f"{self.table} {self.id} refers to {self.parent} {' '.join(self.key)}, which is not here"


class Referring(msgspec.Struct, frozen=True):
    """A row that refers to one which is to be deleted: see release_children."""

    id: str
    child: str
    row: str

    @property
    def child_entity(self) -> Entity:
        return IN_FLOWS.get(self.child, self.child), self.row

    @property
    def flow(self) -> Flow | None:
        """The flow that carries the row which refers."""
        return FLOW_OF.get(self.child)


decode_missing = msgspec.json.Decoder(tuple[Missing, ...]).decode
decode_referring = msgspec.json.Decoder(tuple[Referring, ...]).decode


class Parents:
    """Of one flow and target."""

    def __init__(self, sites: Sites, transactions: Transactions) -> None:
        self._sites = sites
        self._transactions = transactions

    async def carry(self, failure: Failure) -> None:
        """Carry what is missing, with its own parents. Raises ApplyFailed for the rows that must wait."""
        missing = decode_missing(failure.detail)
        if waiting := [each for each in missing if each.parent in IN_FLOWS]:
            await self._hasten({each.parent for each in waiting})
            raise _waits(failure, waiting, "a flow carries it")
        async with self._sites.exclusively():
            found: Found = {}
            for each in missing:
                await self._look(each.parent, each.columns, each.key, found)
            if absent := [each for each in missing if (each.parent, each.key) not in found]:
                raise _waits(failure, absent, "nor on the other site")
            await self._put(failure, missing, found)

    async def come_from_here(self, missing: Sequence[Missing]) -> bool:
        """Say whether the other site has rows of these tables from this one only: its guards are there."""
        async with self._sites.exclusively():
            source = await self._sites.source()
            tables = {"tables": sorted({each.parent for each in missing})}
            row = await (await source.execute(statement(PARENTS["guarded"]), tables)).fetchone()
        return bool(row and row[0])

    async def _hasten(self, parents: Collection[str]) -> None:
        """Have a batch run begin at once, which would bring the row in a quarter of an hour."""
        if self._sites.target_site is not Site.SUPABASE or not BATCHED.keys() & parents:
            return
        async with self._sites.exclusively():
            target = await self._sites.target()
            for flow, entity_type in (BATCHED[each] for each in BATCHED.keys() & parents):
                values = {"flow": flow, "entity_type": entity_type}
                await target.execute(statement(PARENTS["hasten"]), values)

    async def _put(self, failure: Failure, missing: Sequence[Missing], found: Found) -> None:
        target = await self._sites.target()
        async with target.transaction():
            await self._transactions.open(target, "share")
            for (parent, key), image in reversed(found.items()):
                values = {"parent": parent, "image": image}
                await target.execute(statement(PARENTS["require_exact"]), values)
                cursor = await target.execute(statement(PARENTS["carry_parent"]), values)
                row = await cursor.fetchone()
                if (parent, key) in {(m.parent, m.key) for m in missing} and not (row and row[0]):
                    raise _waits(failure, missing, "another row there has its unique value")
        for parent, key in found:
            log.warning("%s %s was carried: rows of the flow refer to it", parent, " ".join(key))

    async def _look(
        self, parent: str, columns: Sequence[str], key: tuple[str, ...], found: Found
    ) -> None:
        """Read a row at the source, and what it refers to in turn that no flow carries."""
        if (parent, key) in found:
            return
        source = await self._sites.source()
        asked = {"parent": parent, "columns": list(columns), "key": list(key)}
        row = await (await source.execute(statement(PARENTS["parent_image"]), asked)).fetchone()
        if row is None or row[0] is None:
            return
        found[parent, key] = row[0]
        refers = {"parent": parent, "image": row[0]}
        cursor = await source.execute(statement(PARENTS["parents_of"]), refers)
        for above, names, above_key in await cursor.fetchall():
            if above not in IN_FLOWS and None not in above_key:
                await self._look(above, names, tuple(above_key), found)


def referred_to(failure: Failure, rows: Iterable[Entity]) -> ApplyFailed:
    """The failure for each of these rows that is to be deleted, and that something refers to."""
    by_id: dict[str, list[str]] = {}
    for each in decode_referring(failure.detail):
        by_id.setdefault(each.id, []).append(" ".join(each.child_entity))
    causes = {
        (table, entity_id): replace(
            failure,
            message=f"{', '.join(by_id[entity_id])} refers to {table} {entity_id}, which is to be deleted",
        )
        for table, entity_id in rows
        if entity_id in by_id
    }
    return ApplyFailed(failure, causes.keys(), causes=causes)


def _waits(failure: Failure, missing: Sequence[Missing], why: str) -> ApplyFailed:
    causes = {each.child: replace(failure, message=f"{each.message} ({why})") for each in missing}
    needs: dict[Entity, list[Entity]] = {row: [] for row in causes}
    for each in missing:
        if each.parent in IN_FLOWS:
            needs[each.child].append((IN_FLOWS[each.parent], each.key[0]))
    return ApplyFailed(causes[missing[0].child], causes.keys(), needs, causes)
