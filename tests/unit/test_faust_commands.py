"""Faust's own commands find the app, and say what is true of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from ftstream.flows import FLOWS, Names
from ftstream.local.stack.ports import choose_ports

SITES = {
    "FTSTREAM_EXTERNAL__DSN": "postgresql://worker@127.0.0.1:1/external",
    "FTSTREAM_SUPABASE__DSN": "postgresql://worker@127.0.0.1:1/supabase",
}


def faust(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "faust", "-A", "ftstream.app", *arguments],
        env=os.environ | SITES | environment | {"COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_every_agent_is_listed_with_its_topics() -> None:
    listed = faust("agents").communicate(timeout=60)[0]
    for flow in FLOWS:
        for target in flow.targets:
            row = next(line for line in listed.splitlines() if f"@{flow.name}-{target} " in line)
            assert all(topic in row for topic in Names(flow).topics(target))


def test_every_table_of_last_writes_is_listed() -> None:
    listed = faust("tables").communicate(timeout=60)[0]
    for flow in FLOWS:
        for target in flow.targets:
            assert (Names(flow).last_write(target) in listed) is flow.two_way


@pytest.mark.parametrize("option", ["--with-web", "--without-web"])
def test_worker_has_no_web_server_whatever_its_options_say(option: str) -> None:
    kafka, web = choose_ports(2)
    process = faust(
        "worker",
        *("-l", "info", option, "--web-port", str(web)),
        FTSTREAM_KAFKA__BOOTSTRAP_SERVERS=f"127.0.0.1:{kafka}",
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "retrying: Kafka does not answer" in line:
            break
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", web), timeout=5)
    process.terminate()
    said.append(process.communicate(timeout=60)[0])
    assert process.returncode == 0, said
    banner = [line for line in said if line.startswith("|")]
    assert banner and not [line for line in banner if "web" in line or "datadir" in line]
