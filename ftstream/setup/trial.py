"""Tries what `init` promises: each role reads its tables, and where it writes, writes and takes it back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

import psycopg
from psycopg import AsyncConnection, sql

from ftstream.flows import Table
from ftstream.postgres.connection import SESSION, open_connection
from ftstream.postgres.queries import Queries, identifier, statement
from ftstream.setup.expectations import Wanted
from ftstream.setup.problem import Problem

_QUERIES = Queries.load(__package__, "trial.sql")


async def trials(
    wanted: Wanted, conninfos: Mapping[str, str], admin: AsyncConnection
) -> list[Problem]:
    """Return what a role cannot do, of those that can be logged in as from here; `conninfos` by role.

    The administrator, a member of the definer role, tries what that one can read.
    """
    definer = wanted.definer_role
    async with admin.transaction(force_rollback=True):
        become = statement(_QUERIES["become"]).format(role=sql.Identifier(definer))
        await admin.execute(become)
        found = [p async for p in _tried(admin, wanted, definer, wanted.reaching, "read")]
    written = [table for flow in wanted.applied for table in flow.tables]
    for role, conninfo in conninfos.items():
        applies = role == wanted.apply_role
        captured = [table for capture in wanted.captures for table in capture.tables]
        read = captured if role == wanted.capture_role else wanted.tables
        try:
            async with await open_connection(conninfo) as connection:
                found += [p async for p in _tried(connection, wanted, role, read, "read")]
                if applies:
                    found += [p async for p in _tried(connection, wanted, role, written, "write")]
        except psycopg.OperationalError:
            continue  # the preflight has said so, where it matters
    return found


async def _tried(
    connection: AsyncConnection, wanted: Wanted, role: str, tables: Iterable[Table], what: str
) -> AsyncIterator[Problem]:
    for table in tables:
        try:
            async with connection.transaction(force_rollback=True):
                if what == "write":
                    await connection.execute(statement(SESSION["triggers_off"]))
                for query in _steps(what):
                    names = {
                        "table": identifier(table.schema, table.name),
                        "key": identifier(table.key),
                    }
                    await connection.execute(statement(_QUERIES[query]).format(**names))
        except psycopg.errors.LockNotAvailable:
            continue  # somebody works on the row: it may be written
        except psycopg.Error as error:
            yield Problem(
                wanted.site.value,
                f"role {role} cannot {what} {table.qualified}: {' '.join(str(error).split())}",
                _hint(error, role),
            )


def _steps(what: str) -> Iterator[str]:
    yield "patience"
    if what == "write":
        yield from ("as_ftstream", "lock", "delete")
    else:
        yield "read"


def _hint(error: psycopg.Error, role: str) -> str:
    """Row level security runs what its policies call with the rights of who reads."""
    match error:
        case psycopg.errors.InsufficientPrivilege():
            return (
                f'A policy of the table may call what "{role}" must not: grant it that (GRANT USAGE ON SCHEMA'
                f' ... TO "{role}"), or ALTER ROLE "{role}" BYPASSRLS'
            )
        case _:
            return "See the message"
