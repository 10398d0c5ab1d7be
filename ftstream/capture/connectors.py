"""The Debezium connectors that read External's log, derived from flows.py.

Measured with Debezium 3.6.3 and 3.7.0 on PostgreSQL 15 and Kafka Connect 4.3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from ftstream.connect.client import CONNECTOR_CLASS
from ftstream.flows import HEARTBEAT_PREFIX, CaptureNames, Names, Site
from ftstream.messages.toast import PLACEHOLDER
from ftstream.settings import MAX_REQUEST_BYTES, KafkaSettings, Settings

REGEX_ROUTER = "org.apache.kafka.connect.transforms.RegexRouter"
TOPIC_MATCHES = "org.apache.kafka.connect.transforms.predicates.TopicNameMatches"

# What Connect's worker looks up for itself where Kafka asks for TLS or a login: paths and secrets
# of its own machine, which ftstream neither knows nor stores.
JAAS_REFERENCE = "${env:FTSTREAM_KAFKA_JAAS}"
TRUSTSTORE_REFERENCE = "${env:FTSTREAM_KAFKA_TRUSTSTORE}"
KEYSTORE_REFERENCE = "${env:FTSTREAM_KAFKA_KEYSTORE}"


PASSING = {"errors.tolerance": "all", "errors.log.enable": "true"}
"""For a moment, in place of the wanted ones: what Kafka does not take is left out (KIP-779), and logged."""


def connector_config(
    names: CaptureNames, settings: Settings, *, first_snapshot: bool = False
) -> dict[str, str]:
    """Everything Connect needs for the connector; no value is a secret.

    `first_snapshot` is how a new connector starts, until it streams (see _notifications).
    """
    outbox = names.capture.outbox
    return {
        "connector.class": CONNECTOR_CLASS,
        "tasks.max": "1",  # one slot, one reader: a log has one order
        **_database(settings),
        **_capture(names),
        **_snapshot(outbox=outbox),
        **_values(),
        **_liveness(names),
        # An outbox has no snapshot to signal for, and with read.only Debezium warns 380 times a second.
        **({} if outbox else _signals(names, settings.kafka)),
        **_notifications(names, log_only=first_snapshot or outbox),
        **_resilience(),
        **_throughput(),
        **(_outbox_converters() if outbox else _converters()),
        **(_outbox_transforms(names) if outbox else _transforms(names)),
    }


def rendered(names: CaptureNames, settings: Settings) -> str:
    """The connector as Connect's POST /connectors takes it; the same settings, the same text."""
    body = {"name": names.connector, "config": connector_config(names, settings)}
    return json.dumps(body, indent=2, sort_keys=True) + "\n"


def _database(settings: Settings) -> dict[str, str]:
    external = settings.database(Site.EXTERNAL)
    return {
        "database.hostname": external.capture_host or external.parameter("host", "localhost"),
        "database.port": str(external.capture_port or external.parameter("port", "5432")),
        "database.dbname": external.parameter("dbname"),
        "database.user": settings.connect.capture_user,
        # A reference: Connect shows its configurations to whoever can reach its REST API.
        "database.password": settings.connect.capture_password_reference,
        **_tls(external.parameter("sslmode"), external.parameter("sslrootcert")),
    }


def _tls(mode: str, root_certificate: str) -> dict[str, str]:
    """libpq and JDBC call the modes the same; without one Debezium's own default, prefer, holds."""
    config = {"database.sslmode": mode} if mode else {}
    if root_certificate == "system":
        # libpq's word for the system's certificates; JDBC says it with Java's own trust store.
        config["database.sslfactory"] = "org.postgresql.ssl.DefaultJavaSSLFactory"
    elif root_certificate:
        config["database.sslrootcert"] = root_certificate
    return config


def _capture(names: CaptureNames) -> dict[str, str]:
    config = {
        # Was database.server.name before Debezium 2. Each connector its own: two that share one
        # stall each other for a minute.
        "topic.prefix": names.prefix,
        # Lists of regular expressions, matched as a whole; a dot could only match another
        # character where there is no schema, so the names stand as they are (guidelines 3.1).
        "table.include.list": _joined(table.qualified for table in names.capture.tables),
        "plugin.name": "pgoutput",  # the default, decoderbufs, is not part of PostgreSQL
        "slot.name": names.slot,
        # The slot is the position in the log; only `ftstream remove` gives it up.
        "slot.drop.on.stop": "false",
        "publication.name": names.publication,
        # `init` makes it. Any other value has the connector alter it, for which it must own it.
        "publication.autocreate.mode": "disabled",
        # A partitioned table comes as one table, as the publication has it.
        "publish.via.partition.root": "true",
        # The default skips truncates: the rows would stay at the target for ever. Of the outbox only
        # what is put in counts; it is taken out again in the same transaction.
        "skipped.operations": "u,d,t" if names.capture.outbox else "none",
        # A delete is followed by its key without a value, for consumers that compact.
        "tombstones.on.delete": "true",
    }
    excluded = _joined(
        f"{table.qualified}.{column}"
        for table in names.capture.tables
        for column in sorted(table.excluded)
    )
    return config | ({"column.exclude.list": excluded} if excluded else {})


def _snapshot(*, outbox: bool) -> dict[str, str]:
    if outbox:
        # It is empty: the log is all there is, from the slot's making on.
        return {"snapshot.mode": "no_data"}
    return {
        # Rows first, then the log. If the slot is lost it fails at the start and says so.
        # when_needed would go on with a new snapshot, which has no deletes for the gap: rows
        # gone at the source would stay at the target, and nobody would know.
        "snapshot.mode": "initial",
        # A table altered while it is read gives rows of two shapes; reads and writes go on.
        "snapshot.locking.mode": "shared",
        # Rows held in memory at once, by default 10,240 and 1,024: gigabytes, with rows of 1 MB.
        # A chunk must be smaller than a fetch: one that takes a second fetch finds its cursor
        # gone ("portal C_11 does not exist"), and its table is skipped.
        "snapshot.fetch.size": "256",
        "incremental.snapshot.chunk.size": "128",
    }


def _values() -> dict[str, str]:
    return {
        # Exact at any size; the default, bytes, needs the schema to be read.
        "decimal.handling.mode": "string",
        # Numbers, so that infinity and 24:00 survive, which isostring gets wrong.
        "time.precision.mode": "microseconds",
        "interval.handling.mode": "string",  # numeric loses months
        "binary.handling.mode": "hex",  # as PostgreSQL itself reads and writes bytea
        "hstore.handling.mode": "json",
        # Types Debezium does not know would be left out without a word.
        "include.unknown.datatypes": "true",
        # What stands for a large value that the log leaves out: see messages/toast.py.
        "unavailable.value.placeholder": f"hex:{PLACEHOLDER.hex()}",
        # The default, warn, writes NULL in place of a value it cannot convert.
        "event.converting.failure.handling.mode": "fail",
    }


def _liveness(names: CaptureNames) -> dict[str, str]:
    return {
        "heartbeat.interval.ms": "10000",
        # Debezium's own heartbeat does not move the slot on a quiet table set, and the log would
        # grow with other tables' writes. A message in the log does, needs no table (PostgreSQL
        # 14), and reaches the agent, which so knows that the whole way is open.
        "heartbeat.action.query": heartbeat_query(names),
        # Messages of other programs are not for the heartbeat topic.
        "message.prefix.include.list": HEARTBEAT_PREFIX,
        "status.update.interval.ms": "10000",
    }


def heartbeat_query(names: CaptureNames) -> str:
    """The statement that writes the logical message; its content says whose heartbeat it is.

    The message is transactional. One that is not has no transaction id and no commit time:
    Debezium repeats the time of the change before, and an incremental snapshot that meets it
    ends the task with a NullPointerException.
    """
    return f"select pg_logical_emit_message(true, '{HEARTBEAT_PREFIX}', '{names.prefix}')"


def _signals(names: CaptureNames, kafka: KafkaSettings) -> dict[str, str]:
    return {
        # Signals come through Kafka and nothing is written to the source: no signal table.
        "read.only": "true",
        "signal.enabled.channels": "kafka",
        "signal.kafka.topic": names.signal_topic,
        "signal.kafka.bootstrap.servers": kafka.bootstrap_servers,
        # The default is one group for all connectors: each signal would reach only one of them.
        "signal.kafka.groupId": f"{names.prefix}-signal",
        "signal.poll.interval.ms": "1000",
        **_signal_security(kafka),
    }


def _notifications(names: CaptureNames, *, log_only: bool) -> dict[str, str]:
    """Return what the connector tells of its snapshots; `backfill` waits for it. An outbox has none.

    Not during the first snapshot. There a notification written to Kafka can carry an offset
    without a position, which after a restart counts as "a completed snapshot": the rest of the
    rows is then skipped, and nothing says so. Seen after ten seconds of failed attempts.
    """
    if log_only:
        return {"notification.enabled.channels": "log"}
    return {
        "notification.enabled.channels": "sink,log",
        "notification.sink.topic.name": names.notification_topic,
    }


def snapshot_over(deployed: Mapping[str, str]) -> bool:
    """Say whether a deployed connector has been seen streaming, and so been given its final form."""
    return "sink" in deployed.get("notification.enabled.channels", "").split(",")


def _signal_security(kafka: KafkaSettings) -> dict[str, str]:
    """The signal consumer is Debezium's own: it takes nothing from the worker's settings."""
    if not (kafka.encrypted or kafka.authenticated):
        return {}
    config: dict[str, str] = {"security.protocol": kafka.security_protocol}
    if kafka.authenticated:
        config |= {
            "sasl.mechanism": kafka.sasl_mechanism,
            "sasl.jaas.config": JAAS_REFERENCE,
        }
    if kafka.encrypted and kafka.ssl_cafile:
        config |= {
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": TRUSTSTORE_REFERENCE,
        }
    if kafka.encrypted and kafka.ssl_certfile:
        config |= {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": KEYSTORE_REFERENCE,
        }
    return {f"signal.consumer.{key}": value for key, value in config.items()}


def _resilience() -> dict[str, str]:
    return {
        # A database that restarts or fails over is waited for, however long it takes: a task that
        # has failed stays failed until somebody restarts it. A login that is refused fails it at once,
        # since Debezium 3.7 (SQLSTATE 28).
        "errors.max.retries": "-1",
        "retriable.restart.connector.wait.ms": "2000",
        # After a cut the server holds the slot for the old connection until wal_sender_timeout
        # (60 s) has passed: two minutes cover it, where the default of one just does not.
        "slot.max.retries": "60",
        "slot.retry.delay.ms": "2000",
        # Of each other, so that a failed conversion stops the task and skips nothing.
        "errors.tolerance": "none",
    }


def _throughput() -> dict[str, str]:
    return {
        # Commit to Kafka, p50/p95, and what an idle task takes of a core: 20 ms 23/40 and 6 %,
        # 5 ms 7/13 and 17 %, 1 ms 4/9 and 48 %. The default is 500.
        "poll.interval.ms": "5",
        # The queue between the log and Kafka, bounded in rows and, for rows of 1 MB, in bytes.
        "max.batch.size": "2048",
        "max.queue.size": "8192",
        "max.queue.size.in.bytes": str(64 * 2**20),
        # Four headers, 174 bytes a record, that repeat what source holds.
        "extended.headers.enabled": "false",
        "producer.override.max.request.size": str(MAX_REQUEST_BYTES),
        # Twice the default and four of the largest records.
        "producer.override.buffer.memory": str(4 * MAX_REQUEST_BYTES),
        "producer.override.compression.type": "lz4",
        # A change is sent at once; batches form by themselves while the one before is under way.
        "producer.override.linger.ms": "0",
        "producer.override.batch.size": str(128 * 2**10),
    }


def _converters() -> dict[str, str]:
    return {
        # With ExtractField the key is the plain id.
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        # Without schemas: 527 bytes an event in place of 3,213.
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
        # The default turns NULL into the column's DEFAULT.
        "value.converter.replace.null.with.default": "false",
    }


def _transforms(names: CaptureNames) -> dict[str, str]:
    """Topics first, then the key: the predicate sees the topic as the transforms before left it."""
    return {
        "transforms": "trim,route,heartbeat,key",
        **_trim(names),
        "transforms.route.type": REGEX_ROUTER,
        "transforms.route.regex": _table_pattern(names),
        "transforms.route.replacement": _table_replacement(names),
        **_heartbeat_route(names),
        "transforms.key.type": "org.apache.kafka.connect.transforms.ExtractField$Key",
        "transforms.key.field": _key_field(names),
        # Heartbeats, messages and notifications have other keys, or none: the field would be
        # missing, and the task would fail.
        "transforms.key.predicate": "tables",
        "predicates": "tables,messages",
        **_messages(names),
        "predicates.tables.type": TOPIC_MATCHES,
        "predicates.tables.pattern": _one_of(names.topics),
    }


def _trim(names: CaptureNames) -> dict[str, str]:
    """Leave out what a logical message holds: any login may write one of any size, which no topic takes."""
    return {
        "transforms.trim.type": "org.apache.kafka.connect.transforms.ReplaceField$Value",
        "transforms.trim.exclude": "message",
        "transforms.trim.predicate": "messages",
    }


def _messages(names: CaptureNames) -> dict[str, str]:
    return {
        "predicates.messages.type": TOPIC_MATCHES,
        "predicates.messages.pattern": re.escape(f"{names.prefix}.message"),
    }


def _heartbeat_route(names: CaptureNames) -> dict[str, str]:
    """Logical messages arrive on PREFIX.message."""
    return {
        "transforms.heartbeat.type": REGEX_ROUTER,
        "transforms.heartbeat.regex": re.escape(f"{names.prefix}.message"),
        "transforms.heartbeat.replacement": names.heartbeat_topic,
    }


def _outbox_converters() -> dict[str, str]:
    """The value of a record is the payload's text, byte for byte."""
    converter = "org.apache.kafka.connect.storage.StringConverter"
    return {"key.converter": converter, "value.converter": converter}


def _outbox_transforms(names: CaptureNames) -> dict[str, str]:
    """Each row of the outbox goes to the topic of its table, under the key of its entity."""
    (outbox,) = names.capture.tables
    return {
        "transforms": "trim,outbox,heartbeat",
        **_trim(names),
        "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
        "transforms.outbox.route.by.field": "table_name",
        "transforms.outbox.route.topic.replacement": _topic_prefix(names) + "${routedByValue}",
        "transforms.outbox.table.field.event.key": "entity_id",
        "transforms.outbox.table.field.event.payload": "payload",
        "transforms.outbox.table.field.event.id": "id",
        # Heartbeats, messages and notifications are no rows of the outbox.
        "transforms.outbox.predicate": "outbox",
        **_heartbeat_route(names),
        "predicates": "outbox,messages",
        **_messages(names),
        "predicates.outbox.type": TOPIC_MATCHES,
        "predicates.outbox.pattern": re.escape(f"{names.prefix}.{outbox.qualified}"),
    }


def _topic_prefix(names: CaptureNames) -> str:
    return Names(names.capture.flows[0], names.namespace).topic_prefix(Site.EXTERNAL)


def _table_pattern(names: CaptureNames) -> str:
    schemas = _one_of(sorted({table.schema for table in names.capture.tables}))
    return rf"{re.escape(names.prefix)}\.{schemas}\.(.*)"


def _table_replacement(names: CaptureNames) -> str:
    """The topic of a table with the table left open, as RegexRouter wants it."""
    return _topic_prefix(names) + "$1"


def _key_field(names: CaptureNames) -> str:
    keys = {table.key for table in names.capture.tables}
    if len(keys) != 1:
        raise ValueError(f"{names.capture.name} has tables with different keys: {sorted(keys)}")
    return keys.pop()


def _one_of(words: Iterable[str]) -> str:
    escaped = [re.escape(word) for word in words]
    return escaped[0] if len(escaped) == 1 else f"(?:{'|'.join(escaped)})"


def _joined(words: Iterable[str]) -> str:
    return ",".join(words)
