"""docker/ agrees with the local stack, and its compose file is one that Compose can read."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftstream.local.stack import Stack, state
from ftstream.local.stack.connect import ConnectWorker
from ftstream.local.stack.jars import PROVIDED, Jars, pinned
from ftstream.local.stack.java import Jvm
from ftstream.local.stack.kafka import MESSAGE_BYTES
from ftstream.local.stack.postgres import SETTINGS
from ftstream.local.stack.state import CONNECT_USER

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = DOCKER / "compose.yaml"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def test_the_compose_file_is_valid() -> None:
    check = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run([sys.executable, *check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_kafka_is_the_version_of_the_pom(compose: dict[str, Any]) -> None:
    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{pinned('kafka')}"
    dockerfile = (DOCKER / "connect" / "Dockerfile").read_text()
    assert f"ARG KAFKA_VERSION={pinned('kafka')}\n" in dockerfile


def test_debezium_comes_from_the_pom_itself() -> None:
    dockerfile = (DOCKER / "connect" / "Dockerfile").read_text()
    assert "COPY ftstream/local/stack/pom.xml" in dockerfile
    assert pinned("debezium") not in dockerfile
    for jar in PROVIDED:
        assert f"/plugins/*/{jar}*.jar" in dockerfile


def test_connect_is_configured_as_in_the_local_stack(tmp_path: Path) -> None:
    jvm = Jvm(Path("java"), Jars(tmp_path))
    local = ConnectWorker(
        tmp_path / "connect", tmp_path / "log", 8083, "localhost:9092", jvm, "secret", "login"
    )
    local.prepare()
    here = {"bootstrap.servers", "listeners", "rest.advertised.host.name", "plugin.path"}
    in_docker = properties(DOCKER / "connect" / "connect.properties")
    on_host = properties(local.properties)
    assert in_docker.keys() == on_host.keys()
    assert {k: v for k, v in in_docker.items() if k not in here} == {
        k: v for k, v in on_host.items() if k not in here
    }


def test_nobody_changes_a_connector_without_a_login(compose: dict[str, Any]) -> None:
    settings = properties(DOCKER / "connect" / "connect.properties")
    assert settings["rest.extension.classes"].endswith(".BasicAuthSecurityRestExtension")
    dockerfile = (DOCKER / "connect" / "Dockerfile").read_text()
    assert "java.security.auth.login.config=/opt/ftstream/jaas.conf" in dockerfile
    (mounted,) = compose["services"]["connect"]["configs"]
    assert f'file="{mounted["target"]}"' in (DOCKER / "connect" / "jaas.conf").read_text()
    logins = compose["configs"][mounted["source"]]["content"]
    assert logins.startswith(f"{CONNECT_USER}=${{CONNECT_PASSWORD")


def test_kafka_takes_messages_of_the_same_size(compose: dict[str, Any]) -> None:
    environment = compose["services"]["kafka"]["environment"]
    assert environment["KAFKA_MESSAGE_MAX_BYTES"] == MESSAGE_BYTES
    assert environment["KAFKA_REPLICA_FETCH_MAX_BYTES"] == MESSAGE_BYTES


@pytest.mark.parametrize("site", ["external", "supabase"])
def test_postgres_has_the_settings_of_the_local_stack(compose: dict[str, Any], site: str) -> None:
    arguments = compose["services"][site]["command"]
    settings = dict(each.split("=", 1) for each in arguments if "=" in each)
    assert settings["wal_level"] == "logical"
    assert settings.items() <= SETTINGS.items()


def test_ports_are_bound_to_loopback_only(compose: dict[str, Any]) -> None:
    published = [
        port for service in compose["services"].values() for port in service.get("ports", [])
    ]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_service_that_answers_has_a_health_check(compose: dict[str, Any]) -> None:
    without = {
        name for name, service in compose["services"].items() if "healthcheck" not in service
    }
    assert without == {"setup", "worker"}


def test_every_password_must_be_chosen_and_is_in_the_example() -> None:
    text = COMPOSE.read_text()
    used = set(re.findall(r"\$\{(\w+)", text))
    required = set(re.findall(r"\$\{(\w+):\?", text))
    example = set(re.findall(r"^(\w+)=$", (DOCKER / ".env.example").read_text(), re.MULTILINE))
    assert used == required == example
    assert not re.search(r"^\s*\w*PASSWORD: (?!\$\{)", text, re.MULTILINE)


def test_the_settings_of_the_worker_have_the_shape_of_the_local_stack(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    state.save(tmp_path / "stack.json", state.new_state(tmp_path / "postgres", 17))
    local = tomllib.loads(Stack(tmp_path).settings_toml())
    del local["realtime"]  # none in containers: the publisher looks by itself
    in_docker = tomllib.loads(compose["configs"]["ftstream"]["content"])
    for word in ("admin_dsn", "capture_password"):
        assert word not in compose["configs"]["ftstream"]["content"]
    for name, keys in tomllib.loads(compose["configs"]["ftstream_admin"]["content"]).items():
        in_docker[name] |= keys
    assert [each["source"] for each in compose["services"]["worker"]["configs"]] == ["ftstream"]
    assert {name: set(keys) for name, keys in in_docker.items()} == {
        name: set(keys) for name, keys in local.items()
    }


def test_every_file_that_compose_mounts_or_builds_is_there(compose: dict[str, Any]) -> None:
    volumes = [v for service in compose["services"].values() for v in service.get("volumes", [])]
    sources = [volume.split(":")[0] for volume in volumes]
    files = [source for source in sources if source.startswith(".")]
    builds = [s["build"]["dockerfile"] for s in compose["services"].values() if "build" in s]
    assert files and builds
    for path in [*(DOCKER / source for source in files), *(ROOT / build for build in builds)]:
        assert path.is_file(), path


def test_no_image_runs_as_root() -> None:
    for dockerfile in DOCKER.rglob("Dockerfile"):
        users = re.findall(r"^USER (\S+)$", dockerfile.read_text(), re.MULTILINE)
        assert users, dockerfile
        assert users[-1] != "root", dockerfile


def properties(path: Path) -> dict[str, str]:
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)
