"""Supabase's own advisors find nothing to warn of in what `init` makes: by its command line, from npm."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from ftstream.local.demo.rig import Rig

CLI = "supabase@3"

pytestmark = pytest.mark.soak


def test_supabases_advisors_warn_of_nothing_that_is_ftstreams(rig: Rig) -> None:
    rig.run("init")
    asked = ["npx", "--yes", CLI, "db", "advisors", f"--remote={rig.dsn('supabase')}"]
    done = subprocess.run(
        [*asked, "--level", "info"], capture_output=True, text=True, check=False, timeout=300
    )
    _, bracket, found = done.stdout.partition("[\n")
    findings: list[dict[str, Any]] = json.JSONDecoder().raw_decode(bracket + found)[0]
    ours = [each for each in findings if "ftstream" in json.dumps(each["metadata"])]
    assert ours, "it has not looked at schema ftstream"
    assert [each["detail"] for each in ours if each["level"] != "INFO"] == []
