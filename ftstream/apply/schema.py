"""The statements of a flow's tables, rebuilt when a table changes while the flow runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import AsyncConnection

from ftstream import notification
from ftstream.apply.merge import Batch, FromParked, Patch, Upsert
from ftstream.apply.statements import Shape, TableStatements
from ftstream.flows import Capture, Flow, Site
from ftstream.kafka.partition import Partition
from ftstream.messages import toast
from ftstream.notification import Notify
from ftstream.postgres.catalog import (
    Column,
    read_all_columns,
    read_columns,
    read_fingerprint,
    read_unique_keys,
    require_logged_key,
)
from ftstream.postgres.codec import debezium_codec, text_codec


@dataclass(frozen=True, slots=True)
class _Catalog:
    """What one table's statements are made of."""

    source: tuple[Column, ...]
    target: tuple[Column, ...]
    unique_keys: tuple[tuple[str, ...], ...]


MOST_MET = 1_000
"""Column lists that are remembered; a table has as many as it was altered, a forger any number."""

Newest = Mapping[tuple[str, Partition], Shape]
"""The column list of the last image of each table and partition in a batch."""


def newest_shapes(batch: Batch) -> Newest:
    """Return the newest column lists of this batch; one of parked changes has none."""
    if isinstance(batch.fence, FromParked):
        return {}
    newest = {(c.table, c.at): c.image for c in batch.changes if c.image is not None}
    return {where: toast.names(image) for where, image in newest.items()}


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reading of both catalogs has given: what a transaction writes with is of one reading."""

    statements: Mapping[str, TableStatements]
    fingerprint: Mapping[str, Sequence[object]]
    """The target's tables as they were when their columns were read: see require_unchanged."""


class Schema:
    """Both sites' tables as last read.

    That one has changed shows in the columns of the images, before any value of a new column is
    lost; or in an error; or when it is read again for no reason.
    """

    def __init__(self, flow: Flow, target: Site, notify: Notify) -> None:
        self._flow = flow
        self._target = target
        self._notify = notify
        self._catalogs: dict[str, _Catalog] = {}
        self._readings = itertools.count()
        self._newest = 0
        self.reading = Reading({}, {"tables": [], "seen": []})
        """Replaced whole, by who reads on connections of its own too: take it once a transaction."""
        # Other column lists than today's that were met: the catalogs are read after each of them.
        self._met: set[tuple[str, Shape]] = set()
        self._last: dict[tuple[str, Partition], Shape] = {}

    @property
    def statements(self) -> Mapping[str, TableStatements]:
        """Those of the last reading."""
        return self.reading.statements

    async def read(self, source: AsyncConnection, target: AsyncConnection) -> bool:
        """Read both catalogs; True if a table has changed.

        Raises TableMissing, UnsupportedType, KeyNotLogged.
        """
        reading = next(self._readings)
        if self._flow.capture is Capture.LOG:
            for table in self._flow.tables:
                await require_logged_key(source, table)
        # Before the columns: what is altered in between is found by the next transaction.
        seen = [part for t in self._flow.tables for part in await read_fingerprint(target, t)]
        found = {
            table.name: _Catalog(
                await read_columns(source, table),
                await read_all_columns(target, table),
                await read_unique_keys(target, table),
            )
            for table in self._flow.tables
        }
        if reading < self._newest:
            return False  # another has read later, and was faster
        changed = [name for name, catalog in found.items() if catalog != self._catalogs.get(name)]
        # Whatever raises leaves all as it was: old statements never meet a new fingerprint.
        made = {name: self._made(name, found[name]) for name in changed}
        before = self.reading.statements
        oids, xmins = [oid for oid, _ in seen], [xmin for _, xmin in seen]
        self.reading = Reading({**before, **made}, {"tables": oids, "seen": xmins})
        self._newest = reading
        self._catalogs = found
        self._met = {(table, shape) for table, shape in self._met if table not in changed}
        for name, each in made.items():
            self._say(name, each, before.get(name))
        return bool(changed)

    def _made(self, name: str, catalog: _Catalog) -> TableStatements:
        """Raises UnsupportedType, KeyMissing."""
        return TableStatements(
            self._flow.table(name),
            catalog.source,
            catalog.target,
            catalog.unique_keys,
            outbox=self._flow.capture is Capture.OUTBOX,
            images=text_codec if self._flow.capture is Capture.BATCH else debezium_codec,
        )

    def unknown(self, newest: Newest) -> set[tuple[str, Shape]]:
        """Return those of these column lists that were never met: the catalogs are to be read for them."""
        current = {(name, made.shape) for name, made in self.statements.items()}
        return {(table, shape) for (table, _), shape in newest.items()} - self._met - current

    def met(self, shapes: set[tuple[str, Shape]]) -> None:
        """The catalogs have been read since these came up."""
        if len(self._met) > MOST_MET:
            self._met.clear()
        self._met |= shapes

    def uniform(self, newest: Newest) -> dict[str, Shape]:
        """The column list of all images of a table in a batch, where they have but one.

        Within a partition a column list changes once, so the last image of the batch and the last
        that was applied before tell for all between.
        """
        found: dict[str, set[Shape | None]] = {}
        for (table, partition), shape in newest.items():
            found.setdefault(table, set()).update((shape, self._last.get((table, partition))))
        single = {table: next(iter(shapes)) for table, shapes in found.items() if len(shapes) == 1}
        return {table: shape for table, shape in single.items() if shape is not None}

    def applied(self, newest: Newest) -> None:
        """These are in the database."""
        self._last |= newest

    def _say(self, name: str, made: TableStatements, before: TableStatements | None) -> None:
        source, target = self._target.other, self._target
        found = (
            (made.only_at_source, f"{source} only"),
            (made.only_at_target, f"{target} only"),
            (made.made_up_at_source, f"{source} generates it"),
            (made.made_up_at_target, f"{target} generates it"),
        )
        parts = [f"{', '.join(sorted(names))} ({where})" for names, where in found if names]
        if parts:
            self._notify(notification.columns_differ(self._flow.name, name, "; ".join(parts)))
        if made.differing:
            self._notify(
                notification.types_differ(self._flow.name, name, "; ".join(made.differing))
            )
        if before is not None and (new := made.carried - before.carried):
            self._say_carried(name, new)

    def _say_carried(self, name: str, new: Shape) -> None:
        """Tell of columns that both sites have by now; what travels by a kept schema has to be in it."""
        waiting: Shape = frozenset()
        if self._flow.capture is Capture.BATCH:
            came = (shape for (table, _), shape in self._last.items() if table == name)
            waiting = new.difference(*came)
        if waiting:
            listed = ", ".join(sorted(waiting))
            self._notify(notification.columns_waiting(self._flow.name, name, listed))
        if new - waiting:
            listed = ", ".join(sorted(new - waiting))
            self._notify(notification.columns_carried(self._flow.name, name, listed))


def shape_of(effect: Upsert | Patch) -> Shape:
    """The column list of one image."""
    match effect:
        case Upsert(image):
            return toast.names(image)
        case Patch(columns, missing):
            return frozenset(columns) | missing
