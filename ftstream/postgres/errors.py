"""PostgreSQL's errors, as the one table of failures classifies them."""

from __future__ import annotations

import psycopg

from ftstream.failures import Failure, Policy, classify


def failure_of(error: psycopg.Error) -> Failure:
    """Classify PostgreSQL's error; the message names table and column where it knows them."""
    if not error.sqlstate and not isinstance(
        error, psycopg.OperationalError | psycopg.InterfaceError
    ):
        return Failure(Policy.HALT, "", str(error), "a fault of ftstream: please report it")
    diagnosis = error.diag
    where = ".".join(filter(None, (diagnosis.table_name, diagnosis.column_name)))
    message = (diagnosis.message_primary or str(error)).strip()
    return classify(
        error.sqlstate,
        f"{where}: {message}" if where else message,
        diagnosis.table_name,
        diagnosis.message_detail or "",
    )
