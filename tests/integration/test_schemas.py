"""The kept schemas against a real catalog, and the commands that compare and accept them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from click.testing import CliRunner, Result

from ftstream.capture.batch.drift import drifts
from ftstream.cli import main
from ftstream.flows import WSOP, Site
from ftstream.messages.kept_schemas import PACKAGED, KeptSchemas

from .conftest import Pair


async def test_the_kept_schemas_are_those_of_the_demo(pair: Pair) -> None:
    """If not: `ftstream schemas accept`, with a database that has the demo's schema as External."""
    async with await pair.connect(Site.EXTERNAL) as external:
        found = await drifts(external, WSOP, KeptSchemas(WSOP, [PACKAGED]))
    assert [drift.table for drift in found] == list(WSOP.tables)
    assert [(d.table.name, list(map(str, d.differences))) for d in found if not d.equal] == []


class Installed:
    """The command as somebody runs it who has no checkout: what is accepted goes into a folder."""

    def __init__(self, pair: Pair, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pair = pair
        self.folder = folder
        for site in Site:
            monkeypatch.setenv(f"FTSTREAM_{site.name}__DSN", dsn(pair, site))
        monkeypatch.setenv("FTSTREAM_SCHEMAS__FOLDER", str(folder))

    def run(self, *arguments: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(main, ["schemas", *arguments], input=answer)

    def alter(self, statement: LiteralString) -> None:
        with psycopg.connect(dsn(self.pair, Site.EXTERNAL)) as connection:
            connection.execute(statement)

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*.avsc"))


@pytest.fixture
def installed(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    return Installed(pair, tmp_path, monkeypatch)


def test_an_unchanged_table_has_nothing_to_accept(installed: Installed) -> None:
    result = installed.run("diff")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [f"{t.name}: as kept (001)" for t in WSOP.tables]
    assert "nothing to accept" in installed.run("accept").output
    assert installed.files() == []


def test_a_new_column_is_compatible_and_is_accepted_without_a_question(
    installed: Installed,
) -> None:
    installed.alter('alter table wsop_players add "별명 1" text, drop column nickname')
    result = installed.run("diff")
    assert result.exit_code == 0, result.output
    assert "wsop_players: differs from 001, compatible\n" in result.output
    halts = "  nickname: removed (was string)  (runs halt until this is accepted)\n"
    assert halts + "  별명 1: new (string)\n" in result.output
    assert installed.run("accept", "wsop_events").output.startswith("nothing to accept")
    shown = installed.run("accept", "--dry-run")
    assert "dry run: nothing was changed" in shown.output
    assert installed.files() == []
    result = installed.run("accept")
    assert result.exit_code == 0, result.output
    assert "Next: " in result.output
    assert installed.files() == ["wsop/wsop_players/002.avsc"]
    assert "wsop_players: as kept (002)" in installed.run("diff").output
    assert installed.run("check").exit_code == 0


def test_an_incompatible_column_is_named_and_asked_about(installed: Installed) -> None:
    installed.alter("alter table wsop_chip_counts alter chip_count type text")
    result = installed.run("diff", "--json")
    assert result.exit_code == 1
    (document,) = [d for d in json.loads(result.stdout) if not d["equal"]]
    assert document == {
        "flow": "wsop",
        "table": "wsop_chip_counts",
        "version": 1,
        "equal": False,
        "compatible": False,
        "differences": [
            {"column": "chip_count", "was": "long", "now": "string", "compatible": False}
        ],
    }
    declined = installed.run("accept", answer="n\n")
    assert declined.exit_code == 1
    assert "chip_count: long became string  (incompatible)" in declined.output
    assert installed.files() == []
    accepted = installed.run("accept", "--yes")
    assert accepted.exit_code == 0, accepted.output
    text = (installed.folder / "wsop/wsop_chip_counts/002.avsc").read_text(encoding="utf-8")
    assert json.loads(text)["breaks"] == ["chip_count: long became string"]
    assert installed.run("diff").exit_code == 0
    assert installed.run("check").exit_code == 0


def test_a_break_that_nobody_accepted_is_found(installed: Installed) -> None:
    installed.alter("alter table wsop_chip_counts alter chip_count type text")
    installed.run("accept", "--yes")
    path = installed.folder / "wsop/wsop_chip_counts/002.avsc"
    document = json.loads(path.read_text(encoding="utf-8"))
    del document["breaks"]
    path.write_text(json.dumps(document), encoding="utf-8")
    result = installed.run("check")
    assert result.exit_code == 1
    assert "wsop_chip_counts: chip_count: long became string" in result.stderr


def test_wrong_use_is_told(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed.run("diff", "gfx_hands").exit_code == 2
    installed.alter("drop table wsop_chip_counts")
    result = installed.run("diff")
    assert result.exit_code == 1
    assert "wsop_chip_counts does not exist" in result.output
    monkeypatch.setenv("FTSTREAM_SCHEMAS__FOLDER", str(installed.folder / "absent"))
    result = installed.run("diff")
    assert result.exit_code == 2
    assert "absent is no folder" in result.output


def test_a_folder_that_cannot_be_written_is_told(installed: Installed) -> None:
    installed.alter("alter table wsop_players add extra text")
    (installed.folder / "wsop").write_text("in the way")
    result = installed.run("accept")
    assert result.exit_code == 1
    assert "Error: " in result.output
    assert str(installed.folder / "wsop") in result.output


def dsn(pair: Pair, site: Site) -> str:
    cluster = pair.cluster(site)
    return cluster.dsn(cluster.site.superuser, pair.database)
