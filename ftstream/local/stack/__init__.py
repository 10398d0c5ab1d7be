"""A local stack of child processes, without containers: PostgreSQL twice, Kafka, Connect, Realtime.

It imports nothing else of ftstream, so tests, the demo and other tools can use it alone.
"""

from ftstream.local.stack.errors import MissingPrerequisites, StackError, StartFailed
from ftstream.local.stack.stack import ProcessStatus, Stack
from ftstream.local.stack.state import NAMES

__all__ = [
    "NAMES",
    "MissingPrerequisites",
    "ProcessStatus",
    "Stack",
    "StackError",
    "StartFailed",
]
