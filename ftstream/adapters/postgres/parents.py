"""Rows that those of a flow refer to: carried once, where no flow carries them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace

import msgspec

from ftstream.adapters.postgres.batch import QUERIES as RUNS
from ftstream.adapters.postgres.queries import statement
from ftstream.adapters.postgres.sites import ApplyFailed, Sites
from ftstream.adapters.postgres.statements import REGISTER
from ftstream.adapters.postgres.transaction import Transactions
from ftstream.core.failures import Failure
from ftstream.core.plan import Entity
from ftstream.flows import FLOWS, Capture, Site

log = logging.getLogger(__name__)

IN_FLOWS = {table.qualified: table.name for flow in FLOWS for table in flow.tables}
"""Their rows come by themselves, and are waited for."""

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
    """A row of the flow that refers to one which the target does not have: see require_parents."""

    table: str
    id: str
    parent: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


_decode = msgspec.json.Decoder(tuple[Missing, ...]).decode


class Parents:
    """Of one flow and target."""

    def __init__(self, sites: Sites, transactions: Transactions) -> None:
        self._sites = sites
        self._transactions = transactions

    async def carry(self, failure: Failure) -> None:
        """Carry what is missing, with its own parents. Raises ApplyFailed for the rows that must wait."""
        missing = _decode(failure.detail)
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

    async def _hasten(self, parents: Collection[str]) -> None:
        """What comes in batches would come in a quarter of an hour."""
        if self._sites.target_site is not Site.SUPABASE or not BATCHED.keys() & parents:
            return
        async with self._sites.exclusively():
            target = await self._sites.target()
            for flow, entity_type in (BATCHED[each] for each in BATCHED.keys() & parents):
                values = {"flow": flow, "entity_type": entity_type}
                await target.execute(statement(RUNS["hasten"]), values)

    async def _put(self, failure: Failure, missing: Sequence[Missing], found: Found) -> None:
        target = await self._sites.target()
        async with target.transaction():
            await self._transactions.open(target, "share")
            for (parent, key), image in reversed(found.items()):
                values = {"parent": parent, "image": image}
                await target.execute(statement(REGISTER["require_exact"]), values)
                cursor = await target.execute(statement(REGISTER["carry_parent"]), values)
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
        row = await (await source.execute(statement(REGISTER["parent_image"]), asked)).fetchone()
        if row is None or row[0] is None:
            return
        found[parent, key] = row[0]
        refers = {"parent": parent, "image": row[0]}
        cursor = await source.execute(statement(REGISTER["parents_of"]), refers)
        for above, names, above_key in await cursor.fetchall():
            if above not in IN_FLOWS and None not in above_key:
                await self._look(above, names, tuple(above_key), found)


def _waits(failure: Failure, missing: Sequence[Missing], why: str) -> ApplyFailed:
    first = missing[0]
    message = (
        f"{first.table} {first.id} refers to {first.parent} {' '.join(first.key)},"
        f" which is not here ({why})"
    )
    rows = {(each.table, each.id) for each in missing}
    needs: dict[Entity, list[Entity]] = {row: [] for row in rows}
    for each in missing:
        if each.parent in IN_FLOWS:
            needs[each.table, each.id].append((IN_FLOWS[each.parent], each.key[0]))
    return ApplyFailed(replace(failure, message=message), rows, needs)
