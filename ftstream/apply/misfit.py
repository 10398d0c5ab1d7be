"""Which column a value does not fit, or which table no row, which PostgreSQL does not say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from psycopg import sql

from ftstream.apply.merge import Effect, Patch, Upsert
from ftstream.apply.rows import Tables, execute_all
from ftstream.apply.schema import shape_of
from ftstream.apply.sites import ApplyFailed, Sites
from ftstream.apply.statements import Statements
from ftstream.apply.transaction import Transactions
from ftstream.failures import OF_ONE_TABLE, Failure
from ftstream.messages import toast
from ftstream.messages.change import Entity


class Misfits:
    """Tries the columns of a row one by one, the one that was to blame last first."""

    def __init__(self, sites: Sites, transactions: Transactions) -> None:
        self._sites = sites
        self._transactions = transactions
        self._suspects: dict[str, str] = {}

    async def named(
        self, failure: Failure, tables: Tables, rows: Mapping[Entity, Effect]
    ) -> Failure:
        """The failure with the column, if it is of one row's value."""
        if not failure.sqlstate.startswith("22") or len(rows) != 1:
            return failure
        (((table, _), effect),) = rows.items()
        match effect:
            case Upsert(image):
                shape = shape_of(effect)
            case Patch(columns, _):
                image, shape = toast.join(columns), frozenset(columns)
            case _:
                return failure
        singles = dict(tables[table].single(shape))
        suspect = self._suspects.get(table)
        for name in sorted(singles, key=lambda name: name != suspect):
            if await self._fails_with(singles[name], image) == failure.sqlstate:
                self._suspects[table] = name
                return replace(failure, message=f"{table}.{name}: {failure.message}")
        return failure

    async def unwritable(self, tables: Tables, names: Iterable[str]) -> dict[str, Failure]:
        """Return those of these tables whose statements fail without any row, and why."""
        found = {}
        for name in names:
            failure = await self._failure(tables[name].writing, [])
            if failure is not None and failure.sqlstate in OF_ONE_TABLE:
                found[name] = failure
        return found

    async def _fails_with(self, single: sql.Composed, image: bytes) -> str | None:
        """Write one column of a row, and take it back: the SQLSTATE of what happened."""
        failure = await self._failure((single,), [image])
        return None if failure is None else failure.sqlstate

    async def _failure(self, statements: Statements, images: Sequence[bytes]) -> Failure | None:
        """Write rows, and take them back: what went wrong."""
        try:
            async with self._sites.exclusively():
                target = await self._sites.target()
                async with target.transaction(force_rollback=True):
                    await self._transactions.open(target, "share")
                    await execute_all(target, statements, images)
        except ApplyFailed as error:
            return error.failure
        return None
