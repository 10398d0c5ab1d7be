"""The command line of a JVM of the stack, and the .properties file it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftstream.local.stack.jars import Jars

LOG4J = Path(__file__).with_name("log4j2.xml")


@dataclass(frozen=True)
class Jvm:
    """A java and the class path of Kafka and Connect."""

    java: Path
    jars: Jars

    def argv(
        self, main: str, *arguments: str, heap: str, options: Sequence[str] = ()
    ) -> tuple[str, ...]:
        return (
            str(self.java),
            "-Xms128m",
            f"-Xmx{heap}",
            "-XX:+ExitOnOutOfMemoryError",  # ended and seen, not half alive
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={LOG4J}",
            *options,
            "-cp",
            self.jars.classpath,
            main,
            *arguments,
        )


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Writes a .properties file; a backslash in a value would be an escape there."""
    lines = (f"{name}={value}".replace("\\", "\\\\") for name, value in properties.items())
    path.write_text("\n".join(lines) + "\n")
