"""What changes in the tables of publication supabase_realtime, as Realtime reads it: at most once."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo

from .pgoutput import Decoder, RowChange

_SQL = Path(__file__).with_name("realtime.sql")


def _queries() -> dict[str, sql.SQL]:
    """The statements of realtime.sql by name."""
    parts = _SQL.read_text(encoding="utf-8").split("-- name: ")[1:]
    named = (part.split("\n", 1) for part in parts)
    return {name.strip(): sql.SQL(text) for name, text in named}


_QUERIES = _queries()


class Feed:
    """A temporary slot, which ends with its connection; what nobody polls in time is lost with it."""

    def __init__(self, connection: AsyncConnection, slot: str) -> None:
        self._connection, self._slot = connection, slot
        self._decoder = Decoder()

    async def lacking(self, tables: Collection[tuple[str, str]]) -> list[str]:
        """Those of the tables that Realtime does not publish. "*" stands for any."""
        cursor = await self._connection.execute(_QUERIES["published"])
        there = set(await cursor.fetchall())
        return [f"{s}.{t}" for s, t in tables if "*" not in (s, t) and (s, t) not in there]

    async def poll(self) -> Sequence[RowChange]:
        """What has been committed since the last time. Raises psycopg.Error."""
        cursor = await self._connection.execute(_QUERIES["poll"], {"slot": self._slot})
        decoded = [self._decoder.decode(message) for (message,) in await cursor.fetchall()]
        return [change for change in decoded if change is not None]


@asynccontextmanager
async def open_feed(dsn: str, database: str | None) -> AsyncIterator[Feed]:
    """A feed from now on. Raises psycopg.Error."""
    conninfo = make_conninfo(dsn, **({"dbname": database} if database else {}))
    connection = await AsyncConnection.connect(conninfo, autocommit=True, connect_timeout=5)
    async with connection:
        slot = f"supabase_realtime_stand_in_{secrets.token_hex(6)}"
        await connection.execute(_QUERIES["make_slot"], {"slot": slot})
        yield Feed(connection, slot)
