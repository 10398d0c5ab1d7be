"""The Kafka broker of the local stack: one KRaft node, broker and controller in one process."""

from __future__ import annotations

import asyncio
import base64
import signal
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from ftstream.local.stack.java import Jvm, write_properties
from ftstream.local.stack.process import Command, run

HEAP = "768m"

# A row of 16 MiB and what surrounds it; the producers' max.request.size is 16 MiB.
MESSAGE_BYTES = 16 * 1024 * 1024 + 64 * 1024


@dataclass(frozen=True)
class Broker:
    """One broker in `folder`, with a listener for clients and one for its own controller.

    A third one, at `via_port`, says that it is at `proxy_port`: there a test may put a proxy, which
    no client then gets around.
    """

    folder: Path
    log: Path
    port: int
    controller_port: int
    via_port: int
    proxy_port: int
    jvm: Jvm

    name = "kafka"
    stop_signal = signal.SIGTERM

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def properties(self) -> Path:
        return self.folder / "server.properties"

    def prepare(self) -> None:
        self.folder.mkdir(exist_ok=True)
        write_properties(self.properties, self._settings())
        if not (self.data / "meta.properties").exists():
            self._format()

    def command(self) -> Command:
        argv = self.jvm.argv("kafka.Kafka", str(self.properties), heap=HEAP)
        return Command(argv, folder=self.folder, log=self.log)

    def probe(self) -> str | None:
        return probe_broker(self.port)

    def settle(self) -> None:
        """Nothing to do: topics belong to ftstream."""

    def _format(self) -> None:
        tool = ("format", "-t", new_cluster_id(), "-c", str(self.properties), "--standalone")
        # --ignore-formatted: an interrupted format may have got as far as one of the folders.
        argv = self.jvm.argv("kafka.tools.StorageTool", *tool, "--ignore-formatted", heap="128m")
        run(argv, self.folder)

    def _settings(self) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "listeners": f"BROKER://127.0.0.1:{self.port},VIA://127.0.0.1:{self.via_port},"
            f"CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"BROKER://127.0.0.1:{self.port},"
            f"VIA://127.0.0.1:{self.proxy_port}",
            "listener.security.protocol.map": "BROKER:PLAINTEXT,VIA:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "BROKER",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{self.controller_port}",
            "log.dirs": str(self.data),
            "message.max.bytes": str(MESSAGE_BYTES),
            "replica.fetch.max.bytes": str(MESSAGE_BYTES),
            # ftstream makes its topics with the partitions it needs; a mistyped name must fail.
            "auto.create.topics.enable": "false",
            # One node: the defaults ask for three.
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # 50 partitions each by default: files and start time that one node has no use for.
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.num.partitions": "4",
            # A new consumer group would wait 3 s for more members.
            "group.initial.rebalance.delay.ms": "0",
        }


def new_cluster_id() -> str:
    """Return what `kafka-storage random-uuid` prints, without a JVM for it."""
    identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    # A leading dash would be read as an option; 1 in 64 has one.
    return new_cluster_id() if identity.startswith("-") else identity


def probe_broker(port: int) -> str | None:
    """None once the broker names itself in its metadata (it is registered), else why not."""
    try:
        # First without a Kafka client, which logs each refused connection as an error.
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        return asyncio.run(_broker_count(f"127.0.0.1:{port}"))
    except (OSError, KafkaError) as error:
        return f"{type(error).__name__}: {error}"


async def _broker_count(address: str) -> str | None:
    client = AIOKafkaClient(bootstrap_servers=address, request_timeout_ms=3000)
    try:
        await client.bootstrap()
        return None if client.cluster.brokers() else "the broker has not joined its cluster yet"
    finally:
        await client.close()
