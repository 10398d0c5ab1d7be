"""A worker behind PgBouncer in transaction mode, which it shares with others: nothing leaks either way."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ftstream.local.demo.rig import Rig
from ftstream.local.stack.ports import choose_ports
from tests.conftest import until
from tests.system.scene import Scene, set_up

INSTALL = "apt-get install --no-install-recommends pgbouncer"
SERVER_CONNECTIONS = 3
"""Fewer than clients, so that each is served by connections that others have used."""


@pytest.fixture(scope="module")
def scene(rig: Rig) -> Iterator[Scene]:
    with set_up(rig) as scene:
        yield scene


@pytest.fixture(scope="module")
def pooled(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DSN of the target through the pool."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, f"PgBouncer is missing: {INSTALL}"
    (port,) = choose_ports(1)
    folder = tmp_path_factory.mktemp("pgbouncer")
    dsn = conninfo_to_dict(scene.rig.dsn("supabase", "ftstream_apply"))
    _configure(folder, port, dsn)
    process = subprocess.Popen(
        [program, str(folder / "pgbouncer.ini")],
        stdin=subprocess.DEVNULL,
        stdout=(folder / "pgbouncer.log").open("wb"),
        stderr=subprocess.STDOUT,
        user="nobody" if os.geteuid() == 0 else None,  # it refuses to run as root
    )
    through = make_conninfo(scene.rig.dsn("supabase", "ftstream_apply"), port=port)
    try:
        until(lambda: _answers(through) or process.poll() is not None)
        assert process.poll() is None, (folder / "pgbouncer.log").read_text()
        yield through
    finally:
        process.terminate()
        process.wait(10)


def _configure(folder: Path, port: int, dsn: Mapping[str, object]) -> None:
    (folder / "users.txt").write_text(f'"{dsn["user"]}" "{dsn["password"]}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"""[databases]
{dsn["dbname"]} = host={dsn["host"]} port={dsn["port"]}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {folder / "users.txt"}
pool_mode = transaction
default_pool_size = {SERVER_CONNECTIONS}
ignore_startup_parameters = extra_float_digits
"""
    )
    if os.geteuid() == 0:
        # pytest's folders are closed to others; these hold nothing but the password of this stack.
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "nobody", pwd.getpwnam("nobody").pw_gid)
        for parent in takewhile(lambda each: not each.stat().st_mode & 0o001, folder.parents):
            parent.chmod(parent.stat().st_mode | 0o011)


def _answers(dsn: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(dsn) as connection:
        connection.execute("select 1")
        return True
    return False


def test_session_state_of_others_does_not_reach_what_is_applied(scene: Scene, pooled: str) -> None:
    worker = scene.worker(FTSTREAM_SUPABASE__DSN=pooled).ready()
    with scene.load():
        for _ in range(20):
            with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as careless:
                careless.execute("set datestyle = 'German, DMY'")
                careless.execute("set timezone = 'Asia/Seoul'")
                careless.execute("set intervalstyle = 'sql_standard'")
                careless.execute("set extra_float_digits = -15")
                careless.execute("set search_path = pg_catalog")
                careless.execute("set standard_conforming_strings = off")
                careless.execute("set bytea_output = 'escape'")
            scene.until_applied(100)
    scene.must_be_in_step()
    assert worker.said("retrying") == 0
    assert worker.stop() == 0


def test_no_setting_of_ftstream_reaches_other_clients(scene: Scene, pooled: str) -> None:
    worker = scene.worker(FTSTREAM_SUPABASE__DSN=pooled).ready()
    seen: set[tuple[object, ...]] = set()
    servers: set[int] = set()
    with scene.load():
        goal = scene.applied + 2_000
        while scene.applied < goal:
            servers |= _look(pooled, seen)
    scene.caught_up()
    assert worker.stop() == 0
    _look(pooled, seen)
    assert len(servers) > 1
    # A parameter of the name that was set locally is empty afterwards, and never 'on'.
    assert seen <= {(None, "replica"), ("", "replica")}  # the role's own, from its login


def _look(dsn: str, seen: set[tuple[object, ...]]) -> set[int]:
    """What clients see on as many server connections as they can hold at once; returns these."""
    query = (
        "select pg_backend_pid(), current_setting('ftstream.applying', true),"
        " current_setting('session_replication_role')"
    )
    servers: set[int] = set()
    with contextlib.ExitStack() as stack:
        for _ in range(SERVER_CONNECTIONS - 1):
            client = stack.enter_context(psycopg.connect(dsn, prepare_threshold=None))
            for pid, *settings in client.execute(query).fetchall():
                servers.add(pid)
                seen.add(tuple(settings))
    return servers
