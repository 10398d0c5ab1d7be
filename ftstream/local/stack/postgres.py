"""A PostgreSQL cluster of the local stack: initdb, settings, roles, probe."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from ftstream.local.stack.errors import StackError
from ftstream.local.stack.process import Command, as_user, is_zombie, run

SERVER_USER = "postgres"

# Why each one differs from the default.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",  # loopback only: the passwords are in a file of the project
    "unix_socket_directories": "",  # a socket's path may have 107 bytes; a project's may be longer
    "wal_level": "logical",  # Debezium
    "max_replication_slots": "20",  # each parallel test has connectors of its own
    "max_wal_senders": "20",
    "max_connections": "200",  # workers, tests and psql at once
    "shared_buffers": "256MB",  # two clusters and two JVMs share the machine
    "max_wal_size": "4GB",  # a bulk load must not become a row of checkpoints
    "max_slot_wal_keep_size": "20GB",  # a connector that stands still must not fill the disk
    "wal_sender_timeout": "5min",  # a laptop asleep or a frozen JVM keeps its connection
    "max_locks_per_transaction": "256",  # partitions by day: dropping a schema locks all of them
    "max_prepared_transactions": "10",  # two-phase commits are captured, too
    "track_commit_timestamp": "on",  # when a change became visible: the bench asks
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_lock_waits": "on",  # says who waited for whom when the order of locks is wrong
    # fsync and synchronous_commit stay on: the fault tests kill these servers, and what they
    # prove must hold for a server as it is run in production.
}


@dataclass(frozen=True)
class ClusterKind:
    """What distinguishes the two clusters."""

    name: str
    superuser: str
    admin: str  # the most powerful role that ftstream is ever given
    database: str


EXTERNAL = ClusterKind("external", superuser="admin", admin="admin", database="gfx_production")
SUPABASE = ClusterKind(
    "supabase", superuser="supabase_admin", admin="postgres", database="postgres"
)
SITES: Mapping[str, ClusterKind] = {site.name: site for site in (EXTERNAL, SUPABASE)}


@dataclass(frozen=True)
class Cluster:
    """One cluster in `folder`; `passwords` by role."""

    site: ClusterKind
    folder: Path
    log: Path
    port: int
    binaries: Path
    passwords: Mapping[str, str]

    stop_signal = signal.SIGINT  # "fast": does not wait for clients to go, as SIGTERM does

    @property
    def name(self) -> str:
        return self.site.name

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def prepare(self) -> None:
        _make_for_server(self.folder)
        if not self.data.exists():
            self._initdb()
        wait_until_reaped(self.data / "postmaster.pid")
        _write_as_server(self.data / "ftstream.conf", self._settings())

    def command(self) -> Command:
        argv = (str(self.binaries / "postgres"), "-D", str(self.data))
        return Command(argv, folder=self.folder, log=self.log, user=server_user())

    def probe(self) -> str | None:
        return probe_server(self.site, self.port, self.passwords)

    def settle(self) -> None:
        with self._connect("postgres") as connection:
            self._create_database(connection)
        with self._connect(self.site.database) as connection:
            connection.execute(Path(__file__).with_name(f"{self.name}.sql").read_bytes())
            self._set_password(connection, self.site.admin)

    def _create_database(self, connection: psycopg.Connection) -> None:
        exists = "select from pg_database where datname = %s"
        if connection.execute(exists, [self.site.database]).fetchone() is None:
            create = sql.SQL("create database {}").format(sql.Identifier(self.site.database))
            connection.execute(create)

    def _set_password(self, connection: psycopg.Connection, role: str) -> None:
        statement = sql.SQL("alter role {} password {}")
        password = sql.Literal(self.passwords[role])
        connection.execute(statement.format(sql.Identifier(role), password))

    def _connect(self, database: str) -> psycopg.Connection:
        return _connect(self.site, self.port, self.passwords, database)

    def _initdb(self) -> None:
        new = self.folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)  # left by a start that was interrupted
        secret = self.folder / "initdb.password"
        _write_as_server(secret, self.passwords[self.site.superuser])
        try:
            run(self._initdb_argv(new, secret), self.folder, server_user())
        finally:
            secret.unlink()
        with (new / "postgresql.conf").open("a") as file:
            file.write("\ninclude = 'ftstream.conf'  # written at each start\n")
        new.rename(self.data)

    def _initdb_argv(self, data: Path, secret: Path) -> tuple[str, ...]:
        # The same collation everywhere, whatever the locale of the user: order is part of digests.
        locale = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"
        return (
            str(self.binaries / "initdb"),
            f"--pgdata={data}",
            f"--username={self.site.superuser}",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            f"--locale={locale}",
        )

    def _settings(self) -> str:
        settings = {**SETTINGS, "port": str(self.port), "cluster_name": f"ftstream {self.name}"}
        return "".join(f"{name} = '{value}'\n" for name, value in settings.items())


def probe_server(site: ClusterKind, port: int, passwords: Mapping[str, str]) -> str | None:
    """None once the server answers a query, else why not."""
    try:
        with _connect(site, port, passwords, "postgres") as connection:
            connection.execute("select 1")
    except psycopg.OperationalError as error:
        return str(error).strip()
    return None


def _connect(
    site: ClusterKind, port: int, passwords: Mapping[str, str], database: str
) -> psycopg.Connection:
    address = url(port, site.superuser, passwords, database)
    return psycopg.connect(address, autocommit=True, connect_timeout=3)


def url(port: int, role: str, passwords: Mapping[str, str], database: str) -> str:
    """postgresql:// with the password in it. Raises StackError for a role it does not know."""
    if role not in passwords:
        raise StackError(f"no password for role {role}; known: {', '.join(sorted(passwords))}")
    return f"postgresql://{quote(role)}:{quote(passwords[role])}@127.0.0.1:{port}/{quote(database)}"


def wait_until_reaped(pid_file: Path, seconds: float = 10.0) -> None:
    """Waits while the postmaster that was killed is a zombie.

    PostgreSQL takes a zombie for a running server and refuses to start beside it; an init process
    that inherited it may need seconds to reap it.
    """
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text().split()[0])
    deadline = time.monotonic() + seconds
    while is_zombie(pid) and time.monotonic() < deadline:
        time.sleep(0.05)


def server_user() -> str | None:
    """Whom the server runs as: PostgreSQL refuses to run as root. None: as whoever runs this."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(SERVER_USER)
    except KeyError:
        raise StackError(
            f"PostgreSQL does not run as root, and there is no user {SERVER_USER} to run it as. "
            f"Run as another user, or: useradd --system {SERVER_USER}"
        ) from None
    return SERVER_USER


def choose_folder(preferred: Path) -> Path:
    """A folder for the clusters that the server's user can write to.

    A project below /root is closed to that user: then the data goes below /var/tmp, which
    outlives a reboot. The stack's state remembers the choice.
    """
    _make_for_server(preferred)
    if _server_can_write(preferred):
        return preferred
    preferred.rmdir()
    base = Path("/var/tmp")
    fallback = Path(tempfile.mkdtemp(prefix="ftstream-", dir=base if base.is_dir() else None))
    _give_to_server(fallback)
    if not _server_can_write(fallback):
        raise StackError(f"user {SERVER_USER} can write neither to {preferred} nor to {fallback}")
    return fallback


def _make_for_server(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    _give_to_server(folder)


def _write_as_server(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    _give_to_server(path)


def _give_to_server(path: Path) -> None:
    if (user := server_user()) is not None:
        shutil.chown(path, user, pwd.getpwnam(user).pw_gid)


def _server_can_write(folder: Path) -> bool:
    """Asks the kernel, as that user: modes alone do not tell (access lists, mounts)."""
    test = ["/bin/sh", "-c", 'test -w "$1" && cd "$1"', "sh", str(folder)]
    return subprocess.run(test, cwd="/", check=False, **as_user(server_user())).returncode == 0
