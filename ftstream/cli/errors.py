"""How commands report what went wrong: a message, and an exit code."""

from __future__ import annotations

import click
import psycopg

from ftstream.apply.sites import ApplyFailed
from ftstream.capture.batch import RunStopped, RunUnderWay
from ftstream.capture.batch.schedule import TurnLost
from ftstream.compare.progress import NotCaughtUp, SlotMissing
from ftstream.compare.reconciliation import Undecided
from ftstream.connect.errors import ConnectError, ConnectUnreachable
from ftstream.kafka.errors import KafkaError, KafkaUnreachable
from ftstream.local.demo.rig import CommandFailed, FolderTaken
from ftstream.local.stack import StackError
from ftstream.messages.avro_schema import SchemaFileError
from ftstream.messages.kept_schemas import NoFolder
from ftstream.postgres.catalog import KeyMissing, TableMissing
from ftstream.postgres.connection import SiteUnreachable
from ftstream.postgres.errors import failure_of
from ftstream.settings import SettingsError

FAILED = 1
WRONG_USE = 2
UNREACHABLE = 3

EXIT_CODES = """\b
Exit codes:
  0  done; nothing differs; everything runs
  1  something is wrong with data or a flow: it differs, does not run, or was refused
  2  wrong use, or wrong settings
  3  nobody can tell: a database, Kafka or Kafka Connect does not answer
"""

# The first that fits.
_CODES: tuple[tuple[type[Exception], int], ...] = (
    (SettingsError, WRONG_USE),
    (ConnectUnreachable, UNREACHABLE),
    (KafkaUnreachable, UNREACHABLE),
    (SiteUnreachable, UNREACHABLE),
    (ConnectError, FAILED),
    (KafkaError, FAILED),
    (psycopg.Error, FAILED),
    (ApplyFailed, FAILED),
    (TableMissing, FAILED),
    (KeyMissing, FAILED),
    (NotCaughtUp, FAILED),
    (RunStopped, FAILED),
    (RunUnderWay, FAILED),
    (TurnLost, FAILED),
    (SlotMissing, FAILED),
    (Undecided, FAILED),
    (SchemaFileError, FAILED),
    (NoFolder, WRONG_USE),
    (StackError, FAILED),
    (FolderTaken, WRONG_USE),
    (CommandFailed, FAILED),
)


class CommandFailure(click.ClickException):
    """An error as a message, with the exit code it stands for."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


_NOT_SET_UP = " (`ftstream init` makes it: has it been run?)"


def _message(error: Exception) -> str:
    match error:
        case psycopg.errors.UndefinedTable() | psycopg.errors.InvalidSchemaName():
            return f"{error.diag.message_primary}{_NOT_SET_UP}"
        case _:
            return str(error).strip()


def failure(error: Exception) -> CommandFailure | None:
    """The message and exit code for an error that a command may meet; None for a fault of ours."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            lost = (isinstance(error, psycopg.Error) and failure_of(error).connection) or (
                isinstance(error, ApplyFailed) and error.failure.connection
            )
            return CommandFailure(_message(error), UNREACHABLE if lost else code)
    return None
