"""Loads the demonstration schema, the same on both sites, into an empty database."""

from importlib.resources import files
from typing import Any

from psycopg import Connection


def load_schema(conn: Connection[Any]) -> None:
    """Create every type, table, trigger and policy of the demo in one transaction.

    The connection belongs to the owner of the database: a superuser, or an ordinary role
    that has CREATEROLE where authenticated and service_role are still missing.
    Raises psycopg.errors.DuplicateObject if the schema is there already.
    """
    _execute_file(conn, "schema.sql")


def has_schema(conn: Connection[Any]) -> bool:
    """Say whether the demo's tables are there."""
    row = conn.execute("select to_regclass('public.gfx_sessions') is not null").fetchone()
    return bool(row and row[0])


def _execute_file(conn: Connection[Any], filename: str) -> None:
    # Bytes, since psycopg takes text only as a literal of the program; no parameters, since
    # only then may one call hold many statements.
    script = files("ftstream.local.demo").joinpath(filename).read_bytes()
    with conn.transaction():
        conn.execute(script)
