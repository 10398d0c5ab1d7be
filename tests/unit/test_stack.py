"""The local stack without starting it: what is pure, and what must never happen."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import psutil
import pytest

from ftstream.local.stack import (
    NAMES,
    MissingPrerequisites,
    Stack,
    StackError,
    jars,
    lock,
    ports,
    prerequisites,
    process,
    state,
)
from ftstream.local.stack.connect import ConnectWorker
from ftstream.local.stack.errors import tail
from ftstream.local.stack.java import Jvm
from ftstream.local.stack.kafka import new_cluster_id
from ftstream.local.stack.realtime import RealtimeProcess


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """A stack that has been set up but runs nothing."""
    stack = Stack(tmp_path)
    state.save(tmp_path / "stack.json", state.new_state(tmp_path / "postgres", 17))
    return stack


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[process.Identity]:
    argv = (sys.executable, "-c", "import time; time.sleep(60)")
    identity = process.spawn(process.Command(argv, folder=tmp_path, log=tmp_path / "sleeper.log"))
    yield identity
    process.send(identity, signal.SIGKILL)


# -- prerequisites


def test_everything_that_is_missing_is_named_in_one_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(prerequisites, "DEBIAN_POSTGRES", tmp_path)
    monkeypatch.setattr(prerequisites, "HOMEBREW", ())
    with pytest.raises(MissingPrerequisites) as raised:
        prerequisites.find(need_maven=True)
    message = str(raised.value)
    assert "apt-get install openjdk-17-jre-headless maven postgresql" in message
    assert "brew install openjdk@17 maven postgresql@17" in message
    for what in ("java 17", "mvn", "PostgreSQL server, 14"):
        assert what in message


def test_only_what_is_missing_is_asked_for() -> None:
    message = prerequisites.message([prerequisites.MAVEN])
    assert "apt-get install maven\n" in message
    assert "openjdk" not in message


def test_data_made_by_one_version_asks_for_that_version() -> None:
    assert prerequisites.postgres_package(15).debian == "postgresql-15"


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('java version "1.8.0_392"', 8),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
    ],
)
def test_the_version_of_java_is_read_from_what_it_says(
    tmp_path: Path, said: str, version: int | None
) -> None:
    java = tmp_path / "java"
    java.write_text(f'#!/bin/sh\ncat >&2 <<"SAID"\n{said}\nSAID\n')
    java.chmod(0o755)
    assert prerequisites.java_version(java) == version


# -- settings and state


def test_settings_have_the_shape_that_the_cli_reads(stack: Stack) -> None:
    settings = tomllib.loads(stack.settings_toml())
    assert {section: set(keys) for section, keys in settings.items()} == {
        "external": {"admin_dsn", "dsn", "watch_dsn"},
        "supabase": {"admin_dsn", "dsn", "watch_dsn"},
        "kafka": {"bootstrap_servers"},
        "connect": {"url", "username", "password", "capture_password"},
        "realtime": {"url", "key"},
    }
    assert settings["external"]["admin_dsn"].startswith("postgresql://admin:")
    assert settings["external"]["admin_dsn"].endswith("/gfx_production")
    assert settings["supabase"]["admin_dsn"].startswith("postgresql://postgres:")
    assert settings["supabase"]["dsn"].startswith("postgresql://ftstream_apply:")
    assert settings["connect"]["capture_password"] == stack.debezium_password


def test_files_with_passwords_are_readable_by_their_owner_only(stack: Stack) -> None:
    for path in (stack.write_settings(), stack.folder / "stack.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_password_is_different(stack: Stack) -> None:
    made = state.load(stack.folder / "stack.json")
    assert made is not None
    found = [word for site in made.passwords.values() for word in site.values()]
    found += [made.debezium_password, made.connect_password, made.realtime_key]
    assert len(set(found)) == len(found) == 10


def test_the_state_survives_a_round_trip(tmp_path: Path) -> None:
    made = state.new_state(tmp_path, 17)
    made.processes["kafka"] = process.Identity(pid=1, started=2.5)
    made.starting.add("kafka")
    state.save(tmp_path / "stack.json", made)
    assert state.load(tmp_path / "stack.json") == made


def test_a_damaged_state_says_which_file_it_is(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{")
    with pytest.raises(StackError, match=r"stack\.json cannot be read"):
        Stack(tmp_path).status()


def test_a_dsn_for_an_unknown_role_names_those_it_knows(stack: Stack) -> None:
    with pytest.raises(StackError, match="admin, ftstream_apply"):
        stack.dsn("external", "nobody")


def test_without_a_stack_the_message_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="ftstream dev up"):
        _ = Stack(tmp_path).connect_url
    assert Stack(tmp_path).status() == []


def test_the_password_of_debezium_is_in_the_environment_and_in_no_file(tmp_path: Path) -> None:
    jvm = Jvm(Path("java"), jars.Jars(tmp_path / "jars"))
    connect = ConnectWorker(
        tmp_path / "connect", tmp_path / "log", 8083, "localhost:9092", jvm, "secret", "login"
    )
    connect.prepare()
    assert connect.command().environment == {"DEBEZIUM_PASSWORD": "secret"}
    for path in connect.folder.iterdir():
        assert "secret" not in path.read_text()
    assert "secret" not in repr(connect)


def test_the_login_to_connect_is_in_one_file_that_its_owner_reads(tmp_path: Path) -> None:
    jvm = Jvm(Path("java"), jars.Jars(tmp_path / "jars"))
    connect = ConnectWorker(
        tmp_path / "connect", tmp_path / "log", 8083, "localhost:9092", jvm, "secret", "hunter2"
    )
    connect.prepare()
    (holds,) = [path for path in connect.folder.iterdir() if "hunter2" in path.read_text()]
    assert stat.S_IMODE(holds.stat().st_mode) == 0o600
    command = connect.command()
    assert "hunter2" not in " ".join(command.argv) + repr(command.environment) + repr(connect)


def test_the_stand_in_for_realtime_has_its_secrets_in_the_environment_alone(tmp_path: Path) -> None:
    dsn = "postgresql://a:secret@h/db"
    realtime = RealtimeProcess(tmp_path, tmp_path / "log", 15000, dsn, "secret-key")
    assert realtime.command().environment == {"REALTIME_DSN": dsn, "REALTIME_API_KEY": "secret-key"}
    assert "secret" not in repr(realtime) + " ".join(realtime.command().argv)


def test_ports_are_distinct_and_below_those_of_outgoing_connections() -> None:
    chosen = ports.choose_ports(5)
    assert len(set(chosen)) == 5
    assert all(ports.LOWEST <= port < ports.HIGHEST for port in chosen)


def test_a_cluster_id_is_never_taken_for_an_option() -> None:
    assert not any(new_cluster_id().startswith("-") for _ in range(300))


def test_another_pom_has_another_folder_of_jars(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FTSTREAM_CACHE", str(tmp_path))
    before = jars.cached()
    pom = tmp_path / "pom.xml"
    pom.write_bytes(jars.POM.read_bytes() + b"\n")
    monkeypatch.setattr(jars, "POM", pom)
    assert jars.cached().folder != before.folder
    assert jars.cached().folder.parent == tmp_path


def test_the_end_of_a_log_is_all_that_an_error_shows(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(str(number) for number in range(1000)))
    assert tail(log, lines=2) == "  998\n  999"
    assert "no such file" in tail(tmp_path / "none")


def test_a_lock_whose_file_was_removed_is_taken_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.locked(path):
        path.unlink()
    with lock.locked(path):
        assert path.exists()


# -- processes


def test_a_process_that_took_over_the_pid_is_not_killed(
    stack: Stack, sleeper: process.Identity
) -> None:
    recycled = replace(sleeper, started=sleeper.started - 3600)
    recorded = state.load(stack.folder / "stack.json")
    assert recorded is not None
    recorded.processes["kafka"] = recycled
    state.save(stack.folder / "stack.json", recorded)

    assert not process.alive(recycled)
    stack.kill("kafka")
    stack.stop("kafka")
    stack.down()

    assert process.alive(sleeper)
    assert [row.state for row in stack.status()] == ["stopped"] * len(NAMES)


def test_a_stopped_process_is_gone_and_its_output_is_in_the_log(tmp_path: Path) -> None:
    argv = (sys.executable, "-uc", "import time; print('hello'); time.sleep(60)")
    log = tmp_path / "log"
    identity = process.spawn(process.Command(argv, folder=tmp_path, log=log))
    _wait_until(lambda: "hello" in log.read_text())
    process.stop(identity, signal.SIGTERM, patience=10)
    assert not process.alive(identity)
    assert not psutil.pid_exists(identity.pid)


def test_a_process_that_ignores_the_request_is_killed_with_its_children(tmp_path: Path) -> None:
    # The child is in a session of its own, as PostgreSQL's backends are.
    program = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
        " start_new_session=True); print(c.pid, flush=True); time.sleep(60)"
    )
    log = tmp_path / "log"
    command = process.Command((sys.executable, "-c", program), folder=tmp_path, log=log)
    identity = process.spawn(command)
    _wait_until(lambda: log.read_text().endswith("\n"))
    child = psutil.Process(int(log.read_text()))
    process.stop(identity, signal.SIGTERM, patience=0.2)
    assert not process.alive(identity)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_frozen_process_is_stopped_all_the_same(sleeper: process.Identity) -> None:
    process.send(sleeper, signal.SIGSTOP)
    process.stop(sleeper, signal.SIGTERM, patience=10)
    assert not process.alive(sleeper)


def test_an_early_end_shows_the_log(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", "raise SystemExit('port in use')")
    log = tmp_path / "log"
    identity = process.spawn(process.Command(argv, folder=tmp_path, log=log))
    with pytest.raises(StackError, match=r"(?s)kafka ended before.*port in use"):
        process.wait_until_ready("kafka", identity, log, lambda: "refused", 30, Event())


def test_a_passed_deadline_names_the_last_reason(tmp_path: Path, sleeper: process.Identity) -> None:
    log = tmp_path / "sleeper.log"
    with pytest.raises(StackError, match="not ready after 0 s: connection refused"):
        process.wait_until_ready("kafka", sleeper, log, lambda: "connection refused", 0.0, Event())


def test_the_stack_imports_nothing_else_of_ftstream() -> None:
    program = (
        "import sys, ftstream.local.stack;"
        "print([m for m in sys.modules if m.startswith('ftstream')"
        " and m not in ('ftstream', 'ftstream.local') and not m.startswith('ftstream.local.stack')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
