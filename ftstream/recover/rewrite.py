"""Compares rows with what they are to be, and writes them as they were, as edits like any other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import LiteralString, Self

import msgspec
from psycopg import AsyncConnection, sql

from ftstream.flows import Table
from ftstream.messages import toast
from ftstream.messages.change import Stamp
from ftstream.postgres.catalog import Column, KeyMissing, read_columns
from ftstream.postgres.connection import SESSION, Json
from ftstream.postgres.queries import Queries, identifier, literal, statement
from ftstream.recover.history import RowState
from ftstream.recover.reversal import Action, Intent, Live

QUERIES = Queries.load(__package__, "revert.sql")

TOGETHER = 100
"""Rows that are compared in one round trip: an image may have megabytes."""


class ChangedMeanwhile(Exception):
    """The row was written since it was shown."""


class NotWritten(Exception):
    """The database wrote no row, and gave no error: a trigger of the table kept it from that."""


class TriggersOff(Exception):
    """The role's sessions begin with triggers off: what it writes would be no edit like any other."""


class Reversals:
    """Of one table, at the site where it is written. Its methods raise psycopg.Error."""

    def __init__(
        self, connection: AsyncConnection, table: Table, columns: Sequence[Column]
    ) -> None:
        key = next((column for column in columns if column.name == table.key), None)
        if key is None:
            raise KeyMissing(f"table {table.qualified} has no column {table.key}")
        self._connection = connection
        self._table = table
        self._columns = [column.name for column in columns if not column.generated]
        # Which no update can give another value: a row that is there keeps its own.
        self._fixed = frozenset(column.name for column in columns if column.identity)
        self._names: dict[str, sql.Composable] = {
            "table": identifier(table.schema, table.name),
            "key": identifier(table.key),
            "key_type": sql.SQL(key.cast_type),  # from format_type()
        }

    @classmethod
    async def open(cls, connection: AsyncConnection, table: Table) -> Self:
        """Raises TableMissing, KeyMissing, TriggersOff."""
        row = await (await connection.execute(statement(QUERIES["triggers"]))).fetchone()
        if row and row[0] == "replica":
            raise TriggersOff(
                "this role has triggers and foreign keys off from its login: use --admin"
            )
        return cls(connection, table, await read_columns(connection, table))

    async def intents(self, states: Mapping[str, RowState]) -> AsyncIterator[Intent]:
        """Return what is to be done to each of these, as it is now; on that of `read_history.reading`."""
        query = statement(QUERIES["live"]).format(
            **self._names,
            now=_listed("t.{}::text", self._columns),
            then=sql.SQL(", ").join(map(_then, self._columns)),
        )
        for ids in _groups(sorted(states), TOGETHER):
            wanted = Json.array([_wanted(key, states[key]) for key in ids])
            values = {"wanted": wanted, "table": self._table.name}
            rows = await (await self._connection.execute(query, values)).fetchall()
            for key, present, version, site, now, then in rows:
                live = Live(present, None if version is None else Stamp(version, site))
                differing = self._differing(states[key], now, then)
                if present:
                    differing = {n: v for n, v in differing.items() if n not in self._fixed}
                yield Intent(key, states[key], live, differing)

    async def write(self, intent: Intent, author: str) -> None:
        """In a transaction of its own. Raises ChangedMeanwhile, NotWritten."""
        values = {"id": intent.entity_id, "table": self._table.name, "image": intent.state.image}
        async with self._connection.transaction():
            await self._begin(author)
            lock = statement(QUERIES["lock_row"]).format(**self._names)
            await self._connection.execute(lock, values)
            cursor = await self._connection.execute(statement(QUERIES["lock_last_write"]), values)
            row = await cursor.fetchone()
            if (None if row is None else Stamp(*row)) != intent.live.seen:
                raise ChangedMeanwhile
            if intent.state.image is not None:
                exact = {"table": self._table.qualified, "image": intent.state.image}
                await self._connection.execute(statement(QUERIES["require_exact"]), exact)
            cursor = await self._connection.execute(self._statement(intent), values)
            if cursor.rowcount != 1:
                raise NotWritten

    async def _begin(self, author: str) -> None:
        await self._connection.execute(statement(QUERIES["begin"]), {"author": author})
        await self._connection.execute(statement(SESSION["exact_text"]))
        await self._connection.execute(statement(SESSION["own_names"]))

    def _statement(self, intent: Intent) -> sql.Composed:
        columns, state = self._held(intent.state), intent.state
        match intent.action:
            case Action.DELETE:
                return statement(QUERIES["delete"]).format(**self._names)
            case Action.INSERT:
                return statement(QUERIES["insert"]).format(
                    **self._names,
                    columns=_listed("{}", columns),
                    values=sql.SQL(", ").join(_value(name, state) for name in columns),
                )
            case _:
                return statement(QUERIES["update"]).format(
                    **self._names,
                    assignments=sql.SQL(", ").join(
                        sql.SQL("{} = {}").format(identifier(name), _value(name, state))
                        for name in columns
                        if name != self._table.key and name not in self._fixed
                    ),
                )

    def _held(self, state: RowState) -> list[str]:
        """The columns of the image that can be written."""
        image = toast.names((state.image or "{}").encode())
        return [name for name in self._columns if name in image]

    def _differing(
        self, state: RowState, now: Sequence[str | None], then: Sequence[str | None]
    ) -> dict[str, tuple[str | None, str | None]]:
        held = self._columns if state.image is None else self._held(state)
        pairs = zip(self._columns, now, then, strict=True)
        return {name: (a, b) for name, a, b in pairs if a != b and name in held}


def _wanted(key: str, state: RowState) -> bytes:
    image = None if state.image is None else msgspec.Raw(state.image.encode())
    return msgspec.json.encode({"id": key, "image": image, "json_nulls": sorted(state.json_nulls)})


def _then(column: str) -> sql.Composed:
    """The text of the value that a column is to have."""
    return sql.SQL("case when {} = any(m.json_nulls) then 'null' else r.{}::text end").format(
        literal(column), identifier(column)
    )


def _value(column: str, state: RowState) -> sql.Composed:
    if column in state.json_nulls:
        return sql.Composed([sql.SQL("'null'::jsonb")])
    return sql.SQL("r.{}").format(identifier(column))


def _listed(form: LiteralString, columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join([sql.SQL(form).format(identifier(name)) for name in columns])


def _groups(ids: Sequence[str], size: int) -> list[Sequence[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]
