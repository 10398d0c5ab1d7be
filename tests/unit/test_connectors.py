"""The connectors in connectors/, their derivation from flows.py, and what may be shown of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from ftstream.capture.connector_diff import SettingChange, added_tables, differences
from ftstream.capture.connectors import connector_config, rendered, snapshot_over
from ftstream.capture.render import example_settings, examples
from ftstream.capture.signals import decode_notification, incremental_snapshot
from ftstream.connect.client import root_cause
from ftstream.connect.masking import MASK, is_secret, masked, scrubbed
from ftstream.flows import (
    FLOWS,
    GFX,
    HEARTBEAT_PREFIX,
    OVERRIDES,
    Capture,
    CaptureNames,
    Flow,
    Names,
    Site,
    Table,
    log_captures,
)
from ftstream.kafka.clients import client_options
from ftstream.kafka.topics import MAX_MESSAGE_BYTES, change_topics, topics_of_all
from ftstream.local.stack import connect
from ftstream.local.stack.kafka import MESSAGE_BYTES
from ftstream.settings import MAX_REQUEST_BYTES, Database, KafkaSettings, Settings

FOLDER = Path(__file__).parents[2] / "connectors"


def capture_names(flow: Flow = GFX, namespace: str = "") -> CaptureNames:
    (capture,) = log_captures([flow])
    return CaptureNames(capture, namespace)


def settings(**changes: object) -> Settings:
    return example_settings().model_copy(update=changes)


def config(namespace: str = "", **changes: object) -> dict[str, str]:
    return connector_config(capture_names(namespace=namespace), settings(**changes))


def test_files_are_what_flows_py_says() -> None:
    wanted = dict(examples())
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == wanted, (
        "run: python -m ftstream.capture.render"
    )


def test_every_connector_of_a_ready_flow_has_a_file() -> None:
    connectors = [CaptureNames(capture).connector for capture in log_captures(FLOWS)]
    assert [name for name, _ in examples()] == [f"{name}.json" for name in connectors]


def test_names_are_those_of_the_guidelines() -> None:
    document = json.loads((FOLDER / "gfx-postgres-connector.json").read_text())
    assert document["name"] == "gfx-postgres-connector"
    expected = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": "external-postgres-host",
        "database.port": "5432",
        "database.user": "debezium",
        "database.dbname": "gfx_production",
        "topic.prefix": "gfx_cdc",
        "table.include.list": "public.gfx_sessions,public.gfx_hands,"
        "public.gfx_hand_players,public.gfx_players",
        "plugin.name": "pgoutput",
        "slot.name": "gfx_slot",
        "publication.name": "gfx_publication",
        "transforms.route.replacement": "gfx.$1",
    }
    assert {key: document["config"][key] for key in expected} == expected


def test_files_hold_no_secret() -> None:
    for _, text in examples():
        for key, value in json.loads(text)["config"].items():
            assert not is_secret(key, value), key


def test_the_password_of_the_capture_role_never_reaches_a_connector() -> None:
    changed = settings()
    changed.connect.capture_password = SecretStr("hunter2")
    changed.external.dsn = SecretStr("postgresql://worker:hunter3@db/gfx_production")
    text = rendered(capture_names(), changed)
    assert "hunter" not in text
    assert '"database.password": "${env:DEBEZIUM_PASSWORD}"' in text


def test_tables_are_captured_and_routed_and_no_others_are() -> None:
    wanted = config()
    listed = wanted["table.include.list"].split(",")
    assert listed == [table.qualified for table in GFX.tables]
    for table in GFX.tables:
        assert _routed(wanted, f"gfx_cdc.{table.qualified}") == f"gfx.{table.name}"
    assert _routed(wanted, "gfx_cdcXpublicXgfx_hands") == "gfx_cdcXpublicXgfx_hands"


@pytest.mark.parametrize("namespace", ["", "rehearsal"])
def test_keys_are_extracted_on_table_topics_only(namespace: str) -> None:
    names = capture_names(namespace=namespace)
    wanted = config(namespace)
    pattern = re.compile(wanted["predicates.tables.pattern"])
    for table in GFX.tables:
        routed = _routed(wanted, f"{names.prefix}.{table.qualified}")
        assert routed == Names(GFX, namespace).topic(table, Site.EXTERNAL)
        assert pattern.fullmatch(routed)
    others = (names.heartbeat_topic, names.keepalive_topic, names.notification_topic)
    assert not any(pattern.fullmatch(topic) for topic in others)


def test_key_is_extracted_after_the_topic_is_known() -> None:
    assert config()["transforms"].split(",")[-1] == "key"


def test_heartbeats_arrive_on_their_topic_and_alone() -> None:
    wanted = config("rehearsal")
    assert _routed(wanted, "rehearsal.gfx_cdc.message") == "rehearsal.gfx.heartbeat"
    assert wanted["message.prefix.include.list"] == HEARTBEAT_PREFIX
    # Not transactional, it would end an incremental snapshot with a NullPointerException.
    assert "pg_logical_emit_message(true, 'ftstream_hb'," in wanted["heartbeat.action.query"]


def test_namespaces_share_nothing_a_connector_owns() -> None:
    one, other = config(), config("rehearsal")
    for key in ("topic.prefix", "slot.name", "publication.name", "signal.kafka.groupId"):
        assert one[key] != other[key], key


def test_a_chunk_is_smaller_than_a_fetch() -> None:
    wanted = config()
    chunk = int(wanted["incremental.snapshot.chunk.size"])
    assert chunk < int(wanted["snapshot.fetch.size"])


def test_a_first_snapshot_writes_no_notifications_to_kafka() -> None:
    first = connector_config(capture_names(), settings(), first_snapshot=True)
    assert not snapshot_over(first)
    assert snapshot_over(config())
    changed = {one.key for one in differences(config(), first)}
    assert changed == {"notification.enabled.channels", "notification.sink.topic.name"}


def test_the_outbox_gives_each_change_the_topic_of_its_table() -> None:
    wanted = connector_config(capture_names(OVERRIDES, "rehearsal"), settings())
    assert wanted["table.include.list"] == "ftstream.outbox"
    assert wanted["slot.name"] == "rehearsal_outbox_slot"
    topic = wanted["transforms.outbox.route.topic.replacement"]
    for table in OVERRIDES.tables:
        routed = topic.replace("${routedByValue}", table.name)
        assert routed == Names(OVERRIDES, "rehearsal").topic(table, Site.EXTERNAL)
    predicate = re.compile(wanted["predicates.outbox.pattern"])
    assert predicate.fullmatch("rehearsal.outbox_cdc.ftstream.outbox")
    assert not predicate.fullmatch("rehearsal.outbox_cdc.message")


def test_an_outbox_takes_no_signals() -> None:
    """Debezium logs a warning with each message where it waits for some, and takes no snapshot."""
    wanted = connector_config(capture_names(OVERRIDES), settings())
    assert [key for key in wanted if "signal" in key or key == "read.only"] == []


def test_the_local_broker_takes_what_a_topic_takes() -> None:
    assert MESSAGE_BYTES == MAX_MESSAGE_BYTES


def test_excluded_columns_are_not_captured() -> None:
    table = Table("gfx_hands", excluded=frozenset({"notes", "grade"}))
    flow = Flow("gfx", (table,), Capture.LOG, (Site.EXTERNAL,), GFX.conflict)
    listed = connector_config(capture_names(flow), settings())["column.exclude.list"]
    assert listed == "public.gfx_hands.grade,public.gfx_hands.notes"
    assert "column.exclude.list" not in config()


def test_connect_may_find_the_database_elsewhere_than_ftstream() -> None:
    dsn = SecretStr("postgresql://u:p@localhost:5433/db?sslmode=verify-full&sslrootcert=/ca.pem")
    wanted = config(external=Database(dsn=dsn, capture_host="postgres", capture_port=5432))
    assert (wanted["database.hostname"], wanted["database.port"]) == ("postgres", "5432")
    assert wanted["database.sslmode"] == "verify-full"
    assert wanted["database.sslrootcert"] == "/ca.pem"


def test_system_certificates_are_javas_own() -> None:
    dsn = SecretStr("host=db dbname=x sslmode=verify-full sslrootcert=system")
    wanted = config(external=Database(dsn=dsn))
    assert wanted["database.sslfactory"] == "org.postgresql.ssl.DefaultJavaSSLFactory"
    assert "database.sslrootcert" not in wanted


def test_signals_log_in_to_kafka_by_reference() -> None:
    kafka = KafkaSettings(
        bootstrap_servers="kafka:9093",
        security_protocol="SASL_SSL",
        sasl_username="ftstream",
        sasl_password=SecretStr("hunter2"),
        ssl_cafile=Path("/etc/ca.pem"),
    )
    wanted = config(kafka=kafka)
    assert wanted["signal.consumer.security.protocol"] == "SASL_SSL"
    assert wanted["signal.consumer.sasl.jaas.config"].startswith("${env:")
    assert not any("hunter2" in value or 'ftstream"' in value for value in wanted.values())


def test_connect_lets_connectors_override_what_they_do_and_nothing_else() -> None:
    config_keys = {key for key in config() if key.startswith("producer.override.")}
    assert config_keys == {f"producer.override.{name}" for name in connect.OVERRIDES}


def test_topics_cover_all_a_connector_writes() -> None:
    specs = {spec.name: spec for spec in topics_of_all(settings(), [GFX])}
    assert set(specs) == {
        *Names(GFX).topics(Site.SUPABASE),
        "gfx.heartbeat",
        "gfx.signal",
        "gfx.notification",
        "__debezium-heartbeat.gfx_cdc",
    }
    assert {specs[t].partitions for t in Names(GFX).topics(Site.SUPABASE)} == {4}
    assert specs["gfx.signal"].partitions == 1  # Debezium reads signals from one partition only


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_changes_are_never_compacted_and_fit_what_a_producer_sends(flow: Flow) -> None:
    specs = change_topics(Names(flow), settings())
    assert {spec.config["cleanup.policy"] for spec in specs} == {"delete"}
    assert {int(spec.config["max.message.bytes"]) for spec in specs} == {MAX_MESSAGE_BYTES}
    assert MAX_MESSAGE_BYTES > MAX_REQUEST_BYTES


def test_differences_are_named_and_masked() -> None:
    wanted = {"a": "1", "b": "2", "database.password": "${env:P}"}
    deployed = {"name": "x", "b": "3", "c": "4", "database.password": "hunter2"}
    found = {one.key: one for one in differences(wanted, deployed)}
    assert {key: one.kind for key, one in found.items()} == {
        "a": SettingChange.ADDED,
        "b": SettingChange.CHANGED,
        "c": SettingChange.REMOVED,
        "database.password": SettingChange.CHANGED,
    }
    assert found["database.password"].deployed == MASK
    assert found["database.password"].wanted == "${env:P}"
    assert differences(wanted, wanted) == ()


def test_only_an_existing_connector_lacks_the_rows_of_a_new_table() -> None:
    wanted = {"table.include.list": "public.a,public.b"}
    assert added_tables(wanted, {"table.include.list": "public.a"}) == ("public.b",)
    assert added_tables(wanted, None) == ()


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("database.password", "hunter2", MASK),
        ("database.password", "${env:DEBEZIUM_PASSWORD}", "${env:DEBEZIUM_PASSWORD}"),
        ("signal.consumer.sasl.jaas.config", 'x password="${env:P}" y="hunter2"', MASK),
        ("ssl.keystore.key", "-----BEGIN", MASK),
        ("api.token", "t", MASK),
        ("key.converter", "StringConverter", "StringConverter"),
        ("transforms.key.field", "id", "id"),
        ("tombstones.on.delete", "true", "true"),
        ("url", "http://me:hunter2@host/x", f"http://me:{MASK}@host/x"),
    ],
)
def test_secrets_are_masked_and_references_shown(key: str, value: str, shown: str) -> None:
    assert masked(key, value) == shown


@pytest.mark.parametrize(
    "message",
    [
        "Invalid value hunter2 for configuration database.password",
        "connection refused: postgresql://debezium:hunter2@db/x",
        "props {database.password=hunter2, database.user=debezium}",
        'sasl.jaas.config = Module required username="u" password="hunter2";',
    ],
)
def test_messages_are_scrubbed(message: str) -> None:
    assert "hunter2" not in scrubbed(message, {"database.password": "hunter2"})


def test_scrubbing_leaves_what_an_operator_needs() -> None:
    message = 'FATAL: password authentication failed for user "debezium"'
    assert scrubbed(message, {"database.password": "${env:P}"}) == message


def test_the_innermost_cause_is_shown() -> None:
    trace = "A: outer\n\tat x\nCaused by: B: middle\n\tat y\nCaused by: C: FATAL: no slot\n\tat z\n"
    assert root_cause(trace) == "C: FATAL: no slot"
    assert root_cause("A: outer\n\tat x") == "A: outer"


def test_a_long_cause_keeps_its_beginning_and_its_end() -> None:
    cause = root_cause(f"Caused by: The offset {'x' * 1000} is no longer available")
    assert cause.startswith("The offset") and cause.endswith("is no longer available")
    assert len(cause) < 500


def test_a_signal_names_qualified_tables() -> None:
    signal = incremental_snapshot([GFX.table("gfx_hands")], "one")
    assert json.loads(signal.encoded()) == {
        "id": "one",
        "type": "execute-snapshot",
        "data": {"type": "incremental", "data-collections": ["public.gfx_hands"]},
    }


@pytest.mark.parametrize(
    ("kind", "scan", "failure", "ended"),
    [
        ("IN_PROGRESS", None, None, False),
        ("TABLE_SCAN_COMPLETED", "SUCCEEDED", None, False),
        ("TABLE_SCAN_COMPLETED", "EMPTY", None, False),
        ("TABLE_SCAN_COMPLETED", "SQL_EXCEPTION", "SQL_EXCEPTION", False),
        ("COMPLETED", None, None, True),
        ("ABORTED", None, "aborted", True),
    ],
)
def test_a_skipped_table_counts_as_a_failure(
    kind: str, scan: str | None, failure: str | None, ended: bool
) -> None:
    details = {"scanned_collection": "public.gfx_hands"} | ({"status": scan} if scan else {})
    value = {"id": "1", "type": kind, "aggregate_type": "Incremental Snapshot"}
    notification = decode_notification(json.dumps(value | {"additional_data": details}).encode())
    assert (notification.failure, notification.ended) == (failure, ended)
    assert notification.table == "public.gfx_hands"


def test_kafka_clients_log_in_only_where_asked() -> None:
    plain = client_options(KafkaSettings())
    assert plain["ssl_context"] is None and "sasl_mechanism" not in plain
    kafka = KafkaSettings(
        security_protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password=SecretStr("p")
    )
    options = client_options(kafka)
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("u", "p")


def _routed(wanted: dict[str, str], topic: str) -> str:
    """What RegexRouter makes of a topic: it replaces only where the whole name matches."""
    for alias in wanted["transforms"].split(","):
        if regex := wanted.get(f"transforms.{alias}.regex"):
            replacement = wanted[f"transforms.{alias}.replacement"].replace("$1", r"\1")
            if re.fullmatch(regex, topic):
                topic = re.sub(regex, replacement, topic)
    return topic
