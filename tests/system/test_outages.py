"""Whoever does not answer is named, at once, and the exit code says that nobody can tell."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from ftstream.local.demo.rig import Rig
from ftstream.local.stack.ports import choose_ports
from tests.system.scene import Scene

BOTH = frozenset({"external", "supabase"})
ALL = BOTH | {"kafka", "connect"}
ID = "00000000-0000-0000-0000-000000000001"


class Asks(NamedTuple):
    """A command, and whom it asks."""

    arguments: tuple[str, ...]
    needs: frozenset[str]


COMMANDS = (
    Asks(("status",), ALL),
    Asks(("wait", "--timeout", "5"), ALL),
    Asks(("verify", "gfx"), ALL),
    Asks(("reconcile", "cue_sheets", "--dry-run"), BOTH),
    Asks(("history", "cue_sheets", ID), BOTH),
    Asks(("revert", "cue_sheets", "--since", "1h", "--dry-run"), BOTH),
    Asks(("dead", "list"), BOTH),
    Asks(("notifications",), frozenset({"supabase"})),
    Asks(("batch", "status"), frozenset({"supabase"})),
    Asks(("accept-loss", "gfx", "--dry-run"), frozenset({"supabase", "kafka"})),
    Asks(("connectors", "status"), frozenset({"kafka", "connect"})),
    Asks(("connectors", "diff"), ALL),
    Asks(("connectors", "apply"), frozenset({"external", "kafka", "connect"})),
    Asks(("backfill", "gfx_players"), frozenset({"kafka", "connect"})),
    Asks(("restored", "external", "--yes"), frozenset({"connect"})),
)
NAMED = {"external": "external", "supabase": "supabase", "kafka": "Kafka", "connect": "Connect"}


@pytest.fixture(scope="module")
def closed(running: Rig) -> dict[str, dict[str, str]]:
    """For each of them, the setting that leads to a port where nobody listens."""
    port = choose_ports(1)[0]

    def elsewhere(dsn: str) -> str:
        head, _, database = dsn.rpartition("/")
        return f"{head.rpartition(':')[0]}:{port}/{database}"

    environment = running.environment
    return {
        "external": {
            name: elsewhere(environment[name]) for name in environment if "EXTERNAL__" in name
        },
        "supabase": {
            name: elsewhere(environment[name]) for name in environment if "SUPABASE__" in name
        },
        "kafka": {"FTSTREAM_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{port}"},
        "connect": {"FTSTREAM_CONNECT__URL": f"http://127.0.0.1:{port}"},
    }


@pytest.mark.parametrize("away", NAMED)
def test_each_command_names_who_does_not_answer(
    running: Rig, closed: dict[str, dict[str, str]], away: str
) -> None:
    running.overrides = closed[away]
    scene = Scene(running)

    def run(asks: Asks) -> list[str]:
        done = scene.command(*asks.arguments)
        said = (done.stdout + done.stderr).decode()
        wrong = []
        if done.returncode != 3:
            wrong.append(f"exit code {done.returncode}")
        if NAMED[away].lower() not in said.lower() or "Traceback" in said:
            wrong.append("does not name it")
        return [f"{' '.join(asks.arguments)}: {', '.join(wrong)}: {said}"] if wrong else []

    try:
        with ThreadPoolExecutor(2) as pool:
            found = [
                each
                for wrong in pool.map(run, (asks for asks in COMMANDS if away in asks.needs))
                for each in wrong
            ]
    finally:
        running.overrides = {}
    assert found == [], "\n".join(found)


def test_all_of_them_work_where_everybody_answers(running: Rig) -> None:
    scene = Scene(running)
    fine = [
        asks.arguments for asks in COMMANDS if asks.arguments[0] not in ("restored", "backfill")
    ]
    # Nothing is known of that row.
    allowed: dict[tuple[str, ...], int] = {("history", "cue_sheets", ID): 1}

    def run(arguments: tuple[str, ...]) -> str:
        done = scene.command(*arguments)
        expected = allowed.get(arguments, 0)
        return "" if done.returncode == expected else f"{arguments}: {done}"

    with ThreadPoolExecutor(2) as pool:
        assert [said for said in pool.map(run, fine) if said] == []
