"""docker/ agrees with the local stack, and its compose file is one that Compose can read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftstream.failures import Severity
from ftstream.local.stack import Stack, state
from ftstream.local.stack.connect import ConnectWorker
from ftstream.local.stack.jars import PROVIDED, Jars, pinned
from ftstream.local.stack.java import Jvm
from ftstream.local.stack.kafka import MESSAGE_BYTES
from ftstream.local.stack.postgres import SETTINGS
from ftstream.local.stack.state import CONNECT_USER
from ftstream.watch.codes import CODES

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
    assert without == {"setup"}


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
    del in_docker["listen"]  # a network of its own: Prometheus is another machine there
    for word in ("admin_dsn", "capture_password", "watch_dsn"):
        assert word not in compose["configs"]["ftstream"]["content"]
    for name, keys in tomllib.loads(compose["configs"]["ftstream_admin"]["content"]).items():
        in_docker[name] |= keys
    assert [each["source"] for each in compose["services"]["worker"]["configs"]] == ["ftstream"]
    assert {name: set(keys) for name, keys in in_docker.items()} == {
        name: set(keys) for name, keys in local.items()
    }


def test_the_watcher_holds_no_password_of_the_worker(compose: dict[str, Any]) -> None:
    content = compose["configs"]["ftstream_watch"]["content"]
    settings = tomllib.loads(content)
    worker = tomllib.loads(compose["configs"]["ftstream"]["content"])
    assert "APPLY_PASSWORD" not in content
    assert [each["source"] for each in compose["services"]["watch"]["configs"]] == [
        "ftstream_watch"
    ]
    for site in ("external", "supabase"):
        without = re.sub(r":\$\{[^}]*\}@", "@", worker[site]["dsn"])
        assert settings[site]["dsn"] == without
    assert {k: v for k, v in settings.items() if k not in ("external", "supabase", "listen")} == {
        k: v for k, v in worker.items() if k not in ("external", "supabase", "listen")
    }


def test_what_answers_in_containers_is_what_prometheus_reads(compose: dict[str, Any]) -> None:
    scraped = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    targets = {
        target
        for job in scraped["scrape_configs"]
        for each in job.get("static_configs", ())
        for target in each["targets"]
    } | {
        f"{name}:{found['port']}"
        for job in scraped["scrape_configs"]
        for found in job.get("dns_sd_configs", ())
        for name in found["names"]
    }
    listening = {
        f"{service}:{tomllib.loads(compose['configs'][config]['content'])['listen'][name].split(':')[1]}"
        for service, config, name in (
            ("worker", "ftstream", "worker"),
            ("watch", "ftstream_watch", "watcher"),
        )
    }
    assert targets == {*listening, "connect:9404"}
    assert "=9404:" in (DOCKER / "connect" / "Dockerfile").read_text()


def test_alerts_of_prometheus_and_panels_lead_somewhere(compose: dict[str, Any]) -> None:
    rules = yaml.safe_load((DOCKER / "prometheus" / "rules.yml").read_text())
    found = [rule for group in rules["groups"] for rule in group["rules"]]
    for rule in found:
        code = rule["labels"].get("code")
        link = f"http://127.0.0.1:18472/explain/{code}" if code else "docs/metrics.md"
        assert code is None or code in CODES
        assert rule["annotations"]["runbook_url"] == link, rule["alert"]
        assert rule["labels"]["severity"] in set(Severity)
    assert "127.0.0.1:18472:8472" in compose["services"]["watch"]["ports"]
    dashboard = json.loads((DOCKER / "grafana" / "dashboards" / "ftstream.json").read_text())
    assert all(panel["targets"] and panel["title"] for panel in dashboard["panels"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


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
