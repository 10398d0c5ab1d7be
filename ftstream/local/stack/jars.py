"""Downloads Kafka, Connect and Debezium from the pinned pom.xml once, and keeps them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ftstream.local.stack.errors import StackError
from ftstream.local.stack.lock import locked

POM = Path(__file__).with_name("pom.xml")

# Connect gives these to every plugin itself; a second copy in the plugin's folder is what makes
# "class X cannot be cast to class X" possible.
PROVIDED = ("connect-api-", "kafka-clients-", "slf4j-api-")


@dataclass(frozen=True)
class Jars:
    """One folder of jars: `kafka` for the class path, `plugins` for Connect's plugin.path, `jmx`."""

    folder: Path

    @property
    def classpath(self) -> str:
        return str(self.folder / "kafka" / "*")

    @property
    def plugins(self) -> Path:
        return self.folder / "plugins"

    @property
    def jmx_agent(self) -> Path:
        """What shows a JVM's metrics to Prometheus."""
        return self.folder / "jmx" / f"jmx_prometheus_javaagent-{pinned('jmx')}.jar"

    @property
    def present(self) -> bool:
        return self.folder.is_dir()


def pinned(name: str) -> str:
    """The version that the pom.xml pins: of `kafka`, `debezium` or `jmx`."""
    maven = "{http://maven.apache.org/POM/4.0.0}"
    found = ElementTree.parse(POM).findtext(f"{maven}properties/{maven}{name}.version")
    if found is None:
        raise StackError(f"{POM} pins no {name}")
    return found


def cache_folder() -> Path:
    """FTSTREAM_CACHE, or ~/.cache/ftstream."""
    chosen = os.environ.get("FTSTREAM_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "ftstream"


def cached() -> Jars:
    """Say where the jars of this pom.xml are, or will be: another pom has another folder."""
    # PROVIDED is part of the key, because it changes what the folder holds.
    digest = hashlib.sha256(POM.read_bytes() + repr(PROVIDED).encode()).hexdigest()
    return Jars(cache_folder() / f"jars-{digest[:16]}")


def fetch(maven: Path | None, progress: Callable[[str], None]) -> Jars:
    """The jars, downloaded if they are not here. Safe against other processes doing the same."""
    jars = cached()
    if jars.present:
        return jars
    jars.folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(jars.folder.with_suffix(".lock")):
        if not jars.present:
            if maven is None:
                raise StackError(f"{jars.folder} is gone and mvn was not found: run again")
            progress("jars: downloading Kafka, Connect and Debezium with Maven (once, about 80 MB)")
            _download(maven, jars)
            progress(f"jars: kept in {jars.folder}")
    return jars


def _download(maven: Path, jars: Jars) -> None:
    # Renamed into place when complete, so an interrupted download is never taken for a whole one.
    with tempfile.TemporaryDirectory(dir=jars.folder.parent, prefix="download-") as temporary:
        new = Path(temporary) / "jars"
        debezium = new / "plugins" / "debezium-connector-postgres"
        _copy_dependencies(maven, "kafka", new / "kafka")
        _copy_dependencies(maven, "debezium", debezium)
        _copy_dependencies(maven, "jmx", new / "jmx")
        for jar in debezium.glob("*.jar"):
            if jar.name.startswith(PROVIDED):
                jar.unlink()
        shutil.move(new, jars.folder)


def _copy_dependencies(maven: Path, profile: str, into: Path) -> None:
    argv = [str(maven), "-q", "-B", "-f", str(POM), "-P", profile]
    argv += ["dependency:copy-dependencies", f"-DoutputDirectory={into}", "-DincludeScope=runtime"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise StackError(
            f"Maven could not download the {profile} jars (is Maven Central reachable? "
            f"a proxy goes into ~/.m2/settings.xml). It said:\n{said}"
        )
