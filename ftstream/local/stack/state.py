"""What the stack remembers between commands: ports, passwords and processes, in stack.json."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ftstream.local.stack.errors import StackError
from ftstream.local.stack.ports import choose_ports
from ftstream.local.stack.postgres import SITES
from ftstream.local.stack.process import Identity

NAMES = ("external", "supabase", "kafka", "connect", "realtime")
EXTRA_PORTS = ("controller", "via", "proxy", "connect_metrics")
"""Kafka's own, those of its second listener (see Broker.via_port), and Connect's JMX exporter."""
APPLY_ROLE = "ftstream_apply"
WATCH_ROLE = "ftstream_watch"
CONNECT_USER = "ftstream"
"""Who may log in to Connect's REST interface."""


@dataclass
class StackState:
    """`passwords` by site and role. Made once; only the last two fields change afterwards.

    A process in `starting` was never seen ready: whoever started it was killed on the way.
    """

    postgres_folder: Path
    postgres_version: int
    ports: dict[str, int]
    passwords: dict[str, dict[str, str]]
    debezium_password: str
    connect_password: str
    realtime_key: str
    processes: dict[str, Identity] = field(default_factory=dict)
    starting: set[str] = field(default_factory=set)


def new_state(postgres_folder: Path, postgres_version: int) -> StackState:
    ports = choose_ports(len(NAMES) + len(EXTRA_PORTS))
    return StackState(
        postgres_folder=postgres_folder,
        postgres_version=postgres_version,
        ports=dict(zip((*NAMES, *EXTRA_PORTS), ports, strict=True)),
        passwords={
            site.name: {
                role: new_password()
                for role in (site.superuser, site.admin, APPLY_ROLE, WATCH_ROLE)
            }
            for site in SITES.values()
        },
        debezium_password=new_password(),
        connect_password=new_password(),
        realtime_key=new_password(),
    )


def new_password() -> str:
    """128 random bits in hex: needs no escaping in a URL, TOML, JSON or a shell."""
    return secrets.token_hex(16)


def load(path: Path) -> StackState | None:
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=StackState, dec_hook=_decode)
    except msgspec.MsgspecError as error:
        raise StackError(
            f"{path} cannot be read ({error}); remove its folder and start again"
        ) from error


def save(path: Path, state: StackState) -> None:
    document = msgspec.json.encode(state, enc_hook=_encode)
    write_private(path, msgspec.json.format(document, indent=2).decode() + "\n")


def write_private(path: Path, text: str) -> None:
    """Replaces a file at once, readable by its owner only from the first byte on."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def _encode(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value)} in the state of the stack")


def _decode(wanted: type, value: object) -> object:
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"{wanted} in the state of the stack")
