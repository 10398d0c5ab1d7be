"""Rows at the target: writing what a batch comes to, and finding those that are missing or held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from psycopg import AsyncConnection

from ftstream.apply.merge import Delete, Displace, Effect, Gone, Patch, Read, Reread, Upsert
from ftstream.apply.schema import shape_of
from ftstream.apply.statements import Shape, Statements, TableStatements
from ftstream.messages import toast
from ftstream.messages.change import Entity
from ftstream.postgres.connection import Json

Tables = Mapping[str, TableStatements]


@dataclass(frozen=True, slots=True)
class RowPlan:
    """What a batch does to each row.

    `shapes` is the column list of all images of a table, where they have but one. Where unique values
    `clash`, rows that were read are deleted first.
    """

    rows: Mapping[Entity, Effect]
    shapes: Mapping[str, Shape]
    clash: bool = False

    @property
    def rereads(self) -> set[Entity]:
        """The rows that are to be read from their owner."""
        return {entity for entity, effect in self.rows.items() if isinstance(effect, Reread)}


async def write_rows(target: AsyncConnection, tables: Tables, plan: RowPlan) -> None:
    """Deletes before upserts in all tables, so that a unique value given up can be taken."""
    by_table = {name: _Rows(plan.shapes.get(name), plan.clash) for name in tables}
    for (table, entity_id), effect in plan.rows.items():
        by_table[table].add(entity_id, effect)
    carried = [each.qualified for each in tables.values()]
    for name, rows in by_table.items():
        if rows.gone:
            await target.execute(tables[name].release, {"ids": rows.gone, "carried": carried})
        if rows.deletes:
            await target.execute(tables[name].delete, {"ids": rows.deletes})
        if rows.displaced:
            await target.execute(tables[name].displace, {"ids": rows.displaced})
    for name, rows in by_table.items():
        for shape, images in rows.upserts.items():
            await execute_all(target, tables[name].of(shape).upsert, images)
        if rows.reads:
            await execute_all(target, tables[name].upsert_read, rows.reads)
        if rows.kept:
            await execute_all(target, tables[name].upsert_kept, rows.kept)
        for shape, images in rows.patches.items():
            await execute_all(target, tables[name].of(shape).patch, images)


async def execute_all(
    target: AsyncConnection, statements: Statements, images: Sequence[bytes]
) -> None:
    """Execute these statements with these images, or messages."""
    document = Json.array(images)
    for query in statements:
        await target.execute(query, {"images": document, "messages": document, "rows": len(images)})


async def keeping(
    target: AsyncConnection, tables: Tables, rows: Mapping[Entity, Effect]
) -> dict[Entity, Effect]:
    """Return those that are read, with what the target holds of them in columns that it has alone."""
    result = dict(rows)
    reads = {entity: effect for entity, effect in rows.items() if isinstance(effect, Read)}
    for name, ids in _by_table(reads).items():
        if query := tables[name].read_alone:
            for entity_id, alone in await (await target.execute(query, {"ids": ids})).fetchall():
                read = reads[name, entity_id]
                result[name, entity_id] = Read(toast.merged(read.texts, alone), kept=True)
    return result


async def missing(target: AsyncConnection, tables: Tables, rows: Iterable[Entity]) -> set[Entity]:
    """Return which of these the target does not have."""
    found: set[Entity] = set()
    for name, ids in _by_table(rows).items():
        cursor = await target.execute(tables[name].existing, {"ids": ids})
        there = {row[0] for row in await cursor.fetchall()}
        found |= {(name, entity_id) for entity_id in ids if entity_id not in there}
    return found


async def locked(target: AsyncConnection, tables: Tables, rows: Iterable[Entity]) -> set[Entity]:
    """Return which of these other sessions hold; none, if it is a whole table."""
    found: set[Entity] = set()
    for name, ids in _by_table(rows).items():
        cursor = await target.execute(tables[name].locked, {"ids": ids})
        found |= {(name, row[0]) for row in await cursor.fetchall()}
    return found


def _by_table(rows: Iterable[Entity]) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = {}
    for table, entity_id in rows:
        ids.setdefault(table, []).append(entity_id)
    return ids


@dataclass(slots=True)
class _Rows:
    """What a batch does to one table, sorted by the statement that does it."""

    shape: Shape | None
    clash: bool
    deletes: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    """Those of them that do not come again."""
    displaced: list[str] = field(default_factory=list)
    upserts: dict[Shape, list[bytes]] = field(default_factory=dict)
    reads: list[bytes] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    patches: dict[Shape, list[bytes]] = field(default_factory=dict)

    def add(self, entity_id: str, effect: Effect) -> None:
        match effect:
            case Delete() | Gone():
                self.deletes.append(entity_id)
                self.gone.append(entity_id)
            case Displace():
                self.displaced.append(entity_id)
            case Upsert(image):
                self._of(self.upserts, effect).append(image)
            case Patch(columns, absent):
                self._of(self.patches, effect).append(toast.patch(columns, absent))
            case Read(texts, kept):
                if self.clash:
                    self.deletes.append(entity_id)
                (self.kept if kept else self.reads).append(texts.encode())
            case Reread():
                raise AssertionError("a row to be read was not read")
            case _ as never:
                assert_never(never)

    def _of(self, images: dict[Shape, list[bytes]], effect: Upsert | Patch) -> list[bytes]:
        return images.setdefault(self.shape or shape_of(effect), [])
