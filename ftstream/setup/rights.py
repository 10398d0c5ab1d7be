"""What each of ftstream's roles may do, with what the catalogs tell of foreign keys and policies.

Pure. The functions in schema ftstream are called by whoever writes, and by the worker, and do what neither
may. So the role that they run as, the definer role, has no login, and rights on the flows' tables and on what
those lead to alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from ftstream.setup.expectations import DEFINER_POLICY, Right, RowPolicy, Wanted

_DEFINER = {
    "ftstream.last_write": ("SELECT", "INSERT", "UPDATE"),
    "ftstream.outbox": ("SELECT", "INSERT", "DELETE"),
    "ftstream.displaced": ("SELECT", "DELETE"),
    "ftstream.turn": ("SELECT", "UPDATE"),
}


@dataclass(frozen=True, slots=True)
class Reached:
    """A foreign key that leads from a flow's table to another one, which is its `parent` or `child`.

    `trusted`: one role owns both ends of it, and of those that lead there.
    """

    table: str
    way: str
    trusted: bool
    key: str
    owner: str


@dataclass(frozen=True, slots=True)
class UsedSchema:
    """A schema with types of the table's columns, or functions that a `policy` of it calls.

    The administrator may grant its use.
    """

    table: str
    schema: str
    policy: bool


def all_rights(
    wanted: Wanted,
    reached: Sequence[Reached],
    schemas: Sequence[UsedSchema],
    bypassing: Collection[str],
) -> frozenset[Right]:
    """Return what all roles are to have; `bypassing` are those that no policy binds."""
    rights = wanted.apply_rights | wanted.capture_rights | wanted.watch_rights
    rights |= _definer_rights(wanted, reached)
    return rights | {
        Right(right.role, "schema", used.schema, "USAGE")
        for right in rights
        for used in schemas
        if right.kind == "table" and right.object == used.table
        if not (used.policy and right.role in bypassing)
    }


def all_policies(wanted: Wanted, reached: Sequence[Reached]) -> tuple[RowPolicy, ...]:
    """Return those by which row level security hides nothing from them."""
    definer = (
        RowPolicy(table, DEFINER_POLICY, wanted.definer_role, "ALL")
        for table, _ in _definer_tables(wanted, reached)
    )
    return (*wanted.policies, *definer)


def _definer_rights(wanted: Wanted, reached: Sequence[Reached]) -> frozenset[Right]:
    role = wanted.definer_role
    rights = {Right(role, "schema", "ftstream", right) for right in ("USAGE", "CREATE")}
    rights.add(Right(role, "table", "ftstream.foreign_keys", "SELECT"))
    for table, privileges in _definer_tables(wanted, reached):
        rights |= {Right(role, "table", table, privilege) for privilege in privileges}
        rights.add(Right(role, "schema", table.partition(".")[0], "USAGE"))
    return frozenset(rights)


def _definer_tables(
    wanted: Wanted, reached: Sequence[Reached]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name each table once; to lock a row takes UPDATE, too."""
    privileges = {name: set(rights) for name, rights in _DEFINER.items()}
    reaching = {table.qualified for table in wanted.reaching}
    carried = {table.qualified for table in wanted.tables}
    for name in reaching:
        privileges[name] = {"SELECT", "UPDATE", "DELETE"}
    for each in reached:
        if each.trusted and each.table not in reaching:
            more = {"child": {"DELETE"}, "parent": set() if each.table in carried else {"INSERT"}}
            privileges.setdefault(each.table, {"SELECT", "UPDATE"}).update(more[each.way])
    return ((name, tuple(sorted(rights))) for name, rights in sorted(privileges.items()))
