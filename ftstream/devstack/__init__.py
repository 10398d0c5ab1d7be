"""A local stack of child processes, without containers: PostgreSQL twice, Kafka, Connect, Realtime.

It imports nothing else of ftstream, so tests, the demo and other tools can use it alone.
"""

from .errors import DevstackError, MissingPrerequisites, StartFailed
from .stack import ProcessStatus, Stack
from .state import NAMES

__all__ = [
    "NAMES",
    "DevstackError",
    "MissingPrerequisites",
    "ProcessStatus",
    "Stack",
    "StartFailed",
]
