"""The statements that apply a batch to one table, generated from the catalogs of both sites."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg import sql

from ftstream.flows import Table
from ftstream.messages.toast import UNAVAILABLE_FIELD
from ftstream.postgres import codec, exact
from ftstream.postgres.catalog import Column, carried, carried_key
from ftstream.postgres.codec import CodecOf
from ftstream.postgres.queries import Queries, identifier, literal, statement

QUERIES = Queries.load(__package__, "apply.sql")
WON = Queries.load(__package__, "won_rows.sql")
PARENTS = Queries.load(__package__, "parents.sql")
ADVANCE = Queries.load("ftstream.last_write", "advance.sql")


UNNOTED = "overwritten while its capture was broken"
"""Why a row is in ftstream.displaced: see `keep_unnoted`."""

Shape = frozenset[str]
"""The names of the columns that a row image holds: the source's columns when it was captured."""

Pairs = Sequence[tuple[Column, Column]]
"""Each carried column at the source, whose type says how values come, and at the target, which takes
them: a type may be in another schema there.
"""


_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_SPELLINGS = {
    "uuid": re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    **dict.fromkeys(("int2", "int4", "int8"), _INTEGER),
}
"""How PostgreSQL spells keys of these types: what it reads as the same would be another entity."""

MOST_SHAPES = 100
"""Column lists whose statements are kept: a table has as many as it was altered, a forger any number."""

Statements = tuple[sql.Composed, ...]
"""Executed one after the other, with the same parameters."""


@dataclass(frozen=True, slots=True)
class ImageStatements:
    """What writing images of one shape takes."""

    upsert: Statements
    patch: Statements


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
        """`target`: with the excluded columns, which stay in a row that is taken out and put back.
        `images`: how columns come in those of the flow, unless they are an outbox's.

        Raises UnsupportedType for a column that cannot be carried, KeyMissing.
        """
        self._table = table
        self._images = images
        self._stored = [column for column in target if not column.generated]
        self._pairs = carried(
            source, [column for column in target if column.name not in table.excluded]
        )
        self._keys = carried_key(table, self._pairs)
        self._key_spelling = _SPELLINGS.get(self._keys[1].base_name)
        self._by_shape: dict[Shape, ImageStatements] = {}
        self.shape: Shape = frozenset(column.name for column in source if not column.generated)
        self.carried: Shape = frozenset(column.name for column, _ in self._pairs)
        # What one site generates and the other does not is not carried: the log does not hold it.
        made_up = {column.name for column in source if column.generated}
        self.made_up_at_source = made_up & {column.name for column in self._stored}
        made_up = {column.name for column in target if column.generated}
        self.made_up_at_target = made_up & self.shape
        self.only_at_source = self.shape - self.carried - self.made_up_at_target
        alone = [(c, c) for c in self._stored if c.name not in self.carried]
        self.only_at_target = (
            frozenset(column.name for column, _ in alone) - table.excluded - self.made_up_at_source
        )
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
        self.restore_alone = self._restored(alone)
        self._outbox = outbox
        self._won: dict[Shape, Statements] = {}
        if outbox:
            self.lock = self._build("lock_rows")
            self.delete_won = self._build("delete_won", name=literal(table.name))
            self.keep_unnoted = self._build(
                "keep_unnoted",
                name=literal(table.name),
                qualified=literal(table.qualified),
                reason=literal(UNNOTED),
            )
            self.won(self.shape)
        else:
            self.of(self.shape)

    @property
    def writing(self) -> Statements:
        """What writes images as the source has them today."""
        return self.won(self.shape) if self._outbox else self.of(self.shape).upsert

    def won(self, shape: Shape) -> Statements:
        """Return what writes images of this shape from an outbox, where they are the last write."""
        shape &= self.carried
        if shape not in self._won:
            if len(self._won) >= MOST_SHAPES:
                self._won.clear()
            pairs = [pair for pair in self._pairs if pair[0].name in shape]
            name = literal(self._table.name)
            same_row = sql.SQL("t.{} = m.id::{}").format(
                identifier(self._table.key), codec.type_name(self._keys[1])
            )
            parts = self._upsert_parts(pairs, codec.outbox_codec)
            self._won[shape] = (
                *self._renumber(
                    "renumber_won", same_row, _numbered(pairs), codec.outbox_codec, name=name
                ),
                self._build("upsert_won", name=name, **parts),
            )
        return self._won[shape]

    def spells_key(self, entity_id: str) -> bool:
        """Say whether PostgreSQL spells a key of the table's type so."""
        return self._key_spelling is None or self._key_spelling.fullmatch(entity_id) is not None

    def of(self, shape: Shape) -> ImageStatements:
        """The statements for images of this shape: columns that it lacks are left alone."""
        shape &= self.carried
        if shape not in self._by_shape:
            if len(self._by_shape) >= MOST_SHAPES:
                self._by_shape.clear()
            pairs = [pair for pair in self._pairs if pair[0].name in shape]
            self._by_shape[shape] = ImageStatements(
                upsert=self._upsert(pairs, self._images), patch=self._patch(pairs)
            )
        return self._by_shape[shape]

    def single(self, shape: Shape) -> Iterator[tuple[str, sql.Composed]]:
        """For each column an upsert of it alone, to find the one that a value does not fit."""
        for pair in self._pairs:
            if pair[0].name in shape and pair != self._keys:
                codec_of = codec.image_codec if self._outbox else self._images
                parts = self._upsert_parts([self._keys, pair], codec_of)
                yield pair[0].name, self._build("upsert", **parts)

    def _upsert(self, pairs: Pairs, codec_of: CodecOf) -> Statements:
        """Inserts or replaces rows."""
        return (
            *self._renumber("renumber", self._same_row(codec_of), _numbered(pairs), codec_of),
            self._build("upsert", **self._upsert_parts(pairs, codec_of)),
        )

    def _patch(self, pairs: Pairs) -> Statements:
        """Updates rows in part."""
        same_row = self._same_row(self._images)
        # A table may hold nothing else: then it is looked only whether the rows are there.
        assigned = _assigned(pairs, self._table.key) or [self._keys]
        return (
            *self._renumber("renumber", same_row, _numbered(pairs), self._images),
            self._build(
                "patch",
                wire_columns=_wire_columns(pairs, self._images),
                assignments=_listed(
                    [_kept_or_new(self._table.name, *pair, self._images) for pair in assigned]
                ),
                same_row=same_row,
            ),
        )

    def _restored(self, alone: Pairs) -> Statements:
        """Gives rows the values of columns that the target alone has."""
        same_row = sql.SQL("t.{}::text = r.ftstream_key").format(identifier(self._table.key))
        assignments = [
            sql.SQL("{} = {}").format(
                identifier(column.name), codec.value(column, codec.text_codec(column))
            )
            for column, _ in _assigned(alone, self._table.key)
        ]
        wire_columns = sql.SQL("{}, ftstream_key text").format(
            _wire_columns(alone, codec.text_codec)
        )
        renumber = self._renumber(
            "renumber", same_row, _numbered(alone), codec.text_codec, wire_columns=wire_columns
        )
        if not assignments:
            return renumber
        parts = {"wire_columns": wire_columns, "assignments": _listed(assignments)}
        return (*renumber, self._build("restore_alone", same_row=same_row, **parts))

    def _renumber(
        self,
        query: str,
        same_row: sql.Composable,
        numbered: Pairs,
        codec_of: CodecOf,
        **parts: sql.Composable,
    ) -> Statements:
        """Gives rows identity values that no update can assign; nothing, where there are none."""
        moving = [(here, there) for here, there in numbered if there.name != self._table.key]
        if not moving:
            return ()
        new = {
            there.name: exact.value(self._table.name, here, there, codec_of)
            for here, there in moving
        }
        columns = [identifier(column.name) for column in self._stored]
        kept = [
            sql.SQL("{} as {}").format(new[column.name], identifier(column.name))
            if column.name in new
            else sql.SQL("t.{}").format(identifier(column.name))
            for column in self._stored
        ]
        wire_columns = _wire_columns([self._keys, *moving], codec_of)
        built = self._build(
            query,
            **{
                "same_row": same_row,
                "wire_columns": wire_columns,
                "held": _listed([sql.SQL("t.{}").format(identifier(name)) for name in new]),
                "numbers": _listed([*new.values()]),
                "kept": _listed(kept),
                "columns": _listed(columns),
                **parts,
            },
        )
        return (built,)

    def _same_row(self, codec_of: CodecOf) -> sql.Composed:
        here, there = self._keys
        return sql.SQL("t.{} = {}").format(
            identifier(there.name), exact.value(self._table.name, here, there, codec_of)
        )

    def _upsert_parts(self, pairs: Pairs, codec_of: CodecOf) -> dict[str, sql.Composable]:
        assignments = [
            sql.SQL("{0} = excluded.{0}").format(identifier(there.name))
            for _, there in _assigned(pairs, self._table.key)
        ]
        return {
            "columns": _listed([identifier(column.name) for column, _ in pairs]),
            "values": _listed([exact.value(self._table.name, *pair, codec_of) for pair in pairs]),
            "wire_columns": _wire_columns(pairs, codec_of),
            "update": sql.SQL("update set {}").format(_listed(assignments))
            if assignments
            else sql.SQL("nothing"),
        }

    def _build(self, query: str, /, **parts: sql.Composable) -> sql.Composed:
        return self._build_at(self._keys[1], query, **parts)

    def _build_at(self, key: Column, query: str, /, **parts: sql.Composable) -> sql.Composed:
        text = WON[query] if query in WON else QUERIES[query]
        return statement(text).format(
            table=identifier(self._table.schema, self._table.name),
            key=identifier(self._table.key),
            key_type=codec.type_name(key),
            **parts,
        )


def _listed(parts: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _numbered(pairs: Pairs) -> Pairs:
    """Return those whose values the target takes at an insert only."""
    return [pair for pair in pairs if pair[1].identity]


def _assigned(pairs: Pairs, key: str) -> Pairs:
    """Return those that an update of a row assigns: all others, but for the key, which found it."""
    return [pair for pair in pairs if not pair[1].identity and pair[1].name != key]


def _wire_columns(pairs: Pairs, codec_of: CodecOf) -> sql.Composed:
    return _listed([exact.wire_column(*pair, codec_of) for pair in pairs])


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
