"""Finds java, mvn and the PostgreSQL server, or says in one message what to install."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ftstream.local.stack.errors import MissingPrerequisites

JAVA_AT_LEAST = 17  # Kafka 4 and Debezium 3 are compiled for it
POSTGRES_AT_LEAST = 14  # pg_logical_emit_message without a table, used as Debezium's heartbeat
EXTENSIONS = ("citext", "hstore")

HOMEBREW = (Path("/opt/homebrew/opt"), Path("/usr/local/opt"))
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Package:
    """What is missing, and the package that brings it."""

    what: str
    debian: str
    homebrew: str


JAVA = Package(f"java {JAVA_AT_LEAST} or newer", "openjdk-17-jre-headless", "openjdk@17")
MAVEN = Package("mvn (Maven), to download Kafka and Debezium once", "maven", "maven")
POSTGRES = Package(
    f"the PostgreSQL server, {POSTGRES_AT_LEAST} or newer, with {' and '.join(EXTENSIONS)}",
    "postgresql",
    "postgresql@17",
)


def postgres_package(version: int | None) -> Package:
    """The server to install: any that is new enough, or the one that data was made with."""
    if version is None:
        return POSTGRES
    why = f"the PostgreSQL server {version}, which made this stack's data (or wipe the data)"
    return Package(why, f"postgresql-{version}", f"postgresql@{version}")


@dataclass(frozen=True)
class Programs:
    """Where the programs are; `maven` is None where the jars are already here."""

    java: Path
    maven: Path | None
    postgres_bin: Path
    postgres_version: int


def find(*, need_maven: bool, postgres_version: int | None = None) -> Programs:
    """All programs. Raises MissingPrerequisites, naming everything that is missing at once.

    `postgres_version` is the major version that made the data there is: no other can read it.
    """
    java, maven, postgres = find_java(), find_maven(), find_postgres(postgres_version)
    missing = [
        package
        for package, found in (
            (JAVA, java),
            (MAVEN, maven or not need_maven),
            (postgres_package(postgres_version), postgres),
        )
        if not found
    ]
    if java is None or postgres is None or missing:
        raise MissingPrerequisites(message(missing))
    return Programs(java, maven, *postgres)


def message(missing: Iterable[Package]) -> str:
    """One text for everything that is missing, with the line that installs it."""
    missing = list(missing)
    return "\n".join(
        [
            "The local stack needs programs that were not found:",
            *(f"  - {package.what}" for package in missing),
            "Install them:",
            f"  Debian or Ubuntu: sudo apt-get install {' '.join(p.debian for p in missing)}",
            f"  macOS:            brew install {' '.join(p.homebrew for p in missing)}",
            "or run scripts/prerequisites.sh, which installs only what is missing.",
        ]
    )


def find_java() -> Path | None:
    """The first java that is new enough: JAVA_HOME, then PATH, then Homebrew's (not on PATH)."""
    home = os.environ.get("JAVA_HOME")
    candidates = [Path(home) / "bin" / "java"] if home else []
    candidates += _on_path("java")
    candidates += [java for opt in HOMEBREW for java in sorted(opt.glob("openjdk*/bin/java"))]
    return next((java for java in candidates if (java_version(java) or 0) >= JAVA_AT_LEAST), None)


def find_maven() -> Path | None:
    return next(iter(_on_path("mvn")), None)


def find_postgres(wanted: int | None = None) -> tuple[Path, int] | None:
    """The folder of the newest server that will do, and its major version."""
    usable = [
        (version, folder)
        for folder in dict.fromkeys(_postgres_folders())
        if (version := postgres_version(folder)) and version >= POSTGRES_AT_LEAST
        if wanted in (None, version) and _has_extensions(folder)
    ]
    if not usable:
        return None
    version, folder = max(usable)
    return folder, version


def java_version(java: Path) -> int | None:
    """The major version, or None where the program is missing or does not run."""
    # macOS has a stub /usr/bin/java that fails until a real one is installed.
    found = re.search(r'version "(\d+)(?:\.(\d+))?', _output([str(java), "-version"]) or "")
    if not found:
        return None
    major = int(found[1])
    return int(found[2] or 0) if major == 1 else major  # Java 8 calls itself 1.8


def postgres_version(folder: Path) -> int | None:
    """The major version of the server in a folder that has both initdb and postgres."""
    if not (folder / "initdb").exists():
        return None
    found = re.search(r"\(PostgreSQL\) (\d+)", _output([str(folder / "postgres"), "-V"]) or "")
    return int(found[1]) if found else None


def _postgres_folders() -> Iterable[Path]:
    for pg_config in _on_path("pg_config"):
        yield Path((_output([str(pg_config), "--bindir"]) or "").strip())
    yield from sorted(DEBIAN_POSTGRES.glob("*/bin"))
    for opt in HOMEBREW:
        yield from sorted(opt.glob("postgresql*/bin"))
    for initdb in _on_path("initdb"):
        yield initdb.resolve().parent


def _has_extensions(folder: Path) -> bool:
    """Say whether the contrib extensions are installed (told where there is a pg_config)."""
    share = (_output([str(folder / "pg_config"), "--sharedir"]) or "").strip()
    controls = (Path(share) / "extension" / f"{name}.control" for name in EXTENSIONS)
    return not share or all(control.exists() for control in controls)


def _on_path(program: str) -> list[Path]:
    found = shutil.which(program)
    return [Path(found)] if found else []


def _output(argv: list[str]) -> str | None:
    """Both outputs of a program (java prints its version to the second), or None if it fails."""
    if not Path(argv[0]).exists():
        return None
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode == 0 else None
