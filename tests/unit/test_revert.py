"""What `ftstream revert` refuses before it looks at a database."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from ftstream.cli import main
from ftstream.flows import FLOWS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cue_sheets"], "give --since, or --version with --id"),
        (["cue_sheets", "--since", "1h", "--version", "7"], "give --since, or --version with --id"),
        (["cue_sheets", "--version", "7"], "--version takes one --id"),
        (["cue_sheets", "--version", "7", "--id", "a", "--id", "b"], "--version takes one --id"),
        (["cue_sheets", "--version", "x", "--id", "a"], "is no version"),
        (["cue_sheets", "--version", "mars:7", "--id", "a"], "is no version"),
        (["cue_sheets", "--since", "2999-01-01"], "lies in the future"),
        (["cue_sheets", "--since", "soon"], "is no time"),
        (["cue_items", "--since", "1h"], "is no synced table"),
        (["gfx_hands", "--since", "1h"], "edit it on External"),
        (["wsop_players", "--since", "1h"], "edit it on External"),
        (
            ["render_queue", "--since", "1h", "--site", "external"],
            "can be written on supabase only",
        ),
    ],
)
def test_wrong_use_is_told(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftstream.cli.flows.READY", FLOWS)
    result = CliRunner().invoke(main, ["revert", *arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
