"""The log: ftstream's own lines, as text or as JSON; of the libraries only what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Literal

from ftstream.failures import Halted

LogFormat = Literal["text", "json"]

FORMAT = "%(asctime)s %(levelname)s %(message)s"
LIBRARIES = "WARNING"

SERVICES = logging.getLogger("faust.ftstream")
"""Where Faust's base classes write for subclasses of ours: with the libraries, not with ftstream."""

_NOISE = (
    "We experienced a crash!",  # said with its reason by ftstream
    "Error while stopping child",  # of a crash: its parts end in any order
    "Topic creation disabled!",  # `init` makes the topics
    # Every rebalance: the target's offsets count, and not what was committed.
    "because it is rebalancing",
    "IllegalGenerationError",
    "Missing sensor state for rebalance",
    "Timer commit ",
)


REPEAT_SECONDS = 60.0
"""A library that tries again several times a second says so once in this time."""


_MARK = "_ftstream_logged"

_ABOUT: ContextVar[Mapping[str, str]] = ContextVar("ftstream_about")


def about(**fields: str) -> None:
    """Say what this task, and those that it starts, are about: fields of their lines in JSON."""
    _ABOUT.set({**_ABOUT.get({}), **fields})


class About(logging.Filter):
    """Gives lines the fields of the task that writes them; what the line says of itself stands."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in _ABOUT.get({}).items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class OneLine(logging.Filter):
    """Keeps the libraries from telling again what was told.

    Faust logs an exception with its traceback once for every service that it passes; aiokafka logs
    each try while a broker is away.
    """

    def __init__(self) -> None:
        super().__init__()
        self._messages: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] == "ftstream":
            return True
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, Halted) or any(noise in record.getMessage() for noise in _NOISE):
            return False
        return self._is_new(record) if error is None else self._is_first(error)

    def _is_first(self, error: BaseException) -> bool:
        # On the error itself: a number of it would soon be that of another.
        first = not hasattr(error, _MARK)
        setattr(error, _MARK, True)
        return first

    def _is_new(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)  # without its values: they differ from try to try
        last = self._messages.get(message)
        if last is not None and record.created - last < REPEAT_SECONDS:
            return False
        self._messages[message] = record.created
        return True


_FORMATTERS: dict[LogFormat, dict[str, Any]] = {
    "text": {"format": FORMAT},
    "json": {
        "()": "pythonjsonlogger.json.JsonFormatter",
        "fmt": ["levelname", "name", "message"],
        "rename_fields": {"levelname": "level", "name": "logger", "exc_info": "error"},
        "timestamp": "time",
        "json_ensure_ascii": False,
    },
}


def logging_config(level: str, form: LogFormat = "text") -> dict[str, Any]:
    """For logging.config: to stderr, with time stamps; `level` is that of ftstream's own lines."""
    libraries = "INFO" if level.upper() == "DEBUG" else LIBRARIES
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": _FORMATTERS[form]},
        "filters": {"one_line": {"()": OneLine}, "about": {"()": About}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "filters": ["one_line", "about"],
            }
        },
        "root": {"level": libraries, "handlers": ["stderr"]},
        "loggers": {
            "ftstream": {"level": level.upper()},
            # It warns of every pipeline that an error ended; the error itself is told by the writer.
            "psycopg": {"level": "ERROR"},
            # What it meets is told once, by ftstream; it would tell each try, and quote rows.
            "realtime": {"level": "CRITICAL"},
            # In detail it would quote the address of Realtime, in which its key is.
            "websockets": {"level": LIBRARIES},
        },
    }
