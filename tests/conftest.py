"""What tests of all kinds share: one real stack for the whole session, and rigs on it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from ftstream.local.demo.rig import Rig
from ftstream.local.stack import Stack

# What fails in a helper shows its values, as in a test.
pytest.register_assert_rewrite("tests.integration", "tests.soak", "tests.system")

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("ftstream", deadline=None)
settings.load_profile("ftstream")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Kafka, Connect and two PostgreSQL clusters, started when the first test asks for them."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    stack.up()
    try:
        yield stack
    finally:
        stack.down(destroy=True)


@pytest.fixture(scope="module")
def rig(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Databases with the demo schema, under a namespace of the module's own; nothing is set up yet.

    What the rig left (connector, slot, topics) is removed after the module.
    """
    namespace = re.sub(r"\W", "", request.module.__name__.rsplit(".", 1)[-1].removeprefix("test_"))
    with Rig(stack, namespace[:20]) as rig:
        rig.create_databases()
        yield rig
        rig.stop_workers()
        rig.run("remove", "--yes")


@pytest.fixture(scope="module")
def running(rig: Rig) -> Rig:
    """The rig with init done, its connector running and one worker started."""
    rig.run("init")
    rig.run("connectors", "apply")
    rig.start_worker(rig.stack.folder / "logs" / f"{rig.namespace}.log")
    return rig


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for a condition; AssertionError when it does not come in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(POLL_SECONDS)


POLL_SECONDS = 0.05
