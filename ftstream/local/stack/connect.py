"""The Kafka Connect worker of the local stack, with Debezium as its only plugin."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path

from ftstream.local.stack.java import Jvm, write_properties
from ftstream.local.stack.process import Command
from ftstream.local.stack.service import probe_http
from ftstream.local.stack.state import CONNECT_USER, write_private

HEAP = "1g"
JMX = Path(__file__).with_name("jmx.yml")
PASSWORD_VARIABLE = "DEBEZIUM_PASSWORD"
OVERRIDES = ("max.request.size", "buffer.memory", "compression.type", "linger.ms", "batch.size")
BASIC_AUTHENTICATION = "org.apache.kafka.connect.rest.basic.auth.extension"
ENVIRONMENT_PROVIDER = "org.apache.kafka.common.config.provider.EnvVarConfigProvider"


JAAS = """\
KafkaConnect {{
  {module}.PropertyFileLoginModule required file="{file}";
}};
"""


@dataclass(frozen=True)
class ConnectWorker:
    """One distributed worker; connectors name the password as ${env:DEBEZIUM_PASSWORD}."""

    folder: Path
    log: Path
    port: int
    bootstrap_servers: str
    jvm: Jvm
    password: str = field(repr=False)
    """The capture role's, which connectors refer to."""
    login_password: str = field(repr=False)
    """Of CONNECT_USER, for the REST interface."""
    metrics_port: int = 0
    """Where its JMX exporter answers; 0: it has none."""

    name = "connect"
    stop_signal = signal.SIGTERM

    @property
    def properties(self) -> Path:
        return self.folder / "connect.properties"

    @property
    def _logins(self) -> Path:
        return self.folder / "logins.properties"

    @property
    def _jaas(self) -> Path:
        return self.folder / "jaas.conf"

    def prepare(self) -> None:
        self.folder.mkdir(exist_ok=True)
        write_properties(self.properties, self._settings())
        # In a file, since a process list shows the command line.
        write_private(self._logins, f"{CONNECT_USER}={self.login_password}\n")
        self._jaas.write_text(JAAS.format(module=BASIC_AUTHENTICATION, file=self._logins))

    def command(self) -> Command:
        main = "org.apache.kafka.connect.cli.ConnectDistributed"
        options = [f"-Djava.security.auth.login.config={self._jaas}"]
        if self.metrics_port:
            where = f"127.0.0.1:{self.metrics_port}:{JMX}"
            options.append(f"-javaagent:{self.jvm.jars.jmx_agent}={where}")
        argv = self.jvm.argv(main, str(self.properties), heap=HEAP, options=options)
        # In the environment, so that neither the REST API nor a topic ever shows the password.
        secret = {PASSWORD_VARIABLE: self.password}
        return Command(argv, folder=self.folder, log=self.log, environment=secret)

    def probe(self) -> str | None:
        return probe_worker(self.port, self.login_password)

    def settle(self) -> None:
        """Nothing to do: connectors belong to ftstream."""

    def _settings(self) -> dict[str, str]:
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "group.id": "ftstream-connect",
            "listeners": f"http://127.0.0.1:{self.port}",
            "rest.advertised.host.name": "127.0.0.1",
            "rest.extension.classes": f"{BASIC_AUTHENTICATION}.BasicAuthSecurityRestExtension",
            "plugin.path": str(self.jvm.jars.plugins),
            "plugin.discovery": "service_load",
            # For connectors that name none; ftstream's name theirs.
            "key.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            "config.storage.topic": "connect-configs",
            "offset.storage.topic": "connect-offsets",
            "status.storage.topic": "connect-status",
            "config.storage.replication.factor": "1",
            "offset.storage.replication.factor": "1",
            "status.storage.replication.factor": "1",
            # 25 and 5 by default: more to open at each start than one worker has use for.
            "offset.storage.partitions": "4",
            "status.storage.partitions": "1",
            # A worker that comes back would wait 5 minutes for its tasks.
            "scheduled.rebalance.max.delay.ms": "0",
            # Moves the slot's confirmed position, which `ftstream wait` looks at (60 s by default).
            "offset.flush.interval.ms": "1000",
            # What ftstream's connectors set of their producers, and nothing else.
            "connector.client.config.override.policy": "Allowlist",
            "connector.client.config.override.allowlist": ",".join(OVERRIDES),
            "config.providers": "env",
            "config.providers.env.class": ENVIRONMENT_PROVIDER,
            # Only these: whoever may create a connector could else read the whole environment.
            "config.providers.env.param.allowlist.pattern": f"{PASSWORD_VARIABLE}|FTSTREAM_KAFKA_[A-Z]+",
        }


def probe_worker(port: int, password: str) -> str | None:
    """None once the worker has joined its group and answers, else why not."""
    return probe_http(port, "/connectors", (CONNECT_USER, password))
