"""The demo ends with two equal sites, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.conftest import until

MARK = "FTSTREAM_TEST_DEMO"


def demo(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ftstream", "demo", "--dir", str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {MARK: str(folder)},
    )


def using(folder: Path) -> list[psutil.Process]:
    """Processes that were started, by whatever way, by this demo: they have its mark."""
    return [
        process
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get(MARK) == str(folder)
    ]


def test_the_demo_ends_with_equal_sites(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    process = demo(folder, "--seconds", "5")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert re.fullmatch(r"both sites equal: [1-9]\d* rows", output.splitlines()[-1])
    assert not folder.exists()
    assert not using(folder)


def test_an_interrupted_demo_leaves_no_process(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    process = demo(folder, "--seconds", "60")
    assert process.stdout is not None
    while "ftstream worker" not in (line := process.stdout.readline()):
        assert line, "the demo ended early"
    for _ in range(4):  # people press again while it stops
        process.send_signal(signal.SIGINT)
        time.sleep(0.4)
    output, _ = process.communicate()
    assert process.returncode == 130, output
    assert "Traceback" not in output
    until(lambda: not using(folder))
    assert not folder.exists()
