"""Chooses TCP ports that stay free while their owner is down."""

from __future__ import annotations

import random
import socket
from contextlib import closing

from ftstream.local.stack.errors import StackError

# Below the range from which Linux (32768) and macOS (49152) take ports for outgoing connections.
# Within it a client that retries while its server is down can connect to itself, and then holds
# the very port that the server needs to come back.
LOWEST, HIGHEST = 15000, 32000


def choose_ports(count: int) -> list[int]:
    """Distinct ports of 127.0.0.1 that nothing listens on now."""
    candidates = iter(random.sample(range(LOWEST, HIGHEST), 500))
    ports: list[int] = []
    for port in candidates:
        if len(ports) == count:
            break
        if is_free(port):
            ports.append(port)
    if len(ports) < count:
        raise StackError(f"no {count} free TCP ports between {LOWEST} and {HIGHEST}")
    return ports


def is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        # As the servers do: connections of an earlier run that linger are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
