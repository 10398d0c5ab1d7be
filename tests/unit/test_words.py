"""What is mistyped is answered with the nearest word, and shells complete words."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from ftstream.cli import main
from ftstream.flows import FLOWS
from ftstream.watch.codes import CODES


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["statsu"], "did you mean status?"),
        (["dead", "lst"], "did you mean list?"),
        (["connectors", "aply"], "did you mean apply?"),
        (["verify", "gxf"], "did you mean gfx?"),
        (["history", "gfx_hand", "1"], "did you mean gfx_hands?"),
        (["explain", "FT1100"], "did you mean FT110?"),
        (["status", "--jsn"], "Did you mean --json?"),
    ],
)
def test_a_word_that_is_mistyped_is_answered_with_the_nearest(typed: list[str], meant: str) -> None:
    done = CliRunner().invoke(main, typed)
    assert done.exit_code == 2 and meant in done.output


def test_a_word_that_is_near_to_none_is_told_too() -> None:
    done = CliRunner().invoke(main, ["xyzzy"])
    assert done.exit_code == 2 and "there is no command 'xyzzy'" in done.output
    assert "did you mean" not in done.output


@pytest.mark.parametrize(
    ("typed", "incomplete", "offered"),
    [
        ([], "conn", {"connectors"}),
        (["verify"], "", {flow.name for flow in FLOWS}),
        (["history"], "gfx_h", {"gfx_hands", "gfx_hand_players"}),
        (["backfill"], "gfx_s", {"gfx_sessions"}),
        (["verify", "gfx", "--table"], "cue", {"cue_sheets"}),
        (["explain"], "ft10", {code for code in CODES if code.startswith("FT10")}),
        (["dead", "retry"], "", set()),  # nobody answers here
    ],
)
def test_shells_complete_commands_flows_tables_and_codes(
    typed: list[str],
    incomplete: str,
    offered: set[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    shell = BashComplete(main, {}, "ftstream", "_FTSTREAM_COMPLETE")
    assert {item.value for item in shell.get_completions(typed, incomplete)} == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_where_the_shell_looks(
    shell: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    script = CliRunner().invoke(main, ["completion", shell]).output
    done = CliRunner().invoke(main, ["completion", shell, "--install"])
    assert done.exit_code == 0, done.output
    (written,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written.read_text().strip() == script.strip()
    assert "_FTSTREAM_COMPLETE" in script
