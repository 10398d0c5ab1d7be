"""ftstream's own schema: tables by numbered migrations, applied once, and functions as their rooms have them.

Functions stand in functions.sql of the room they belong to, and are made again whenever that file changes.
The schema as a whole is shown by schema.sql.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from psycopg import AsyncConnection, sql
from psycopg.rows import class_row

from ftstream.flows import Site
from ftstream.postgres.queries import Queries, statement

_QUERIES = Queries.load(__package__, "migrate.sql")
_FILE = re.compile(r"(\d{3})_([a-z0-9_]+)\.sql")
_FOLDERS: Mapping[Site, tuple[str, ...]] = {
    Site.EXTERNAL: ("both",),
    Site.SUPABASE: ("both", "supabase"),
}
_ROOMS: Mapping[Site, tuple[str, ...]] = {
    Site.EXTERNAL: ("apply", "last_write", "capture", "watch"),
    Site.SUPABASE: ("apply", "last_write", "capture", "watch", "capture.batch"),
}
FUNCTIONS = 1000
"""What the numbers of files of functions begin with: they come after every table."""

BASELINE = 19
_FOLDED: Mapping[Site, frozenset[int]] = {
    Site.EXTERNAL: frozenset({*range(1, BASELINE)} - {3, 5, 11, 13}),
    Site.SUPABASE: frozenset(range(1, BASELINE)),
}
"""The migrations that the baseline has come from: a database that has them all has what it makes."""


class MigrationChanged(Exception):
    """A migration that was applied is not the one this version of ftstream holds."""


@dataclass(frozen=True, slots=True)
class AppliedMigration:
    """A migration that the database has seen."""

    version: int
    name: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Migration:
    """One file; its number is unique over all folders, so that sites may have different ones."""

    version: int
    name: str
    script: str

    @property
    def functions(self) -> bool:
        """Whether it may run again."""
        return self.version >= FUNCTIONS

    @property
    def label(self) -> str:
        return f"{self.version:03d}_{self.name}"

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, which a checkout with other line ends does not change."""
        return hashlib.sha256("\n".join(self.script.splitlines()).encode()).hexdigest()


def migrations(site: Site) -> tuple[Migration, ...]:
    """Return what this version of ftstream has for a site, in order."""
    root = files(__package__).joinpath("migrations")
    found = [_read(file) for folder in _FOLDERS[site] for file in root.joinpath(folder).iterdir()]
    functions = [
        Migration(number, f"{room.replace('.', '_')}_functions", _functions(room))
        for number, room in enumerate(_ROOMS[site], FUNCTIONS)
    ]
    return (*sorted(found, key=lambda migration: migration.version), *functions)


def folded(site: Site, applied: Sequence[AppliedMigration]) -> tuple[AppliedMigration, ...]:
    """Return what a database has seen, the migrations before the baseline taken for the baseline.

    Raises MigrationChanged.
    """
    seen = {entry.version for entry in applied if entry.version < BASELINE}
    if not seen:
        return tuple(applied)
    if missing := sorted(_FOLDED[site] - seen):
        raise MigrationChanged(
            f"the schema ftstream lacks the migrations {', '.join(map(str, missing))}, which this version"
            " of ftstream has only as a whole: run `ftstream init` of the version before it first"
        )
    later = [entry for entry in applied if entry.version >= BASELINE]
    return (*(AppliedMigration(m.version, m.name, m.checksum) for m in _baseline(site)), *later)


def pending(
    known: Sequence[Migration], applied: Sequence[AppliedMigration]
) -> tuple[Migration, ...]:
    """Return those still to be applied, in order. Raises MigrationChanged, naming all that differ."""
    seen = {entry.version: entry for entry in applied}
    differ = [m for m in known if m.version in seen and seen[m.version].checksum != m.checksum]
    changed = [m.label for m in differ if not m.functions]
    unknown = sorted(seen.keys() - {m.version for m in known})
    if changed:
        raise MigrationChanged(
            f"applied with another content: {', '.join(changed)}. A migration never changes once"
            " it is applied: put the file back as it was, and the change into a new migration"
        )
    if unknown:
        raise MigrationChanged(
            f"the database has migrations that this version of ftstream does not know:"
            f" {', '.join(map(str, unknown))}. Install the version that made them, or a later one"
        )
    return tuple(m for m in known if m.version not in seen or m in differ)


def bootstrap() -> sql.SQL:
    """Makes the schema and its record; runs again without effect."""
    return statement(_QUERIES["bootstrap"])


def script(migration: Migration) -> sql.SQL:
    """The migration's own statements."""
    return statement(migration.script)


def fold(site: Site) -> sql.Composed:
    """Has the record of a database from before the baseline say that it has it; elsewhere without effect."""
    records = sql.SQL(";\n").join(record(migration) for migration in _baseline(site))
    return statement(_QUERIES["fold"]).format(
        baseline=BASELINE, count=len(_FOLDED[site]), records=records
    )


def record(migration: Migration) -> sql.Composed:
    """Notes that the migration is applied."""
    return statement(_QUERIES["record"]).format(
        version=migration.version, name=migration.name, checksum=migration.checksum
    )


def once(migration: Migration) -> sql.Composed:
    """Applies and records the migration in any database that has not seen it."""
    return statement(_QUERIES["once"]).format(
        version=migration.version,
        checksum=migration.checksum,
        again=migration.functions,
        script=migration.script,
        record=record(migration),
    )


async def lock(connection: AsyncConnection) -> None:
    """Wait for others who migrate or provision this database; for the rest of the transaction."""
    row = await (await connection.execute(statement(_QUERIES["turns"]))).fetchone()
    before = bool(row and row[0])
    await connection.execute(statement(_QUERIES["lock" if before else "first_lock"]))


async def read_applied(connection: AsyncConnection) -> tuple[AppliedMigration, ...]:
    """Return what the database has seen; nothing where there is no record yet."""
    recorded = await (await connection.execute(statement(_QUERIES["recorded"]))).fetchone()
    if not recorded or not recorded[0]:
        return ()
    async with connection.cursor(row_factory=class_row(AppliedMigration)) as cursor:
        await cursor.execute(statement(_QUERIES["applied"]))
        return tuple(await cursor.fetchall())


async def migrate(connection: AsyncConnection, site: Site) -> tuple[str, ...]:
    """Apply what is pending in one transaction, and return the labels. Raises MigrationChanged."""
    async with connection.transaction():
        await lock(connection)
        due = pending(migrations(site), folded(site, await read_applied(connection)))
        if due:
            await connection.execute(bootstrap())
            await connection.execute(fold(site))
        for migration in due:
            await connection.execute(script(migration))
            await connection.execute(record(migration))
        return tuple(migration.label for migration in due)


def _baseline(site: Site) -> tuple[Migration, ...]:
    return tuple(m for m in migrations(site) if m.version in (BASELINE, BASELINE + 1))


def _functions(room: str) -> str:
    return files(f"ftstream.{room}").joinpath("functions.sql").read_text(encoding="utf-8")


def _read(file: Traversable) -> Migration:
    match = _FILE.fullmatch(file.name)
    if match is None:
        raise ValueError(f"{file.name}: a migration is called NNN_name.sql")
    return Migration(int(match[1]), match[2], file.read_text(encoding="utf-8"))
