"""Writes the rows whose last write has come, and lets nothing dangle that refers to them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from psycopg import AsyncConnection

from ftstream.apply.merge import Batch
from ftstream.apply.rows import Tables, execute_all
from ftstream.apply.statements import ADVANCE, PARENTS, Shape, Statements
from ftstream.flows import Flow
from ftstream.messages import toast
from ftstream.messages.change import Change, Entity
from ftstream.postgres.connection import Json
from ftstream.postgres.queries import statement


@dataclass(frozen=True, slots=True)
class Writes:
    """The greatest write of each entity of a batch; `shapes`: see RowPlan.

    Those in `lost` are passed by: nothing is locked for them or written but their rows in sync_log.
    """

    batch: Batch
    newest: Mapping[Entity, Change]
    shapes: Mapping[str, Shape]
    lost: Mapping[Entity, Change] = field(default_factory=dict)

    def passing_by(self, entities: frozenset[Entity]) -> Writes:
        """The same, but for these entities."""
        return replace(
            self,
            newest={entity: c for entity, c in self.newest.items() if entity not in entities},
            lost={entity: c for entity, c in self.newest.items() if entity in entities},
        )

    @property
    def refusals(self) -> list[Change]:
        return [change for change in self.newest.values() if change.refusal]

    def without(self, entities: Collection[Entity]) -> Writes:
        """The same, but for these entities."""
        return replace(self, newest={e: c for e, c in self.newest.items() if e not in entities})

    def by_table(self) -> dict[str, list[Change]]:
        found: dict[str, list[Change]] = {}
        for change in self.newest.values():
            found.setdefault(change.table, []).append(change)
        return found


def stamp(change: Change) -> dict[str, object]:
    """Return what advance.sql and won_rows.sql are told of a write."""
    return {
        "table": change.table,
        "id": change.entity_id,
        "op": change.operation,
        "version": change.version,
        "site": change.site,
    }


class WonRows:
    """Of one flow. Every method may raise psycopg.Error."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._carried = [table.qualified for table in flow.tables]
        self._advance = statement(ADVANCE["advance_last_write"])
        self._require_lost = statement(ADVANCE["require_lost"])

    async def pass_by(self, target: AsyncConnection, lost: Mapping[Entity, Change]) -> None:
        """Have the transaction fail, unless each of these writes has come before, and lost."""
        stamps = [stamp(change) for change in lost.values()]
        values = {"lost": Json.of(stamps), "count": len(stamps)}
        await target.execute(self._require_lost, values)

    async def write(
        self, target: AsyncConnection, tables: Tables, writes: Writes, *, moving: bool
    ) -> set[Entity]:
        """In this order: see won_rows.sql. Where unique values are `moving`, rows go before they come.

        Returns the rows that were taken over, of those refused to this site.
        """
        for name, changes in writes.by_table().items():
            ids = {"ids": [change.entity_id for change in changes]}
            await target.execute(tables[name].lock, ids)
        stamps = [stamp(change) for change in writes.newest.values() if not change.refusal]
        if stamps:
            await target.execute(self._advance, {"writes": Json.of(stamps)})
        taken = await _take_over(target, writes.refusals)
        # A refusal that is not taken writes nothing, though somebody may have written in its very version.
        by_table = writes.without(
            {e for e, c in writes.newest.items() if c.refusal} - taken
        ).by_table()
        if self._flow.two_way:
            for name, changes in by_table.items():
                stamped = Json.of([stamp(change) for change in changes])
                await target.execute(tables[name].keep_unnoted, {"messages": stamped})
        alone = await _alone(target, tables, by_table) if moving else {}
        for name, changes in by_table.items():
            await self._delete(target, tables, name, changes, moving)
        for name, changes in by_table.items():
            for statements, messages in _upserts(tables, name, changes, writes.shapes.get(name)):
                await execute_all(target, statements, messages)
        for name, images in alone.items():
            await execute_all(target, tables[name].restore_alone, images)
        for name, changes in by_table.items():
            await self._require_parents(target, name, changes)
        for name in {table for table, _ in taken}:
            values = {
                "target": self._flow.table(name).qualified,
                "ids": [entity_id for table, entity_id in taken if table == name],
                "yields": False,
            }
            await target.execute(statement(ADVANCE["tell_again"]), values)
        return taken

    async def _delete(
        self,
        target: AsyncConnection,
        tables: Tables,
        name: str,
        changes: list[Change],
        moving: bool,
    ) -> None:
        gone = [change.message for change in changes if change.image is None]
        if gone:
            stamps = [stamp(each) | {"gone": each.image is None} for each in changes]
            rows = {"messages": Json.of(stamps), "carried": self._carried, **self._named(name)}
            await target.execute(statement(PARENTS["release_children"]), rows)
        going = [change.message for change in changes] if moving else gone
        if going:
            await target.execute(tables[name].delete_won, {"messages": Json.array(going)})

    async def _require_parents(
        self, target: AsyncConnection, name: str, changes: list[Change]
    ) -> None:
        if written := [change.message for change in changes if change.image is not None]:
            rows = {"messages": Json.array(written), **self._named(name)}
            await target.execute(statement(PARENTS["require_parents"]), rows)

    def _named(self, name: str) -> dict[str, str]:
        return {"name": name, "table": self._flow.table(name).qualified}


def _upserts(
    tables: Tables, name: str, changes: list[Change], shape: Shape | None
) -> Iterator[tuple[Statements, list[bytes]]]:
    by_shape: dict[Shape, list[bytes]] = {}
    for change in changes:
        if change.image is not None:
            key = shape or toast.names(change.image)
            by_shape.setdefault(key, []).append(change.message)
    for each, messages in by_shape.items():
        yield tables[name].won(each), messages


async def _take_over(target: AsyncConnection, refusals: list[Change]) -> set[Entity]:
    """Have this site's own writes that were refused be as the other site has them."""
    if not refusals:
        return set()
    asked = [
        stamp(change)
        | {"over_version": change.refusal.over.version, "over_site": change.refusal.over.site}
        for change in refusals
        if change.refusal
    ]
    values = {"refusals": Json.of(asked)}
    cursor = await target.execute(statement(ADVANCE["take_over"]), values)
    return {(row[0], row[1]) for row in await cursor.fetchall()}


async def _alone(
    target: AsyncConnection, tables: Tables, by_table: Mapping[str, list[Change]]
) -> dict[str, list[bytes]]:
    """Return what the target alone holds of rows that are deleted and inserted again."""
    found = {}
    for name, changes in by_table.items():
        if query := tables[name].read_alone:
            ids = {"ids": [change.entity_id for change in changes]}
            rows = await (await target.execute(query, ids)).fetchall()
            found[name] = [toast.keyed(image, entity_id) for entity_id, image in rows]
    return found
