"""The local stack as a whole: PostgreSQL twice, Kafka, Connect and a Realtime in one folder."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Literal

from ftstream.local.stack import jars, postgres, prerequisites, process, state
from ftstream.local.stack.connect import ConnectWorker, probe_worker
from ftstream.local.stack.errors import StackError
from ftstream.local.stack.java import Jvm
from ftstream.local.stack.kafka import Broker, probe_broker
from ftstream.local.stack.lock import locked
from ftstream.local.stack.ports import is_free
from ftstream.local.stack.process import Identity
from ftstream.local.stack.realtime import RealtimeProcess, probe_realtime
from ftstream.local.stack.service import Service
from ftstream.local.stack.state import APPLY_ROLE, CONNECT_USER, NAMES, WATCH_ROLE, StackState

Progress = Callable[[str], None]
SiteName = Literal["external", "supabase"]

READY_SECONDS = 120.0  # a cold start of a JVM on a busy machine of two cores took a quarter of it
STOP_SECONDS = 30.0

STOP_SIGNALS = {
    **dict.fromkeys(postgres.SITES, postgres.Cluster.stop_signal),
    "kafka": Broker.stop_signal,
    "connect": ConnectWorker.stop_signal,
    "realtime": RealtimeProcess.stop_signal,
}

# Connect needs Kafka; the rest starts side by side.
CHAINS = (("external",), ("supabase",), ("kafka", "connect"), ("realtime",))


@dataclass(frozen=True)
class ProcessStatus:
    """One process as `dev status` shows it; `pid` is None when it is stopped."""

    name: str
    state: Literal["running", "not answering", "stopped"]
    pid: int | None
    port: int
    log: Path


SETTINGS_TOML = """\
# Written by `ftstream dev up`: the local stack. It holds passwords.

[external]
admin_dsn = "{external_admin}"
dsn = "{external_apply}"
watch_dsn = "{external_watch}"

[supabase]
admin_dsn = "{supabase_admin}"
dsn = "{supabase_apply}"
watch_dsn = "{supabase_watch}"

[kafka]
bootstrap_servers = "{bootstrap_servers}"

[connect]
url = "{connect_url}"
username = "{connect_user}"
password = "{connect_password}"
capture_password = "{capture_password}"

[realtime]
url = "{realtime_url}"
key = "{realtime_key}"
"""


def _silent(message: str) -> None:
    """For callers that do not want to see the steps."""


class Stack:
    """The stack in `folder`. Its methods may be called from any process: the state is on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._write_lock = Lock()

    # -- the whole

    @property
    def exists(self) -> bool:
        """Whether `up` has ever made a stack here (running or not)."""
        return self._state_file.exists()

    def up(self, progress: Progress = _silent) -> None:
        """Starts what is not running, keeping ports, passwords and data of an earlier run.

        Raises MissingPrerequisites, or StartFailed with the end of a log; what this call started
        is then stopped again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self._lock_file):
            if self.exists and all(self._running(name) for name in NAMES):
                progress(f"the stack in {self.folder} is already running")
                return
            self._start_all(self._services(progress), progress)

    def down(self, destroy: bool = False, progress: Progress = _silent) -> None:
        """Stops every process; with `destroy` also removes data, logs, ports and passwords."""
        if not self.exists:
            progress(f"there is no stack in {self.folder}")
            return
        with locked(self._lock_file):
            # Connect first: it would spend its patience on looking for a Kafka that is gone.
            self._stop(["connect"], progress)
            self._stop(["kafka", "realtime", "external", "supabase"], progress)
            if destroy:
                self._remove()
                progress(f"removed the stack in {self.folder}")

    def status(self) -> list[ProcessStatus]:
        """All of them, in the order of NAMES; asks each one that runs whether it works."""
        if not self.exists:
            return []
        with ThreadPoolExecutor(len(NAMES)) as pool:
            return list(pool.map(self._status, NAMES))

    # -- one process, by one of NAMES

    def start(self, name: str, progress: Progress = _silent) -> None:
        """Starts one process on the port it had; returns once it answers."""
        self._check(name)
        self._state()  # says so where there is no stack, and makes none
        with locked(self._lock_file):
            self._start(self._services(progress)[name], progress, Event())

    def stop(self, name: str, progress: Progress = _silent) -> None:
        """Stops one process cleanly."""
        self._check(name)
        self._state()  # says so where there is no stack, and makes none
        with locked(self._lock_file):
            self._stop([name], progress)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal, for tests of faults; after SIGKILL it returns once all of it is gone.

        SIGSTOP and SIGCONT freeze and thaw the process with its descendants.
        """
        self._check(name)
        process.send(self._state().processes.get(name), number)

    # -- how to reach it

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._state().ports['kafka']}"

    @property
    def kafka_via(self) -> tuple[int, int]:
        """The port of Kafka's listener for a proxy, and the port where that proxy must be."""
        ports = self._state().ports
        return ports["via"], ports["proxy"]

    @property
    def connect_url(self) -> str:
        return f"http://127.0.0.1:{self._state().ports['connect']}"

    @property
    def connect_password(self) -> str:
        """Of CONNECT_USER, for Connect's REST interface."""
        return self._state().connect_password

    def realtime_url(self, dbname: str | None = None) -> str:
        """The stand-in for Supabase Realtime; another database than the site's has a path."""
        return f"http://127.0.0.1:{self._state().ports['realtime']}" + (
            f"/{dbname}" if dbname else ""
        )

    @property
    def realtime_key(self) -> str:
        """The API key that the stand-in asks for."""
        return self._state().realtime_key

    @property
    def debezium_password(self) -> str:
        """What ${env:DEBEZIUM_PASSWORD} stands for in a connector's configuration."""
        return self._state().debezium_password

    def dsn(self, site: SiteName, user: str | None = None, dbname: str | None = None) -> str:
        """postgresql:// with a password; by default the admin and the database of the site.

        Users: external has admin; supabase has supabase_admin (superuser) and postgres (the
        default). ftstream_apply and ftstream_watch are only given a password here: ftstream makes
        the roles.
        """
        known, recorded = postgres.SITES[site], self._state()
        role, database = user or known.admin, dbname or known.database
        return postgres.url(recorded.ports[site], role, recorded.passwords[site], database)

    def data(self, site: SiteName) -> Path:
        """The data folder of a site's cluster."""
        return self._state().postgres_folder / site / "data"

    def log(self, name: str) -> Path:
        """The log file of one process."""
        self._check(name)
        return self.folder / "logs" / f"{name}.log"

    @property
    def connect_metrics_url(self) -> str:
        """Where Prometheus reads of Connect and Debezium."""
        return f"http://127.0.0.1:{self._state().ports['connect_metrics']}/metrics"

    def settings_toml(self) -> str:
        """ftstream's settings for this stack (`ftstream --config FILE`); holds passwords."""
        return SETTINGS_TOML.format(
            external_admin=self.dsn("external"),
            external_apply=self.dsn("external", APPLY_ROLE),
            external_watch=self.dsn("external", WATCH_ROLE),
            supabase_admin=self.dsn("supabase"),
            supabase_apply=self.dsn("supabase", APPLY_ROLE),
            supabase_watch=self.dsn("supabase", WATCH_ROLE),
            bootstrap_servers=self.bootstrap_servers,
            connect_url=self.connect_url,
            connect_user=CONNECT_USER,
            connect_password=self.connect_password,
            capture_password=self.debezium_password,
            realtime_url=self.realtime_url(),
            realtime_key=self.realtime_key,
        )

    def write_settings(self) -> Path:
        """Writes settings_toml() beside the data, readable by its owner only."""
        state.write_private(self._settings_file, self.settings_toml())
        return self._settings_file

    # -- inside

    @property
    def _state_file(self) -> Path:
        return self.folder / "stack.json"

    @property
    def _settings_file(self) -> Path:
        return self.folder / "ftstream.toml"

    @property
    def _lock_file(self) -> Path:
        return self.folder / "lock"

    def _state(self) -> StackState:
        found = state.load(self._state_file)
        if found is None:
            raise StackError(f"there is no stack in {self.folder}: run `ftstream dev up`")
        return found

    def _check(self, name: str) -> None:
        if name not in NAMES:
            raise StackError(f"there is no process {name}; there are {', '.join(NAMES)}")

    def _running(self, name: str) -> bool:
        """Alive, and it was seen ready: one whose start was interrupted does not count."""
        current = self._state()
        return name not in current.starting and process.alive(current.processes.get(name))

    def _services(self, progress: Progress) -> dict[str, Service]:
        """The services with the programs they need; makes the state at the first time."""
        made = self._state() if self.exists else None
        programs = prerequisites.find(
            need_maven=not jars.cached().present,
            postgres_version=made.postgres_version if made else None,
        )
        jvm = Jvm(programs.java, jars.fetch(programs.maven, progress))
        if made is None:
            folder = postgres.choose_folder(self.folder / "postgres")
            made = state.new_state(folder, programs.postgres_version)
            state.save(self._state_file, made)
        (self.folder / "logs").mkdir(exist_ok=True)
        return {service.name: service for service in self._build(made, programs, jvm)}

    def _build(
        self, made: StackState, programs: prerequisites.Programs, jvm: Jvm
    ) -> Iterable[Service]:
        for site in postgres.SITES.values():
            yield postgres.Cluster(
                site=site,
                folder=made.postgres_folder / site.name,
                log=self.log(site.name),
                port=made.ports[site.name],
                binaries=programs.postgres_bin,
                passwords=made.passwords[site.name],
            )
        yield Broker(
            folder=self.folder / "kafka",
            log=self.log("kafka"),
            port=made.ports["kafka"],
            controller_port=made.ports["controller"],
            via_port=made.ports["via"],
            proxy_port=made.ports["proxy"],
            jvm=jvm,
        )
        yield ConnectWorker(
            folder=self.folder / "connect",
            log=self.log("connect"),
            port=made.ports["connect"],
            bootstrap_servers=self.bootstrap_servers,
            jvm=jvm,
            password=made.debezium_password,
            login_password=made.connect_password,
            metrics_port=made.ports["connect_metrics"],
        )
        supabase = postgres.SUPABASE
        yield RealtimeProcess(
            folder=self.folder,
            log=self.log("realtime"),
            port=made.ports["realtime"],
            dsn=self.dsn("supabase", supabase.superuser),
            key=made.realtime_key,
        )

    def _start_all(self, services: dict[str, Service], progress: Progress) -> None:
        """Starts the chains side by side; if one fails, or on Ctrl-C, undoes what it started."""
        before = {name for name in NAMES if self._running(name)}
        cancelled = Event()

        def start(chain: tuple[str, ...]) -> None:
            for name in chain:
                if not cancelled.is_set():
                    self._start(services[name], progress, cancelled)

        try:
            with ThreadPoolExecutor(len(CHAINS)) as pool:
                futures = [pool.submit(start, chain) for chain in CHAINS]
                try:
                    for future in as_completed(futures):
                        future.result()
                except BaseException:
                    cancelled.set()
                    raise
        except BaseException:
            self._stop([name for name in reversed(NAMES) if name not in before], progress)
            raise

    def _start(self, service: Service, progress: Progress, cancelled: Event) -> None:
        name = service.name
        if self._running(name):
            progress(f"{name}: already running")
            return
        self._stop([name], progress)  # a start that was interrupted
        if not is_free(service.port):
            raise StackError(
                f"{name}: another program holds port {service.port}. End it, or `ftstream dev down "
                "--wipe` and start again on other ports (this removes the data)"
            )
        progress(f"{name}: starting")
        began = time.monotonic()
        service.prepare()
        identity = process.spawn(service.command())
        self._record(name, identity, starting=True)
        try:
            process.wait_until_ready(
                name, identity, service.log, service.probe, READY_SECONDS, cancelled
            )
            service.settle()
        except BaseException:
            self._stop([name], progress)
            raise
        self._record(name, identity, starting=False)
        progress(f"{name}: ready on port {service.port} after {time.monotonic() - began:.1f} s")

    def _stop(self, names: Iterable[str], progress: Progress) -> None:
        """Stops those of the processes that run, side by side."""
        recorded = self._state().processes
        alive = [name for name in names if process.alive(recorded.get(name))]

        def stop(name: str) -> None:
            began = time.monotonic()
            process.stop(recorded[name], STOP_SIGNALS[name], STOP_SECONDS)
            self._record(name, None, starting=False)
            progress(f"{name}: stopped after {time.monotonic() - began:.1f} s")

        with ThreadPoolExecutor(len(NAMES)) as pool:
            list(pool.map(stop, alive))  # list: an exception in one of them comes up here

    def _record(self, name: str, identity: Identity | None, *, starting: bool) -> None:
        with self._write_lock:
            current = self._state()
            current.starting.discard(name)
            current.processes.pop(name, None)
            if identity is not None:
                current.processes[name] = identity
            if starting:
                current.starting.add(name)
            state.save(self._state_file, current)

    def _status(self, name: str) -> ProcessStatus:
        current = self._state()
        identity = current.processes.get(name)
        port, log = current.ports[name], self.log(name)
        if identity is None or not process.alive(identity):
            return ProcessStatus(name, "stopped", None, port, log)
        answers = _probe(name, current) is None
        return ProcessStatus(
            name, "running" if answers else "not answering", identity.pid, port, log
        )

    def _remove(self) -> None:
        """Removes what the stack made, and its folder if nothing else is in it."""
        folders = (self.folder / name for name in ("kafka", "connect", "logs"))
        for folder in (self._state().postgres_folder, *folders):
            if folder.exists():
                shutil.rmtree(folder)
        for path in (self._settings_file, self._state_file, self._lock_file):
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def _probe(name: str, current: StackState) -> str | None:
    """None when the process works, else why not; needs no programs, only what was recorded."""
    port = current.ports[name]
    match name:
        case "kafka":
            return probe_broker(port)
        case "connect":
            return probe_worker(port, current.connect_password)
        case "realtime":
            return probe_realtime(port)
        case _:
            return postgres.probe_server(postgres.SITES[name], port, current.passwords[name])
