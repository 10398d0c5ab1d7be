"""Two real PostgreSQL clusters, started once, and a fresh pair of databases for each test."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import psycopg
import pytest
from psycopg import AsyncConnection, sql
from pydantic import SecretStr

from ftstream.flows import Site
from ftstream.kafka.topics import TopicSpec
from ftstream.local.demo.schema import load_schema
from ftstream.local.stack import postgres, prerequisites, process
from ftstream.local.stack.ports import choose_ports
from ftstream.settings import ConnectSettings, Database, Settings
from ftstream.setup.expectations import role_of

PASSWORD = "only-for-tests"
TEMPLATE = "demo_template"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Cluster:
    """One running cluster."""

    site: postgres.ClusterKind
    port: int
    binaries: Path

    def dsn(self, role: str, database: str) -> str:
        return f"postgresql://{role}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    @property
    def superuser(self) -> str:
        return self.dsn(self.site.superuser, "template1")

    def execute(
        self, query: sql.SQL | sql.Composed, values: Sequence[object] | None = None
    ) -> None:
        with psycopg.connect(self.superuser, autocommit=True) as connection:
            connection.execute(query, values)


@dataclass(frozen=True)
class Pair:
    """A fresh database on each cluster, both with the demo schema, and settings for them."""

    external: Cluster
    supabase: Cluster
    database: str
    settings: Settings

    def cluster(self, site: Site) -> Cluster:
        return self.external if site is Site.EXTERNAL else self.supabase

    async def connect(self, site: Site, role: str | None = None) -> AsyncConnection:
        """As the superuser, or as another role."""
        cluster = self.cluster(site)
        dsn = cluster.dsn(role or cluster.site.superuser, self.database)
        return await AsyncConnection.connect(dsn, autocommit=True)

    def dump(self, site: Site, *options: str) -> list[str]:
        """The whole catalog of the database as SQL, and what belongs to the cluster."""
        cluster = self.cluster(site)
        dsn = cluster.dsn(cluster.site.superuser, self.database)
        dumped = self._run(site, "pg_dump", "--schema-only", *options, dsn)
        lines = [line for line in dumped.splitlines() if not line.startswith("\\")]
        with psycopg.connect(dsn) as connection:
            roles = "select rolname from pg_roles where rolname like %s order by 1"
            slots = "select slot_name from pg_replication_slots where database = %s order by 1"
            lines += [str(row) for row in connection.execute(roles, [f"%{self.database}"])]
            lines += [str(row) for row in connection.execute(slots, [self.database])]
        return lines

    def psql(self, site: Site, role: str, file: Path) -> None:
        dsn = self.cluster(site).dsn(role, self.database)
        self._run(site, "psql", "-X", "-1", "-v", "ON_ERROR_STOP=1", "-f", str(file), dsn)

    def _run(self, site: Site, program: str, *arguments: str) -> str:
        path = self.cluster(site).binaries / program
        done = subprocess.run([str(path), *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@asynccontextmanager
async def as_ftstream(
    connection: AsyncConnection, settings: Settings, site: Site, *, triggers: bool = False
) -> AsyncIterator[None]:
    """Have a superuser pass for the worker in its transaction: ftstream's triggers tell by login and setting.

    Those of others run only with `triggers`.
    """
    if not triggers:
        await connection.execute("set local session_replication_role = replica")
    role = sql.Identifier(role_of(settings.database(site)))
    await connection.execute(sql.SQL("set local session authorization {}").format(role))
    await connection.execute("set local ftstream.applying = 'on'")
    yield
    await connection.execute("reset session authorization")
    await connection.execute("set local ftstream.applying = 'off'")
    if not triggers:
        await connection.execute("set local session_replication_role = origin")


@dataclass
class MemoryTopics:
    """Stands in for Kafka: the system tests use the real one."""

    names: set[str] = field(default_factory=set)

    async def missing(self, specs: Sequence[TopicSpec]) -> list[str]:
        return [spec.name for spec in specs if spec.name not in self.names]

    async def ensure(self, specs: Sequence[TopicSpec]) -> list[str]:
        missing = await self.missing(specs)
        self.names |= set(missing)
        return missing

    async def existing(self, specs: Sequence[TopicSpec]) -> list[str]:
        return [spec.name for spec in specs if spec.name in self.names]

    async def delete(self, specs: Sequence[TopicSpec]) -> list[str]:
        present = await self.existing(specs)
        self.names -= set(present)
        return present


@dataclass
class NoConnectors:
    """A Connect without connectors."""

    async def exists(self, name: str) -> bool:
        return False

    async def remove(self, name: str) -> bool:
        return False


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Site, Cluster]]:
    """Both clusters with a template database that holds the demo schema."""
    base = tmp_path_factory.mktemp("clusters")
    folder = postgres.choose_folder(base / "postgres")
    programs = prerequisites.find_postgres()
    assert programs is not None, "no PostgreSQL server: see scripts/prerequisites.sh"
    started: list[process.Identity] = []
    running: dict[Site, Cluster] = {}
    try:
        for site, port in zip(Site, choose_ports(2), strict=True):
            running[site] = _start(site, folder, base, port, programs[0], started)
            _make_template(running[site])
        yield running
    finally:
        for identity in started:
            process.stop(identity, postgres.Cluster.stop_signal, 30)
        shutil.rmtree(folder)


@pytest.fixture
def pair(clusters: dict[Site, Cluster]) -> Iterator[Pair]:
    with made_pair(clusters) as made:
        yield made


@contextmanager
def made_pair(clusters: dict[Site, Cluster]) -> Iterator[Pair]:
    """Fresh databases; on Supabase the worker is `postgres`, as it is in production."""
    name = f"t{next(_numbers)}"
    external, supabase = clusters[Site.EXTERNAL], clusters[Site.SUPABASE]
    for cluster in clusters.values():
        _create_database(cluster, name, TEMPLATE)
    settings = Settings(
        namespace=name,
        external=Database(
            admin_dsn=SecretStr(external.dsn("admin", name)),
            dsn=SecretStr(external.dsn(f"apply_{name}", name)),
        ),
        supabase=Database(
            admin_dsn=SecretStr(supabase.dsn("postgres", name)),
            dsn=SecretStr(supabase.dsn("postgres", name)),
        ),
        connect=ConnectSettings(
            capture_user=f"capture_{name}", capture_password=SecretStr(PASSWORD)
        ),
    )
    try:
        yield Pair(external, supabase, name, settings)
    finally:
        for cluster in clusters.values():
            _drop_database(cluster, name)


@pytest.fixture
def least(pair: Pair) -> Pair:
    return with_least_rights(pair)


def with_least_rights(pair: Pair) -> Pair:
    """The same, with roles of least rights: for the worker on Supabase, too, and for the watcher."""
    name = pair.database
    supabase = Database(
        admin_dsn=SecretStr(pair.supabase.dsn("supabase_admin", name)),
        dsn=SecretStr(pair.supabase.dsn(f"apply_{name}", name)),
        watch_dsn=SecretStr(pair.supabase.dsn(f"watch_{name}", name)),
    )
    watch = {"watch_dsn": SecretStr(pair.external.dsn(f"watch_{name}", name))}
    external = pair.settings.external.model_copy(update=watch)
    changed = pair.settings.model_copy(update={"supabase": supabase, "external": external})
    return Pair(pair.external, pair.supabase, pair.database, changed)


def _start(
    site: Site,
    folder: Path,
    logs: Path,
    port: int,
    binaries: Path,
    started: list[process.Identity],
) -> Cluster:
    kind = postgres.SITES[site.value]
    passwords = dict.fromkeys((kind.superuser, kind.admin), PASSWORD)
    server = postgres.Cluster(
        site=kind,
        folder=folder / site.value,
        log=logs / f"{site.value}.log",
        port=port,
        binaries=binaries,
        passwords=passwords,
    )
    server.prepare()
    identity = process.spawn(server.command())
    started.append(identity)
    process.wait_until_ready(site.value, identity, server.log, server.probe, 60, Event())
    server.settle()
    return Cluster(kind, port, binaries)


def _make_template(cluster: Cluster) -> None:
    _create_database(cluster, TEMPLATE, "template1")
    with psycopg.connect(cluster.dsn(cluster.site.admin, TEMPLATE)) as connection:
        load_schema(connection)


def _create_database(cluster: Cluster, name: str, template: str) -> None:
    query = sql.SQL("create database {} template {} owner {}")
    cluster.execute(query.format(*map(sql.Identifier, (name, template, cluster.site.admin))))


def _drop_database(cluster: Cluster, name: str) -> None:
    """With its slots, which belong to the cluster, and the roles of this test."""
    drop_slots = sql.SQL(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s"
    )
    cluster.execute(drop_slots, [name])
    cluster.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
    for kind in ("apply", "capture", "watch", "ftstream_definer"):
        role = f"{kind}_{name}"
        with psycopg.connect(cluster.superuser, autocommit=True) as connection:
            if connection.execute("select from pg_roles where rolname = %s", [role]).fetchone():
                identifier = sql.Identifier(role)
                connection.execute(sql.SQL("drop owned by {}").format(identifier))
                connection.execute(sql.SQL("drop role {}").format(identifier))
