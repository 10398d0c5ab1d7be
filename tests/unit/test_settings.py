"""Settings: from the environment and a file; what is wrong is told, what is secret is not."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import faust
import pytest
from pydantic import SecretStr

from ftstream import app
from ftstream.kafka.clients import client_options
from ftstream.settings import (
    Database,
    KafkaSettings,
    Settings,
    SettingsError,
    load_settings,
    unprotected,
)

SECRET = "s3cret-of-the-test"
DSN = f"postgresql://worker:{SECRET}@db.example.com:6543/postgres?sslmode=verify-full"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("FTSTREAM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_environment_sets_nested_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTSTREAM_NAMESPACE", "rehearsal")
    monkeypatch.setenv("FTSTREAM_SUPABASE__DSN", DSN)
    monkeypatch.setenv("FTSTREAM_APPLY__BATCH_ROWS", "17")
    settings = load_settings()
    assert settings.namespace == "rehearsal"
    assert settings.supabase.parameter("host") == "db.example.com"
    assert settings.apply.batch_rows == 17


def test_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ftstream.toml").write_text(
        'namespace = "filed"\n[kafka]\nbootstrap_servers = "one:9092"\n'
    )
    monkeypatch.setenv("FTSTREAM_NAMESPACE", "set")
    settings = load_settings()
    assert (settings.namespace, settings.kafka.bootstrap_servers) == ("set", "one:9092")


def test_secret_may_stand_in_a_file_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "dsn").write_text(f"{DSN}\n")
    monkeypatch.setenv("FTSTREAM_SUPABASE__DSN_FILE", str(tmp_path / "dsn"))
    monkeypatch.setenv("FTSTREAM_SUPABASE__CONNECT_TIMEOUT", "3")
    settings = load_settings()
    assert settings.supabase.dsn.get_secret_value() == DSN
    assert settings.supabase.connect_timeout == 3
    monkeypatch.setenv("FTSTREAM_SUPABASE__DSN", DSN)
    with pytest.raises(SettingsError, match="DSN_FILE are both set"):
        load_settings()
    monkeypatch.delenv("FTSTREAM_SUPABASE__DSN")
    monkeypatch.setenv("FTSTREAM_SUPABASE__DSN_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"FTSTREAM_SUPABASE__DSN_FILE: .*none: No such file"):
        load_settings()
    monkeypatch.delenv("FTSTREAM_SUPABASE__DSN_FILE")
    monkeypatch.setenv("FTSTREAM_SUPABASE_DSN_FILE", "x")
    with pytest.raises(SettingsError, match="did you mean FTSTREAM_SUPABASE__DSN_FILE"):
        load_settings()


@pytest.mark.parametrize(
    ("group", "values", "told"),
    [
        (
            "supabase",
            {"dsn": "postgresql://u:p@db.example.com/d"},
            "supabase.dsn: the connection to",
        ),
        ("supabase", {"dsn": "postgresql://u:p@db.example.com/d?sslmode=verify-full"}, ""),
        ("supabase", {"dsn": "postgresql://u:p@127.0.0.1/d"}, ""),
        ("kafka", {"bootstrap_servers": "localhost:9092,k:9092"}, "kafka: rows travel in clear"),
        ("kafka", {"bootstrap_servers": "localhost:9092,127.0.0.1:9093"}, ""),
        (
            "kafka",
            {"bootstrap_servers": "k:9092", "security_protocol": "SSL"},
            "kafka: nobody has to log in",
        ),
        ("kafka", {"bootstrap_servers": "k:9092", "security_protocol": "SASL_SSL"}, ""),
        ("connect", {"url": "http://c:8083", "username": "u"}, "connect.url: settings travel"),
        ("connect", {"url": "https://c:8083"}, "connect: nobody has to log in"),
        ("connect", {"url": "https://c:8083", "username": "u"}, ""),
    ],
)
def test_what_others_can_read_or_change_on_the_way_is_told(
    group: str, values: dict[str, str], told: str
) -> None:
    found = unprotected(Settings.model_validate({group: values}))
    assert [each[: len(told)] for each in found][:1] == ([told] if told else [])


def test_file_that_is_named_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTSTREAM_CONFIG", "elsewhere.toml")
    with pytest.raises(SettingsError, match=r"elsewhere\.toml: no such settings file"):
        load_settings()


def test_file_that_is_not_toml_is_told(tmp_path: Path) -> None:
    (tmp_path / "ftstream.toml").write_text("namespace = ")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_settings()


def test_every_problem_is_told_at_once_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTSTREAM_APPLY__BATCH_ROWS", "0")
    monkeypatch.setenv("FTSTREAM_NAMESPACE", "Not Allowed")
    monkeypatch.setenv("FTSTREAM_KAFKA__SECURITY_PROTOCOL", "PLAIN")
    with pytest.raises(SettingsError) as failure:
        load_settings()
    for name in ("apply.batch_rows", "namespace", "kafka.security_protocol"):
        assert name in str(failure.value)


def test_variable_with_one_underscore_too_few_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be passed over, and another database be worked on than was meant."""
    monkeypatch.setenv("FTSTREAM_EXTERNAL_DSN", "postgresql://u:hunter2@db/x")
    monkeypatch.setenv("FTSTREAM_KAFKA_JAAS", "of Connect's own")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert str(error.value) == (
        "FTSTREAM_EXTERNAL_DSN is no setting: did you mean FTSTREAM_EXTERNAL__DSN?"
    )


def test_unknown_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ftstream.toml").write_text("[kafkas]\nx = 1\n")
    with pytest.raises(SettingsError, match="kafkas"):
        load_settings()


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://worker:{SECRET}@host:port/db?nonsense=1",
        f"host=h password={SECRET} nonsense",
        f"postgresql://worker:{SECRET}@[half/db",
    ],
)
def test_bad_dsn_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch, dsn: str) -> None:
    monkeypatch.setenv("FTSTREAM_EXTERNAL__DSN", dsn)
    with pytest.raises(SettingsError, match=r"external\.dsn: .*not a PostgreSQL") as failure:
        load_settings()
    assert SECRET not in str(failure.value)
    assert SECRET not in repr(failure.value)
    assert failure.value.__cause__ is None


def test_no_secret_is_in_any_representation() -> None:
    settings = Settings.model_validate(
        {
            "external": {"dsn": DSN, "admin_dsn": DSN},
            "supabase": {"dsn": DSN, "admin_dsn": DSN},
            "kafka": {"sasl_password": SECRET},
            "connect": {"password": SECRET, "capture_password": SECRET},
        }
    )
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert SECRET not in text


def test_connection_string_keeps_what_the_dsn_says() -> None:
    conninfo = Database(dsn=SecretStr(DSN)).conninfo()
    for part in ("host=db.example.com", "port=6543", "sslmode=verify-full", SECRET):
        assert part in conninfo
    assert "application_name=ftstream" in conninfo
    assert "connect_timeout=10" in conninfo


def test_plain_kafka_needs_no_credentials() -> None:
    kafka = KafkaSettings(bootstrap_servers="one:9092, two:9093")
    assert client_options(kafka)["security_protocol"] == "PLAINTEXT"
    assert "sasl_mechanism" not in client_options(kafka)
    assert app._credentials(kafka) is None
    assert app._broker_urls(kafka) == ["kafka://one:9092", "kafka://two:9093"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_sasl_reaches_both_kafka_clients(protocol: str, mechanism: str) -> None:
    kafka = KafkaSettings.model_validate(
        {
            "security_protocol": protocol,
            "sasl_mechanism": mechanism,
            "sasl_username": "worker",
            "sasl_password": SECRET,
        }
    )
    options = client_options(kafka)
    assert options["security_protocol"] == protocol
    assert options["sasl_mechanism"] == mechanism
    assert options["sasl_plain_password"] == SECRET
    credentials = app._credentials(kafka)
    assert isinstance(credentials, faust.SASLCredentials)
    assert credentials.protocol.value == protocol
    assert credentials.mechanism.value == mechanism
    assert (credentials.username, credentials.password) == ("worker", SECRET)
    assert (credentials.ssl_context is not None) == (protocol == "SASL_SSL")
    assert (options["ssl_context"] is not None) == (protocol == "SASL_SSL")


def test_tls_verifies_the_broker() -> None:
    kafka = KafkaSettings(security_protocol="SSL")
    context = client_options(kafka)["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert isinstance(app._credentials(kafka), faust.SSLCredentials)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("abc.supabase.co", "is not the URL of a Supabase project"),
        ("https://", "is not the URL of a Supabase project"),
        ("https://[::1", "is not the URL of a Supabase project"),
        ("wss://abc.supabase.co", "is not the URL of a Supabase project"),
        ("http://abc.supabase.co", "must begin with https"),
        (f"https://abc.supabase.co/?apikey={SECRET}", "must be the URL alone"),
    ],
)
def test_an_address_of_realtime_that_cannot_work_is_told(
    url: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTSTREAM_REALTIME__URL", url)
    monkeypatch.setenv("FTSTREAM_REALTIME__KEY", SECRET)
    with pytest.raises(SettingsError, match=f"realtime.url: .*{told}") as raised:
        load_settings()
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["https://abc.supabase.co", "http://127.0.0.1:15000/db", "http://localhost", "http://[::1]:80"],
)
def test_realtime_is_on_where_it_has_an_address_and_a_key(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not load_settings().realtime.on
    monkeypatch.setenv("FTSTREAM_REALTIME__URL", url)
    with pytest.raises(SettingsError, match="url is set, and key is not"):
        load_settings()
    monkeypatch.setenv("FTSTREAM_REALTIME__KEY", SECRET)
    assert load_settings().realtime.on


WATCH = "postgresql://ftstream_watch:w@db.example.com/postgres"


def test_the_watcher_logs_in_with_its_own_password_and_the_worker_never_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for site in ("EXTERNAL", "SUPABASE"):
        monkeypatch.setenv(f"FTSTREAM_{site}__DSN", DSN)
        monkeypatch.setenv(f"FTSTREAM_{site}__WATCH_DSN", WATCH)
    settings = load_settings()
    for database in (settings.external, settings.supabase):
        assert "user=worker" in database.conninfo()
        watching = database.for_watcher()
        assert "user=ftstream_watch" in watching.conninfo() and SECRET not in watching.conninfo()
        assert watching.login() == ("watch_dsn", database.watch_dsn)
    assert "user=ftstream_watch" in settings.for_watcher().external.conninfo()
    assert "user=worker" in settings.external.conninfo()


def test_without_a_login_of_its_own_the_watcher_has_the_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FTSTREAM_EXTERNAL__DSN", DSN)
    assert "user=worker" in load_settings().for_watcher().external.conninfo()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"FTSTREAM_EXTERNAL__WATCH_DSN": WATCH}, "supabase.watch_dsn is not set"),
        ({"FTSTREAM_EXTERNAL__WATCH_DSN": "postgresql://db.example.com/x"}, "names no user"),
        ({"FTSTREAM_EXTERNAL__WATCH_DSN": f"{SECRET} no dsn"}, "watch_dsn: .*is not a PostgreSQL"),
        ({"FTSTREAM_LISTEN__WORKER": "8471"}, "is no address to listen at"),
        ({"FTSTREAM_LISTEN__WATCHER": "a:b@h:1"}, "is no address to listen at"),
        ({"FTSTREAM_SUPABASE__DISK_BYTES": "much"}, "supabase.disk_bytes"),
    ],
)
def test_settings_of_the_watcher_that_cannot_work_are_told(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=said) as told:
        load_settings()
    assert SECRET not in str(told.value)


def test_metrics_that_others_can_reach_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTSTREAM_LISTEN__WATCHER", "0.0.0.0:8472")
    (told,) = unprotected(load_settings())
    assert "listen.watcher" in told
