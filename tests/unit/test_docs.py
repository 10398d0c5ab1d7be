"""The commands that the documentation names exist, and CI runs the README's."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ftstream.cli import main
from ftstream.flows import FLOWS

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/security.md", "docs/codes.md", "docs/metrics.md")


def commands(document: str) -> list[str]:
    """Every `ftstream ...` and `make ...` in a document's code, without comments."""
    text = (ROOT / document).read_text(encoding="utf-8")
    code = re.findall(r"```sh\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
    lines = (line.split("#")[0].strip() for block in code for line in block.splitlines())
    return [line for line in lines if re.match(r"(ftstream|make|[A-Z_]+=\d+ make) ", line)]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_commands(document: str) -> None:
    assert commands(document)


@pytest.mark.parametrize(
    "line", [line for d in DOCUMENTS for line in commands(d) if " make " in f" {line}"]
)
def test_every_make_target_in_the_documents_exists(line: str) -> None:
    assert line.rsplit("make ", 1)[1].split()[0] in targets()


@pytest.mark.parametrize(
    "line", [line for d in DOCUMENTS for line in commands(d) if line.startswith("ftstream ")]
)
def test_every_command_in_the_documents_exists(line: str) -> None:
    command: click.Command = main
    words = [word for word in line.removeprefix("ftstream ").split() if word != "..."]
    if words[0] == "--config":
        words = words[2:]
    context = click.Context(main)
    while words and isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options, line


def all_commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return [path]
    context = click.Context(command)
    return [
        found
        for name in command.list_commands(context)
        if (child := command.get_command(context, name))
        for found in all_commands(child, (*path, name))
    ]


@pytest.mark.parametrize("path", all_commands(main), ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "make test" in commands("README.md")
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_readme_tells_of_every_flow_and_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for flow in FLOWS:
        row = next(line for line in text.splitlines() if line.startswith(f"| {flow.name} |"))
        assert all(table.name in row for table in flow.tables)
