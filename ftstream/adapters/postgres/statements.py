"""The statements that apply a batch to one table, generated from the catalogs of both sites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg import sql

from ftstream.adapters.postgres import codec, exact
from ftstream.adapters.postgres.catalog import Column, carried, carried_key
from ftstream.adapters.postgres.codec import CodecOf
from ftstream.adapters.postgres.queries import Queries, identifier, literal, statement
from ftstream.core.unavailable import UNAVAILABLE_FIELD
from ftstream.flows import Table

QUERIES = Queries.load(__package__, "apply.sql")
REGISTER = Queries.load(__package__, "register.sql")


Shape = frozenset[str]
"""The names of the columns that a row image holds: the source's columns when it was captured."""

Pairs = Sequence[tuple[Column, Column]]
"""Each carried column at the source, whose type says how values come, and at the target, which takes
them: a type may be in another schema there.
"""


@dataclass(frozen=True, slots=True)
class ImageStatements:
    """What writing images of one shape takes."""

    upsert: sql.Composed
    patch: sql.Composed


class TableStatements:
    """What applying one table takes, as both catalogs are."""

    def __init__(
        self,
        table: Table,
        source: Sequence[Column],
        target: Sequence[Column],
        unique_keys: Sequence[Sequence[str]],
        *,
        outbox: bool = False,
        images: CodecOf = codec.debezium_codec,
    ) -> None:
        """`images`: how columns come in those of the flow, unless they are an outbox's.

        Raises UnsupportedType for a column that cannot be carried, KeyMissing.
        """
        self._table = table
        self._images = images
        self._pairs = carried(source, target)
        self._keys = carried_key(table, self._pairs)
        self._by_shape: dict[Shape, ImageStatements] = {}
        self.shape: Shape = frozenset(column.name for column in source if not column.generated)
        self.carried: Shape = frozenset(column.name for column, _ in self._pairs)
        self.only_at_source = self.shape - self.carried
        alone = [
            (column, column)
            for column in target
            if not column.generated and column.name not in self.carried
        ]
        self.only_at_target = frozenset(column.name for column, _ in alone)
        self.differing = tuple(
            f"{here.name} ({here.type} to {there.type})"
            for here, there in self._pairs
            if exact.inexact(here, there)
        )
        """The columns that may not hold every value exactly."""
        # The columns whose values may move between rows.
        moving = [
            columns
            for columns in unique_keys
            if table.key not in columns and self.carried.issuperset(columns)
        ]
        self.qualified = table.qualified
        self.delete = self._build("delete")
        self.release = self._build("release", name=literal(table.qualified))
        self.displace = self._build("displace", name=literal(table.name))
        self.upsert_read = self._upsert(self._pairs, codec.text_codec)
        # For rows that are deleted and inserted again: with what the target alone holds of them.
        self.upsert_kept = self._upsert([*self._pairs, *alone], codec.text_codec)
        self.read_alone = self._build("read_rows", **_read_parts(alone)) if alone else None
        self.read_rows = self._build_at(self._keys[0], "read_rows", **_read_parts(self._pairs))
        self.existing = self._build("existing")
        self.locked = self._build("locked")
        self.blockers = tuple(
            self._build("blockers", **_blocker_parts(self._pairs, columns)) for columns in moving
        )
        # What `blockers` read of an image.
        self.blocking = frozenset([table.key, *(name for columns in moving for name in columns)])
        self.restore_alone = (
            self._build("restore_alone", **_restored_parts(alone)) if alone else None
        )
        self._outbox = outbox
        self._won: dict[Shape, sql.Composed] = {}
        if outbox:
            self.lock = self._build("lock_rows")
            self.delete_won = self._build("delete_won", name=literal(table.name))
            self.won(self.shape)
        else:
            self.of(self.shape)

    def won(self, shape: Shape) -> sql.Composed:
        """The statement that writes images of this shape from an outbox, where they are the last write."""
        if shape not in self._won:
            pairs = [pair for pair in self._pairs if pair[0].name in shape]
            parts = _upsert_parts(self._table.name, pairs, codec.outbox_codec)
            self._won[shape] = self._build("upsert_won", name=literal(self._table.name), **parts)
        return self._won[shape]

    def of(self, shape: Shape) -> ImageStatements:
        """The statements for images of this shape: columns that it lacks are left alone."""
        if shape not in self._by_shape:
            pairs = [pair for pair in self._pairs if pair[0].name in shape]
            self._by_shape[shape] = ImageStatements(
                upsert=self._upsert(pairs, self._images),
                patch=self._build(
                    "patch", **_patch_parts(self._table.name, pairs, self._keys, self._images)
                ),
            )
        return self._by_shape[shape]

    def single(self, shape: Shape) -> Iterator[tuple[str, sql.Composed]]:
        """For each column an upsert of it alone, to find the one that a value does not fit."""
        for pair in self._pairs:
            if pair[0].name in shape and pair != self._keys:
                codec_of = codec.image_codec if self._outbox else self._images
                yield pair[0].name, self._upsert([self._keys, pair], codec_of)

    def _upsert(self, pairs: Pairs, codec_of: CodecOf) -> sql.Composed:
        return self._build("upsert", **_upsert_parts(self._table.name, pairs, codec_of))

    def _build(self, query: str, /, **parts: sql.Composable) -> sql.Composed:
        return self._build_at(self._keys[1], query, **parts)

    def _build_at(self, key: Column, query: str, /, **parts: sql.Composable) -> sql.Composed:
        text = REGISTER[query] if query in REGISTER else QUERIES[query]
        return statement(text).format(
            table=identifier(self._table.schema, self._table.name),
            key=identifier(self._table.key),
            key_type=codec.type_name(key),
            **parts,
        )


def _listed(parts: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _upsert_parts(table: str, pairs: Pairs, codec_of: CodecOf) -> dict[str, sql.Composable]:
    columns = [identifier(column.name) for column, _ in pairs]
    return {
        "columns": _listed(columns),
        "values": _listed([exact.value(table, *pair, codec_of) for pair in pairs]),
        "wire_columns": _listed([exact.wire_column(*pair, codec_of) for pair in pairs]),
        "assignments": _listed([sql.SQL("{0} = excluded.{0}").format(name) for name in columns]),
    }


def _patch_parts(
    table: str, pairs: Pairs, keys: tuple[Column, Column], codec_of: CodecOf
) -> dict[str, sql.Composable]:
    parts = _upsert_parts(table, pairs, codec_of)
    return {
        "wire_columns": parts["wire_columns"],
        "assignments": _listed([_kept_or_new(table, *pair, codec_of) for pair in pairs]),
        "key_value": exact.value(table, *keys, codec_of),
    }


def _kept_or_new(table: str, here: Column, there: Column, codec_of: CodecOf) -> sql.Composed:
    column, name = here, identifier(here.name)
    new = exact.value(table, here, there, codec_of)
    if not column.toastable:
        return sql.SQL("{} = {}").format(name, new)
    return sql.SQL(
        "{name} = case when {label} = any(r.{field}) then t.{name} else {new} end"
    ).format(name=name, label=literal(column.name), field=identifier(UNAVAILABLE_FIELD), new=new)


def _read_parts(pairs: Pairs) -> dict[str, sql.Composable]:
    return {
        "names": _listed([literal(column.name) for column, _ in pairs]),
        "texts": _listed(
            [sql.SQL("t.{}::text").format(identifier(column.name)) for column, _ in pairs]
        ),
    }


def _blocker_parts(pairs: Pairs, columns: Sequence[str]) -> dict[str, sql.Composable]:
    unique = [there for _, there in pairs if there.name in columns]
    return {
        "wire_columns": _listed(
            [codec.wire_column(column, codec.text_codec(column)) for column in unique]
        ),
        "matches": sql.SQL(" and ").join(
            sql.SQL("t.{} = {}").format(
                identifier(column.name), codec.value(column, codec.text_codec(column))
            )
            for column in unique
        ),
    }


def _restored_parts(alone: Pairs) -> dict[str, sql.Composable]:
    parts = _upsert_parts("", alone, codec.text_codec)
    assignments = [
        sql.SQL("{} = {}").format(
            identifier(column.name), codec.value(column, codec.text_codec(column))
        )
        for column, _ in alone
    ]
    return {"wire_columns": parts["wire_columns"], "assignments": _listed(assignments)}
