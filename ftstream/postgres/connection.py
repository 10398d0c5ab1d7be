"""Connections as ftstream uses them: bytes of JSON go to PostgreSQL as they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from psycopg import AsyncConnection, IsolationLevel
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.postgres import types

from ftstream.postgres.queries import Queries

SESSION = Queries.load(__package__, "session.sql")


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON document that is encoded already."""

    encoded: bytes

    @classmethod
    def of(cls, value: object) -> Json:
        return cls(msgspec.json.encode(value))

    @classmethod
    def array(cls, documents: Iterable[bytes]) -> Json:
        return cls(b"[" + b",".join(documents) + b"]")


class _JsonDumper(Dumper):
    oid = types["json"].oid

    def dump(self, obj: Json) -> Buffer:
        return obj.encoded


async def open_connection(conninfo: str) -> AsyncConnection:
    """A connection in autocommit mode that a transaction pooler can serve: nothing is prepared.

    Whatever the database or the role has as its default, text is UTF-8, as JSON is, and a statement sees what
    was committed before it began: those that wait for a lock depend on it. That transactions only read
    is left as it is: so Supabase protects a disk that is full.

    Raises psycopg.OperationalError.
    """
    connection = await AsyncConnection.connect(
        conninfo, autocommit=True, prepare_threshold=None, client_encoding="UTF8"
    )
    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    connection.adapters.register_dumper(Json, _JsonDumper)
    return connection
