"""Settings: what differs between installations, read from the environment and ftstream.toml."""

from __future__ import annotations

import os
import ssl
import tomllib
from collections.abc import Iterable, Iterator
from datetime import time
from importlib.resources.abc import Traversable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from ftstream.failures import Severity
from ftstream.flows import Site

CONFIG_VARIABLE = "FTSTREAM_CONFIG"
DEFAULT_CONFIG = Path("ftstream.toml")


MAX_REQUEST_BYTES = 16 * 2**20
"""The largest record that a producer sends, Connect's or ftstream's own; the topics allow a little more."""

_CONNECTION: dict[str, Any] = {
    "application_name": "ftstream",
    # A connection that a failover or a firewall swallowed would hang for two hours by default;
    # statement_timeout is the server's, and does not help.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


class SettingsError(Exception):
    """The settings are missing or wrong; the message names each one and how to set it."""


class _Group(BaseModel):
    """A misspelt name is an error, not a default."""

    model_config = ConfigDict(extra="forbid")


class Database(_Group):
    """How to reach one site; a DSN is a libpq connection string or postgresql:// URL (sslmode and all)."""

    dsn: SecretStr = SecretStr("")
    """The worker's connection, with the apply role. Supabase: its transaction pooler works."""
    admin_dsn: SecretStr = SecretStr("")
    """For `init` and `remove`: an owner of the tables. Never used by the worker."""
    watch_dsn: SecretStr = SecretStr("")
    """For `ftstream watch`, whose role may read, and write nothing that flows carry; without it `dsn`."""
    capture_host: str = ""
    """Where Kafka Connect finds this database, if not at the DSN's host (containers)."""
    capture_port: int = 0
    connect_timeout: int = Field(default=10, ge=1, description="seconds")
    disk_bytes: ByteSize = ByteSize(0)
    """How large the disk of its server is ("50GB"), which SQL cannot tell; 0: nobody watches it."""
    _watches: bool = False

    @field_validator("dsn", "admin_dsn", "watch_dsn")
    @classmethod
    def _parses(cls, value: SecretStr) -> SecretStr:
        try:
            conninfo_to_dict(value.get_secret_value())
        except ProgrammingError:
            # The library's message quotes the string, which holds the password.
            raise ValueError(
                "is not a PostgreSQL connection string (postgresql://user:password@host/db)"
            ) from None
        return value

    @field_validator("watch_dsn")
    @classmethod
    def _names_user(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and not _parameter(value, "user"):
            raise ValueError("names no user: the watcher's own (postgresql://ftstream_watch:...)")
        return value

    def parameter(self, name: str, default: str = "") -> str:
        """One parameter of the worker's DSN, or, where it has none, of another: all lead to one database."""
        dsns = (self.dsn, self.admin_dsn, self.watch_dsn)
        return next((found for dsn in dsns if (found := _parameter(dsn, name))), default)

    @property
    def password(self) -> str:
        """The worker's, if its DSN has one: never the administrator's."""
        return _parameter(self.dsn, "password")

    @property
    def watch_user(self) -> str:
        """The watcher's login; empty if it has none of its own."""
        return _parameter(self.watch_dsn, "user")

    @property
    def watch_host(self) -> str:
        return _parameter(self.watch_dsn, "host")

    @property
    def watch_password(self) -> str:
        return _parameter(self.watch_dsn, "password")

    def for_watcher(self) -> Self:
        """Return the same database, to be reached with the watcher's login if it has one."""
        copy = self.model_copy()
        copy._watches = True
        return copy

    def login(self, *, admin: bool = False) -> tuple[str, SecretStr]:
        """Return the name and value of the DSN to connect with."""
        if admin:
            return "admin_dsn", self.admin_dsn
        if self._watches and self.watch_dsn.get_secret_value():
            return "watch_dsn", self.watch_dsn
        return "dsn", self.dsn

    def unprotected(self) -> Iterator[tuple[str, str]]:
        """Return which DSNs may lead to another machine in clear, and that machine."""
        for name in ("dsn", "admin_dsn", "watch_dsn"):
            dsn: SecretStr = getattr(self, name)
            host, mode = _parameter(dsn, "host"), _parameter(dsn, "sslmode") or "prefer"
            if _elsewhere(host) and mode in ("disable", "allow", "prefer"):
                yield name, host

    def conninfo(self, *, admin: bool = False) -> str:
        """The connection string, with timeouts and a name for pg_stat_activity where it has none."""
        dsn = self.login(admin=admin)[1].get_secret_value()
        given = conninfo_to_dict(dsn)
        defaults = {name: value for name, value in _CONNECTION.items() if name not in given}
        # Rows go to the database as the bytes of their JSON, whatever the role's default is.
        defaults["client_encoding"] = "utf8"
        return make_conninfo(dsn, connect_timeout=self.connect_timeout, **defaults)


def _parameter(dsn: SecretStr, name: str) -> str:
    return str(conninfo_to_dict(dsn.get_secret_value()).get(name) or "")


class KafkaSettings(_Group):
    """How to reach Kafka."""

    bootstrap_servers: str = "127.0.0.1:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password: SecretStr = SecretStr("")
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    partitions: int = Field(default=4, ge=1, description="of each change topic")
    replication_factor: int = Field(default=1, ge=1)
    retention_hours: int = Field(default=24 * 7, ge=1)

    @property
    def encrypted(self) -> bool:
        return self.security_protocol in ("SSL", "SASL_SSL")

    @property
    def authenticated(self) -> bool:
        return self.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    def ssl_context(self) -> ssl.SSLContext | None:
        if not self.encrypted:
            return None
        context = ssl.create_default_context(cafile=self.ssl_cafile)
        if self.ssl_certfile:
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile)
        return context


class ConnectSettings(_Group):
    """How to reach Kafka Connect, and where it keeps the capture role's password."""

    url: str = "http://127.0.0.1:8083"
    username: str = ""
    password: SecretStr = SecretStr("")
    capture_user: str = "debezium"
    capture_password: SecretStr = SecretStr("")
    """Set on the role by `init`; the connector only ever holds the reference below."""
    capture_password_reference: str = "${env:DEBEZIUM_PASSWORD}"
    task_timeout: float = Field(default=90, gt=0, description="seconds to wait for running tasks")


class RealtimeSettings(_Group):
    """How to reach Supabase Realtime, which wakes the publisher; without a url it looks by itself."""

    url: str = ""
    """https://REF.supabase.co, the project's own."""
    key: SecretStr = SecretStr("")
    """An API key whose role may read the tables: the service role's, or a secret one."""

    @field_validator("url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            named = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            named = False
        if value and (not named or parts.scheme not in ("http", "https")):
            raise ValueError("is not the URL of a Supabase project (https://REF.supabase.co)")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must be the URL alone: the key goes into realtime.key")
        if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            raise ValueError("must begin with https: the key travels in it")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _has_key(self) -> Self:
        if self.url and not self.key.get_secret_value():
            raise ValueError("url is set, and key is not")
        return self

    @property
    def on(self) -> bool:
        return bool(self.url)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ApplySettings(_Group):
    """Bounds of one flow's buffer and batches."""

    batch_rows: int = Field(default=4_000, ge=1)
    batch_bytes: int = Field(default=8 * 2**20, ge=1)
    buffer_rows: int = Field(default=16_000, ge=1)
    buffer_bytes: int = Field(default=24 * 2**20, ge=1)
    statement_timeout_ms: int = Field(default=60_000, ge=1)
    lock_timeout_ms: int = Field(default=300, ge=1)
    """Below PostgreSQL's deadlock_timeout (1 s), so that ftstream gives way, never a user."""
    sync_log_days: int = Field(default=30, ge=1, description="how long sync_log is kept")
    notification_days: int = Field(default=90, ge=1, description="how long notifications are kept")
    activity_days: int = Field(default=365, ge=1, description="how long activity_log is kept")
    dead_days: int = Field(default=0, ge=0)
    """After which dead changes are dropped, as `dead drop` does; 0: not before somebody drops them."""
    dead_after_seconds: float = Field(default=600, ge=0)
    """How long a parked change is tried, once all that it might wait for is applied."""
    clock_skew_seconds: float = Field(default=5, gt=0)
    """How far the other site's clock may be ahead before somebody is told: its writes win until then."""
    tombstone_days: int = Field(default=90, ge=7)
    """How long a delete is remembered at least: a write that comes later than that is refused."""
    most_parked: int = Field(default=10_000, ge=1)
    """Rows whose values do not fit at which a flow halts: then it is no odd value, but the schema."""


class BatchSettings(_Group):
    """Runs of flows captured by batch."""

    interval_seconds: float = Field(default=900, ge=1)
    most_deletes: int = Field(default=1_000, ge=0)
    """Rows of a table that a run may delete without being told to."""
    most_deleted_percent: float = Field(default=5, ge=0, le=100)
    """The same, of the rows that the table has."""
    least_deletes: int = Field(default=10, ge=0)
    """So many a run deletes whatever their share, unless External's table is empty: of a small table a few
    rows are many per cent."""


class Receiver(_Group):
    """Who is told of alerts: a service by its URL for Apprise (slack://..., mailtos://..., json://...)."""

    name: str = Field(min_length=1, max_length=40)
    """Shown where the URL, which holds a secret, must not be."""
    url: SecretStr
    least: Severity = Severity.WARNING


class OffAir(_Group):
    """A time of the week in which what is not critical waits; `begin` and `end` like "02:00"."""

    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...]
    begin: time
    end: time


class WatchSettings(_Group):
    """How closely the set-up is watched, and what `ftstream watch` tells to whom."""

    seconds: float = Field(default=10, gt=0)
    """Between two looks at what `init` and `connectors apply` have made; a fault is told at its second."""
    look_seconds: float = Field(default=5, gt=0)
    """Between two looks of `ftstream watch` at flows, workers and services."""
    receivers: tuple[Receiver, ...] = ()
    heartbeat_url: SecretStr = SecretStr("")
    """Asked each minute while the watcher looks: a dead man's switch tells when nobody asks any more."""
    heartbeat_seconds: float = Field(default=60, gt=0)
    page_url: str = ""
    """A link that alerts carry."""
    language: Literal["ko", "en"] = "ko"
    timezone: str = "Asia/Seoul"
    off_air: tuple[OffAir, ...] = ()
    morning: time | None = time(9, 0)
    """When one message says what the daily checklist asks (guidelines 8.2)."""
    health_seconds: float = Field(default=300, gt=0)
    """Between two calls of check_sync_health_and_notify() and retry_failed_syncs() (guidelines 6.2, 6.3)."""
    verify_seconds: float = Field(default=21_600, ge=0)
    """Between two comparisons of both sites; 0: none."""

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError("is no time zone (such as Asia/Seoul)") from None
        return value


class ListenSettings(_Group):
    """Where processes answer for their health and metrics over HTTP; empty: nowhere."""

    worker: str = "127.0.0.1:8471"
    """Of each worker of a machine another."""
    watcher: str = "127.0.0.1:8472"

    @field_validator("worker", "watcher")
    @classmethod
    def _is_address(cls, value: str) -> str:
        try:
            parts = urlsplit(f"//{value}")
            named = bool(parts.hostname) and parts.port is not None and parts.netloc == value
        except ValueError:
            named = False
        if value and (not named or parts.username is not None):
            raise ValueError("is no address to listen at (such as 127.0.0.1:8471)")
        return value


class SchemaSettings(_Group):
    """Where the Avro schemas are that were accepted here, beside those that ftstream brings along."""

    folder: Path | None = None
    """`ftstream schemas accept` writes into it, every worker reads it. Without one they are in the package,
    which is the repository only where ftstream runs from a checkout."""


class _TomlFile(TomlConfigSettingsSource):
    """The settings file, as Windows' editors save it too: with a byte order mark."""

    def _read_file(self, file_path: Path | Traversable) -> dict[str, Any]:
        return tomllib.loads(file_path.read_text(encoding="utf-8-sig"))


class _Environment(PydanticBaseSettingsSource):
    """Variables, and files that variables name: NAME_FILE, as container engines give secrets."""

    def __init__(
        self, settings_cls: type[BaseSettings], variables: PydanticBaseSettingsSource
    ) -> None:
        super().__init__(settings_cls)
        self._variables = variables

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._variables.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        """Raises SettingsError for a file that cannot be read, and a setting that is given twice."""
        found = self._variables()
        for variable, (group, name) in _by_variable().items():
            path = os.environ.get(f"{variable}_FILE")
            if path is None:
                continue
            if variable in os.environ:
                raise SettingsError(f"{variable} and {variable}_FILE are both set: keep one")
            values = found.setdefault(group, {})
            values.pop(f"{name}_file", None)
            values[name] = _content(f"{variable}_FILE", Path(path))
        return found


def _content(variable: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"{variable}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{variable}: {path} is no text") from None


class Settings(BaseSettings):
    """Everything that differs between installations."""

    model_config = SettingsConfigDict(
        env_prefix="FTSTREAM_", env_nested_delimiter="__", extra="forbid"
    )

    namespace: str = Field(default="", pattern=r"^[a-z0-9_]{0,20}$")
    external: Database = Database()
    supabase: Database = Database()
    kafka: KafkaSettings = KafkaSettings()
    connect: ConnectSettings = ConnectSettings()
    realtime: RealtimeSettings = RealtimeSettings()
    apply: ApplySettings = ApplySettings()
    batch: BatchSettings = BatchSettings()
    watch: WatchSettings = WatchSettings()
    listen: ListenSettings = ListenSettings()
    schemas: SchemaSettings = SchemaSettings()

    @model_validator(mode="after")
    def _watches_both(self) -> Self:
        given = [site for site in Site if self.database(site).watch_dsn.get_secret_value()]
        if len(given) == 1:
            raise ValueError(f"{given[0].other}.watch_dsn is not set, and {given[0]}.watch_dsn is")
        return self

    @model_validator(mode="after")
    def _remembers_what_kafka_holds(self) -> Self:
        if self.apply.tombstone_days * 24 < self.kafka.retention_hours:
            raise ValueError(
                "apply.tombstone_days must be as long as kafka.retention_hours at least"
            )
        return self

    def require_databases(self) -> None:
        """Raise SettingsError unless both sites are named: libpq's defaults would name one silently."""
        missing = [site.value for site in Site if not self.database(site).dsn.get_secret_value()]
        if missing:
            raise SettingsError(
                f"no database is set for {' and '.join(missing)}: set dsn in {config_path()}, or "
                + ", ".join(f"FTSTREAM_{name.upper()}__DSN" for name in missing)
            )
        if self.external.conninfo() == self.supabase.conninfo():
            raise SettingsError("external.dsn and supabase.dsn name the same database")

    def database(self, site: Site) -> Database:
        return self.external if site is Site.EXTERNAL else self.supabase

    def for_watcher(self) -> Self:
        """Return the same settings, with the watcher's logins to both sites."""
        sites = {site.value: self.database(site).for_watcher() for site in Site}
        return self.model_copy(update=sites)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        environment = _Environment(settings_cls, env_settings)
        return (
            init_settings,
            environment,
            _TomlFile(settings_cls, config_path()),
            _TomlFile(settings_cls, admin_path()),
        )


def config_path() -> Path:
    """The settings file: $FTSTREAM_CONFIG, or ftstream.toml in the working directory."""
    return Path(os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG))


def admin_path() -> Path:
    """A second file beside it, `ftstream.admin.toml`, for what the worker has no use for: admin_dsn."""
    return config_path().with_suffix(".admin.toml")


def load_settings() -> Settings:
    """Read the settings; SettingsError tells every problem, and no value, since values hold secrets."""
    if CONFIG_VARIABLE in os.environ and not config_path().is_file():
        raise SettingsError(f"{config_path()}: no such settings file")
    if misspelt := _misspelt_variables(os.environ):
        raise SettingsError(
            "; ".join(f"{name} is no setting: did you mean {meant}?" for name, meant in misspelt)
        )
    try:
        return Settings()
    except ValidationError as error:
        problems = "\n".join(
            f"  {'.'.join(map(str, item['loc']))}: {_problem(item['type'], item['msg'])}"
            for item in error.errors(include_input=False, include_context=False)
        )
        raise SettingsError(
            f"settings are wrong ({config_path()} or FTSTREAM_* variables):\n{problems}"
        ) from None
    except ValueError as error:
        raise SettingsError(f"{config_path()} is not valid TOML: {error}") from None


def _problem(kind: str, message: str) -> str:
    return "is no setting: see README.md" if kind == "extra_forbidden" else message


def _by_variable() -> dict[str, tuple[str, str]]:
    """Variable to group and name of a setting."""
    return {
        f"FTSTREAM_{group}__{name}".upper(): (group, name)
        for group, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Group)
        for name in field.annotation.model_fields
    }


def _misspelt_variables(environment: Iterable[str]) -> list[tuple[str, str]]:
    """Return those with one underscore where there are two: they would be passed over without a word."""
    meant = {variable.replace("__", "_"): variable for variable in _by_variable()}
    meant |= {f"{name}_FILE": f"{variable}_FILE" for name, variable in meant.items()}
    return [(name, meant[name]) for name in sorted(environment) if name in meant]


def unprotected(settings: Settings) -> list[str]:
    """Return where what travels to another machine can be read or sent by others; each with what to set."""
    found = []
    for site in Site:
        for name, host in settings.database(site).unprotected():
            found.append(
                f"{site}.{name}: the connection to {host} may be in clear: sslmode=verify-full"
            )
    hosts = [part.rpartition(":")[0] for part in settings.kafka.bootstrap_servers.split(",")]
    if any(map(_elsewhere, hosts)):
        if not settings.kafka.encrypted:
            found.append("kafka: rows travel in clear: security_protocol = SASL_SSL")
        if not settings.kafka.authenticated and settings.kafka.ssl_certfile is None:
            found.append(
                "kafka: nobody has to log in: security_protocol = SASL_SSL, or ssl_certfile"
            )
    for name, listen in (("worker", settings.listen.worker), ("watcher", settings.listen.watcher)):
        if _elsewhere(urlsplit(f"//{listen}").hostname or ""):
            found.append(f"listen.{name}: whoever reaches {listen} reads metrics: nobody logs in")
    connect = urlsplit(settings.connect.url)
    if _elsewhere(connect.hostname or ""):
        if connect.scheme != "https":
            found.append("connect.url: settings travel in clear: https://")
        if not settings.connect.username:
            found.append(
                "connect: nobody has to log in to change connectors: username and password"
            )
    return found


def _elsewhere(host: str) -> bool:
    """Say whether it is another machine; a path is a socket of this one."""
    return bool(host) and not host.startswith("/") and not _is_loopback(host)
