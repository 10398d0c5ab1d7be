"""What changes in the tables of publication supabase_realtime, as Realtime reads it: at most once."""

from __future__ import annotations

import secrets
import struct
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo
from psycopg.pq import ExecStatus

from ftstream.local.stack.pgoutput import Decoder, RowChange

_PUBLISHED = sql.SQL(
    "select schemaname::text, tablename::text from pg_publication_tables"
    " where pubname = 'supabase_realtime'"
)
# Commands of the replication protocol, in its capitals.
_MAKE_SLOT = sql.SQL("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput")
_STREAM = sql.SQL(
    "START_REPLICATION SLOT {slot} LOGICAL 0/0"
    " (proto_version '1', publication_names 'supabase_realtime')"
)


class Feed:
    """A temporary slot, which ends with its connection; what nobody polls in time is lost with it.

    Its changes are streamed: a slot that is asked by pg_logical_slot_get_binary_changes() reads the
    log of the last half minute again each time, which takes a core while much is written.
    """

    def __init__(self, connection: AsyncConnection, stream: AsyncConnection) -> None:
        self._connection, self._stream = connection, stream.pgconn
        self._decoder = Decoder()
        self._at = 0

    async def lacking(self, tables: Collection[tuple[str, str]]) -> list[str]:
        """Return those of the tables that Realtime does not publish. "*" stands for any."""
        cursor = await self._connection.execute(_PUBLISHED)
        there = set(await cursor.fetchall())
        return [f"{s}.{t}" for s, t in tables if "*" not in (s, t) and (s, t) not in there]

    def poll(self) -> Sequence[RowChange]:
        """Return what has been committed since the last time. Raises psycopg.Error."""
        decoded = [self._decoder.decode(message) for message in self._messages()]
        # PostgreSQL ends a stream of which it hears nothing, and keeps the log of what is not confirmed.
        self._stream.put_copy_data(struct.pack(">cqqqqB", b"r", *[self._at] * 3, 0, 0))
        self._stream.flush()
        return [change for change in decoded if change is not None]

    def _messages(self) -> Iterator[bytes]:
        """Return those of pgoutput that have come, without the stream's own."""
        self._stream.consume_input()
        while (answer := self._stream.get_copy_data(1))[0] > 0:
            message = bytes(answer[1])
            (self._at,) = struct.unpack_from(">q", message, 9 if message[:1] == b"w" else 1)
            if message[:1] == b"w":
                yield message[25:]
        if answer[0] < 0:
            raise psycopg.OperationalError("the stream of changes has ended")


@asynccontextmanager
async def open_feed(dsn: str, database: str | None) -> AsyncIterator[Feed]:
    """A feed from now on. Raises psycopg.Error."""
    conninfo = make_conninfo(dsn, **({"dbname": database} if database else {}))
    connect = partial(AsyncConnection.connect, conninfo, autocommit=True, connect_timeout=5)
    async with await connect() as connection, await connect(replication="database") as stream:
        slot = sql.Identifier(f"supabase_realtime_stand_in_{secrets.token_hex(6)}")
        await stream.execute(_MAKE_SLOT.format(slot=slot))
        started = stream.pgconn.exec_(_STREAM.format(slot=slot).as_bytes())
        if started.status != ExecStatus.COPY_BOTH:
            raise psycopg.OperationalError(started.get_error_message())
        yield Feed(connection, stream)
