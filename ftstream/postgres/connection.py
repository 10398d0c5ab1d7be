"""Connections as ftstream uses them: bytes of JSON go to PostgreSQL as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from psycopg import AsyncConnection, IsolationLevel, OperationalError
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.postgres import types

from ftstream.flows import Site
from ftstream.postgres.queries import Queries
from ftstream.settings import Settings

_REFUSED = re.compile(
    r"authentication failed|no pg_hba.conf entry|role .* (does not exist|is not permitted)"
)

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


class SiteUnreachable(OperationalError):
    """A site's database does not answer, or refuses the login."""

    def __init__(self, site: Site, role: str, reason: str) -> None:
        reason = " ".join(reason.split())
        if _REFUSED.search(reason):
            hint = (
                f"are user and password in {site}.{role} right? Before the first `ftstream init` there may be"
                " no such role"
            )
        else:
            hint = f"is it up, and is {site}.{role} right?"
        super().__init__(f"{site} does not answer: {reason}: {hint}")
        self.site = site


async def open_site(settings: Settings, site: Site, *, admin: bool = False) -> AsyncConnection:
    """A connection to a site, as the role of the settings or the administrator. Raises SiteUnreachable."""
    database = settings.database(site)
    try:
        return await open_connection(database.conninfo(admin=admin))
    except OperationalError as error:
        name, _ = database.login(admin=admin)
        raise SiteUnreachable(site, name, str(error)) from error


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
