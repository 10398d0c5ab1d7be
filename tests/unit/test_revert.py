"""What `ftstream revert` refuses before it looks at a database."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from ftstream.cli import main
from ftstream.flows import FLOWS, Site
from ftstream.messages.change import Stamp
from ftstream.recover.history import HistoryEntry, Restoration
from ftstream.recover.revert import OneWrite, of_write


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
    monkeypatch.setattr("ftstream.cli.flows.FLOWS", FLOWS)
    result = CliRunner().invoke(main, ["revert", *arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_admin_needs_the_owner_s_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """libpq would take its defaults for an address, and write there."""
    monkeypatch.setattr("ftstream.cli.flows.FLOWS", FLOWS)
    for site in Site:
        monkeypatch.setenv(
            f"FTSTREAM_{site.upper()}__DSN", f"postgresql://nobody@127.0.0.1:1/{site}"
        )
    result = CliRunner().invoke(main, ["revert", "cue_sheets", "--since", "1h", "--admin"])
    assert result.exit_code == 2 and "no admin_dsn is set for supabase" in result.output


def test_database_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftstream.cli.flows.FLOWS", FLOWS)
    for site in Site:
        monkeypatch.setenv(
            f"FTSTREAM_{site.upper()}__DSN", f"postgresql://nobody@127.0.0.1:1/{site}"
        )
    result = CliRunner().invoke(main, ["revert", "cue_sheets", "--since", "1h", "--yes"])
    assert result.exit_code == 3 and "Connection refused" in result.output
    assert "Error: external does not answer" in result.output


def test_version_that_both_sites_wrote_takes_the_site() -> None:
    at = datetime(2026, 11, 24, tzinfo=UTC)
    ours, theirs = (
        HistoryEntry(
            site.other, at, "update", "applied", at, Stamp(7, site), image=f'{{"by": "{site}"}}'
        )
        for site in Site
    )
    either = of_write([ours, theirs], OneWrite("x", 7))
    assert either.state is None and "name one, external:7 or supabase:7" in either.reason
    named = of_write([ours, theirs], OneWrite("x", 7, Site.SUPABASE))
    assert named == Restoration("x", theirs.state)
