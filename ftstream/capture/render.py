"""Writes connectors/*.json: the connectors as they would be with the guidelines' example settings.

python -m ftstream.capture.render [FOLDER]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr

from ftstream.capture.connectors import rendered
from ftstream.flows import FLOWS, CaptureNames, log_captures
from ftstream.settings import ApplySettings, ConnectSettings, Database, KafkaSettings, Settings

FOLDER = Path("connectors")


def example_settings() -> Settings:
    """The guidelines' names (3.1), whatever this machine's environment and ftstream.toml say."""
    return Settings.model_construct(
        namespace="",
        external=Database(
            dsn=SecretStr("host=external-postgres-host port=5432 dbname=gfx_production")
        ),
        supabase=Database(),
        kafka=KafkaSettings(bootstrap_servers="kafka:9092"),
        connect=ConnectSettings(),
        apply=ApplySettings(),
    )


def examples() -> Iterator[tuple[str, str]]:
    """The file name and text of each connector there is."""
    settings = example_settings()
    for names in map(CaptureNames, log_captures(FLOWS)):
        yield f"{names.connector}.json", rendered(names, settings)


def write(folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for filename, text in examples():
        (folder / filename).write_text(text)


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:2]))
