"""Connections as ftstream uses them: bytes of JSON go to PostgreSQL as they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from psycopg import AsyncConnection
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.postgres import types

from ftstream.adapters.postgres.queries import Queries

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

    Raises psycopg.OperationalError.
    """
    connection = await AsyncConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
    connection.adapters.register_dumper(Json, _JsonDumper)
    return connection
