"""The Avro schemas that are kept as files, FLOW/TABLE/NNN.avsc, every version that a message may be of."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ftstream.flows import Flow, Table
from ftstream.messages.avro_compatibility import unaccepted
from ftstream.messages.avro_schema import SchemaFileError, TableSchema, by_fingerprint, parse
from ftstream.settings import Settings, SettingsError

log = logging.getLogger(__name__)

PACKAGED = Path(str(files("ftstream"))) / "schemas"
"""In the package, because workers need them where no repository is; connectors/schemas is a link to it."""

AGAIN_SECONDS = 1.0
"""After which files are looked at again, for a schema that nobody knew."""

_NAME = re.compile(r"(\d{3,})\.avsc")


class NoFolder(Exception):
    """What is accepted here would be gone with the next installation."""


@dataclass(frozen=True, slots=True)
class Version:
    """One file."""

    number: int
    schema: TableSchema


class KeptSchemas:
    """The versions of one flow's schemas, in one folder or more; the last one takes new ones."""

    def __init__(self, flow: Flow, folders: Sequence[Path]) -> None:
        self._flow = flow
        self._folders = folders

    def versions(self, table: Table) -> tuple[Version, ...]:
        """From the oldest to the newest. Raises SchemaFileError.

        Where two folders have one number, which an upgrade may bring, both are kept, and the later folder's
        is the newer.
        """
        found = [version for folder in self._folders for version in self._of(folder, table)]
        return tuple(sorted(found, key=lambda version: version.number))

    def newest(self, table: Table) -> Version | None:
        return versions[-1] if (versions := self.versions(table)) else None

    def by_fingerprint(self) -> dict[bytes, TableSchema]:
        """Every version of every table, for a reader. Raises SchemaFileError."""
        return by_fingerprint(
            [version.schema for table in self._flow.tables for version in self.versions(table)]
        )

    def unaccepted(self, table: Table) -> list[str]:
        """Say how versions break with those before them, without anybody having accepted it."""
        return unaccepted([version.schema for version in self.versions(table)])

    def next_path(self, table: Table) -> Path:
        """Say where the next version goes. Raises NoFolder."""
        folder = self._folders[-1]
        if folder == PACKAGED and not (PACKAGED.parents[1] / "pyproject.toml").is_file():
            raise NoFolder(
                "this is no checkout of the repository: set schemas.folder to a folder that every worker"
                " can read, which keeps what is accepted here"
            )
        newest = self.newest(table)
        number = newest.number + 1 if newest else 1
        return folder / self._flow.name / table.name / f"{number:03}.avsc"

    def keep(self, table: Table, schema: TableSchema) -> Path:
        """Write the next version; no file is ever written over. Raises NoFolder."""
        path = self.next_path(table)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: a worker may be looking.
        unnamed = path.with_name(f".{path.name}.{os.getpid()}")
        unnamed.write_text(schema.text, encoding="utf-8")
        try:
            os.link(unnamed, path)
        finally:
            unnamed.unlink()
        return path

    def _of(self, folder: Path, table: Table) -> list[Version]:
        place = folder / self._flow.name / table.name
        paths = sorted(place.iterdir()) if place.is_dir() else []
        return [self._version(table, path) for path in paths if not path.name.startswith(".")]

    def _version(self, table: Table, path: Path) -> Version:
        named = _NAME.fullmatch(path.name)
        if named is None:
            raise SchemaFileError(
                f"{path}: a schema's file is named by its number, such as 001.avsc"
            )
        try:
            schema = parse(path.read_text(encoding="utf-8"))
        except (SchemaFileError, UnicodeDecodeError) as error:
            raise SchemaFileError(f"{path}: {error}") from error
        if (schema.flow, schema.table) != (self._flow.name, table.name):
            raise SchemaFileError(f"{path}: the schema of {schema.table} of flow {schema.flow}")
        return Version(int(named[1]), schema)


class Readable(Mapping[bytes, TableSchema]):
    """The flow's schemas by fingerprint; one that is not among them is looked for in the folders again.

    So a worker reads what was written with a schema that was accepted since it started.
    """

    def __init__(self, flow: Flow, settings: Settings) -> None:
        self._flow = flow
        self._settings = settings
        self._schemas: dict[bytes, TableSchema] = {}
        self._looked = -math.inf

    def load(self) -> None:
        """Look into the folders. Raises SchemaFileError, SettingsError, OSError."""
        self._looked = time.monotonic()
        self._schemas = kept_schemas(self._flow, self._settings).by_fingerprint()

    def __getitem__(self, fingerprint: bytes) -> TableSchema:
        if fingerprint not in self._schemas and time.monotonic() - self._looked > AGAIN_SECONDS:
            try:
                self.load()
            except (SchemaFileError, SettingsError, OSError) as error:
                log.warning("schema files cannot be read: %s", error)
        return self._schemas[fingerprint]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._schemas)

    def __len__(self) -> int:
        return len(self._schemas)


def kept_schemas(flow: Flow, settings: Settings) -> KeptSchemas:
    """Return what ftstream brings along, and what was accepted here. Raises SettingsError."""
    own = settings.schemas.folder
    if own is not None and not own.is_dir():
        # Without it, say while it is not mounted, old schemas would pass for the newest.
        raise SettingsError(f"schemas.folder: {own} is no folder: make it, or mount it")
    return KeptSchemas(flow, [PACKAGED] if own is None else [PACKAGED, own])
