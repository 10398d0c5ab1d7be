"""The worker: the one place that wires flows, agents, databases and Kafka together.

`faust -A ftstream.app worker` finds `app` here; it is built from the settings when asked for.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, NoReturn

import faust
from faust.types.auth import CredentialsT

from ftstream import __version__
from ftstream.apply.agent import ChangeAgent
from ftstream.apply.housekeeping import Housekeeper, Notifier
from ftstream.capture.batch.scheduler import Scheduler
from ftstream.capture.publisher import Publisher
from ftstream.capture.waker import Waker
from ftstream.failures import Failure, FlowHalted, Halted, Policy
from ftstream.flows import FLOWS, Capture, Flow, Names, Site, Table, app_id
from ftstream.health import HealthServer
from ftstream.kafka.errors import KafkaUnreachable, TopicsDiffer
from ftstream.kafka.topics import missing_topics, topics_of_all
from ftstream.kafka.transport import Reader, Transport
from ftstream.logs import SERVICES, logging_config
from ftstream.retry import Trouble, until_done
from ftstream.settings import KafkaSettings, Settings, load_settings, unprotected
from ftstream.setup.lineage import WENT_BACK
from ftstream.setup.watch import SetupWatch

log = logging.getLogger(__name__)

STOP_SECONDS = 37.0
"""After which a worker that does not stop is ended: what it has not written is read again."""

NOTIFY_SECONDS = 5.0
"""How long an ending worker tries to write its last notifications."""


class TopicsMissing(Halted):
    """Faust would read the topics that there are, and never the others."""

    def __init__(self, topics: Sequence[str]) -> None:
        super().__init__(f"topics are missing: {', '.join(topics)}: run `ftstream init`")


class Worker(faust.App):  # type: ignore[misc]  # Faust is not typed
    """A Faust app whose consumer delivers chunks and starts where the target databases are."""

    logger = SERVICES

    def __init__(self, settings: Settings, flows: Sequence[Flow] = FLOWS) -> None:
        settings.require_databases()
        super().__init__(
            app_id(settings.namespace),
            broker=_broker_urls(settings.kafka),
            broker_credentials=_credentials(settings.kafka),
            Worker=Process,
            **_TUNING,
        )
        self._settings = settings
        self._flows = flows
        self._notifier = Notifier(settings)
        self._keepers = {site: Housekeeper(settings, site, self._notifier.notify) for site in Site}
        self._setup_watch = SetupWatch(settings, flows, self._notifier.notify, self._went_back)
        self._publisher = _publisher(settings, flows)
        self._waker = _waker(settings, flows, self._publisher, self._halted_flows)
        self._health = HealthServer("worker", settings.listen.worker, self._unready)
        # What works beside the agents, for as long as the worker runs.
        self._beside: list[asyncio.Future[None]] = []
        self._schedulers = [
            Scheduler(flow, settings, self._notifier.notify)
            for flow in flows
            if flow.capture is Capture.BATCH
        ]
        self.change_agents = [
            ChangeAgent(
                self,
                flow,
                target,
                settings,
                self._notifier,
                self._keepers[target],
                self._keepers[Site.SUPABASE],
            )
            for flow in flows
            for target in flow.targets
        ]

    @property
    def readers(self) -> Sequence[Reader]:
        """Whoever reads from Kafka, for the consumer to tell where each begins."""
        return self.change_agents

    async def on_start(self) -> None:
        flows = ", ".join(f"{a.flow.name} to {a.target}" for a in self.change_agents)
        log.info("started: ftstream %s, flows %s", __version__, flows)
        for each in unprotected(self._settings):
            log.warning("%s", each)
        await self._health.start()
        await self._wait_for_kafka()
        self.add_future(self._notifier.run())
        services = (self._publisher, self._waker, self._setup_watch, *self._schedulers)
        self._beside = [self.add_future(each.run()) for each in services if each is not None]
        await asyncio.gather(*(agent.start() for agent in self.change_agents))
        for reason in [agent.halted for agent in self.change_agents if agent.halted]:
            if await self._last_halted(reason):
                raise reason
        await super().on_start()

    async def on_stop(self) -> None:
        log.info("stopping")
        watchdog = threading.Timer(STOP_SECONDS, _give_up, [asyncio.get_running_loop()])
        watchdog.daemon = True  # it does not keep a process that has stopped
        watchdog.start()
        if self._consumer is not None:
            self._consumer.stop_flow()
        for each in self._beside:
            each.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        await asyncio.gather(*(agent.stop() for agent in self.change_agents))
        for service in (self._waker, self._publisher, *self._keepers.values()):
            if service is not None:
                await service.close()
        await self._notifier.flush(NOTIFY_SECONDS)
        await self._health.close()
        await super().on_stop()

    async def _went_back(self, site: Site) -> None:
        """What is captured at this site is of another time than what was applied."""
        hint = f"stop the workers, run `ftstream restored {site}`, start them again"
        failure = Failure(Policy.HALT, "", f"{site}: {WENT_BACK}", hint)
        for agent in self.change_agents:
            if agent.target is site.other:
                await agent.halt(FlowHalted(agent.flow.name, failure))

    def _unready(self) -> Sequence[str]:
        """Why it applies nothing now; a flow that has halted is no reason: the others go on."""
        needed = {*(site.value for site in Site), "kafka"}
        silent = sorted(self._setup_watch.silent & needed)
        reasons = [f"{name} does not answer" for name in silent]
        # Before it has begun to run a consumer raises when it is asked.
        begun = self._consumer is not None and self._consumer.started
        if not begun or not self._consumer.assignment():
            reasons.append("no partitions are assigned")
        return reasons

    def _halted_flows(self) -> dict[str, str]:
        return {a.flow.name: str(a.halted) for a in self.change_agents if a.halted is not None}

    async def flow_halted(self, reason: Halted) -> None:
        """Go on without that flow; once none is left the process ends."""
        if self._waker is not None:
            self._waker.note_soon()
        if await self._last_halted(reason):
            await self.crash(reason)

    async def _last_halted(self, reason: Halted) -> bool:
        if any(agent.halted is None for agent in self.change_agents):
            log.error("%s; the other flows go on", reason, extra={"code": "FT124"})
            return False
        await self._notifier.flush(NOTIFY_SECONDS)
        return True

    def _create_directories(self) -> None:
        """Faust makes folders for Tables in the working directory; no agent has one on disk."""

    async def _wait_for_kafka(self) -> None:
        """Wait for the broker as long as it takes. Raises TopicsMissing, TopicsDiffer."""
        specs = topics_of_all(self._settings, self._flows)
        look = partial(missing_topics, self._settings, specs)
        try:
            missing = await until_done(look, Trouble(log, "retrying"), KafkaUnreachable)
        except TopicsDiffer as error:
            raise Halted(str(error)) from error
        if missing:
            raise TopicsMissing(missing)

    def _new_transport(self) -> Any:
        return Transport(self.conf.broker_consumer, self)


class Process(faust.Worker):  # type: ignore[misc]  # Faust is not typed
    """The process around the app: quiet, and its last line says why it ended."""

    logger = SERVICES

    def __init__(self, app: Worker, *services: Any, **options: Any) -> None:
        level = str(options.get("loglevel") or "info")
        form = options.pop("log_format", "text")
        options |= {"logging_config": logging_config(level, form), "redirect_stdouts": False}
        super().__init__(app, *services, **options)
        self.spinner = None

    def carp(self, msg: str) -> None:
        """Not "-INT- -INT-": the log says that it stops."""

    def execute_from_commandline(self) -> NoReturn:
        try:
            super().execute_from_commandline()
        except SystemExit as end:
            if end.code:
                # Before everything runs the reason is not recorded, but raised.
                reason = self.crash_reason or self.app.crash_reason or end.__context__
                log.error("stopped: %s", reason)
            else:
                log.info("stopped")
            raise
        raise AssertionError("unreachable: it ends the process")


def _give_up(loop: asyncio.AbstractEventLoop) -> None:
    """End the process, and tell what it waited for."""
    for task in asyncio.all_tasks(loop):
        log.warning("stopping: %s", " waits for ".join(_awaited(task)))
    log.error("stopped: not everything ended in %.0f s", STOP_SECONDS)
    os._exit(1)


def _awaited(task: asyncio.Task[Any]) -> Iterator[str]:
    """Say where the task waits, from the outermost coroutine inward."""
    waiting: Any = task.get_coro()
    while frame := getattr(waiting, "cr_frame", None):
        yield f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
        waiting = waiting.cr_await


_TUNING: dict[str, Any] = {
    # Shutdown: the default waits for acknowledgements that cannot come any more, and hangs.
    "stream_wait_empty": False,
    # While a database is down a batch is retried in place; by default the worker would be thrown
    # out of the group after 1000 s and never come back. In milliseconds it must fit 31 bits: 24 days.
    "broker_max_poll_interval": 2_000_000.0,
    # A worker restarted after SIGKILL waits this long for its partitions (default: 60 s).
    "broker_session_timeout": 10,
    "broker_heartbeat_interval": 3,
    "broker_max_poll_records": 2_000,
    # Bounds what one partition brings at once, and so the memory of a worker behind on large rows.
    "consumer_max_fetch_size": 2 * 2**20,
    "consumer_auto_offset_reset": "earliest",
    # Partitions that somebody adds are seen in this time; then the flow halts.
    "consumer_metadata_max_age_ms": 20_000,
    # Counted in chunks; agents take them at once, and pause their partitions when full.
    "stream_buffer_maxsize": 256,
    # `init` makes the topics, with the retention the settings state.
    "topic_allow_declare": False,
    "topic_disable_leader": True,
    "web_enabled": False,
    "web_bind": "127.0.0.1",
    "web_tables_enabled": False,
    "store": "memory://",
}


def _broker_urls(kafka: KafkaSettings) -> list[str]:
    return [f"kafka://{server.strip()}" for server in kafka.bootstrap_servers.split(",")]


def _credentials(kafka: KafkaSettings) -> CredentialsT | None:
    context = kafka.ssl_context()
    if kafka.authenticated:
        return faust.SASLCredentials(
            username=kafka.sasl_username,
            password=kafka.sasl_password.get_secret_value(),
            mechanism=kafka.sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context else None


def _publisher(settings: Settings, flows: Sequence[Flow]) -> Publisher | None:
    """Make the publisher of what is written on Supabase; on External, Debezium reads the outbox."""
    topics = {
        table.name: Names(flow, settings.namespace).topic(table, Site.SUPABASE)
        for flow, table in _published(flows)
    }
    return Publisher(settings, topics) if topics else None


def _waker(
    settings: Settings,
    flows: Sequence[Flow],
    publisher: Publisher | None,
    halted: Callable[[], Mapping[str, str]],
) -> Waker | None:
    if publisher is None:
        return None
    return Waker(settings, (table for _, table in _published(flows)), publisher.wake, halted)


def _published(flows: Sequence[Flow]) -> Iterator[tuple[Flow, Table]]:
    """Return what leaves Supabase by its outbox."""
    for flow in flows:
        if flow.capture is Capture.OUTBOX and Site.SUPABASE in flow.sources:
            yield from ((flow, table) for table in flow.tables)


@cache
def _app() -> Worker:
    return Worker(load_settings())


def __getattr__(name: str) -> Any:
    if name == "app":
        importlib.import_module("ftstream.faust_commands")  # whoever asks is Faust's command line
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Process", "Worker"]
