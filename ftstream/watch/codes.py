"""What the watcher can find: one code for each kind of trouble, with what it means and what to do. Pure."""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import msgspec

from ftstream.failures import Severity


class Cause(enum.StrEnum):
    """Where the trouble is (guidelines 8.3); `code` is ftstream itself."""

    NETWORK = "network"
    DATABASE = "database"
    KAFKA = "kafka"
    CONNECT = "connect"
    DATA = "data"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Code:
    """A kind of trouble, as codes.toml has it; `korean` is its title for people."""

    name: str
    severity: Severity
    cause: Cause
    title: str
    korean: str
    hint: str
    more: str
    hidden_by: tuple[str, ...] = ()
    patience: float = 0.0
    """Seconds."""


def explained(name: str) -> str | None:
    """Tell what a code means and what to do, in lines for people; None if there is no such code."""
    code = CODES.get(name.upper())
    if code is None:
        return None
    head = f"{code.name}  {code.severity.value}, {code.cause.value}\n{code.title}\n{code.korean}"
    return f"{head}\n\n{code.more.strip()}\n\nThen: {code.hint}"


def _load() -> Mapping[str, Code]:
    text = files(__package__).joinpath("codes.toml").read_text(encoding="utf-8")
    tables = [{"name": name, **table} for name, table in tomllib.loads(text).items()]
    return {code.name: code for code in msgspec.convert(tables, list[Code])}


CODES = _load()
