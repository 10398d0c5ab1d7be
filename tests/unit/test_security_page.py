"""The tables of docs/security.md are what the code asks for. `FTSTREAM_KEEP_PAGES=1` writes them again."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from ftstream.flows import (
    FLOWS,
    Capture,
    CaptureNames,
    Names,
    Site,
    app_id,
    log_captures,
)
from ftstream.kafka.topics import capture_topics, change_topics, topics_of_all
from ftstream.settings import Database, Settings
from ftstream.setup.expectations import wanted
from ftstream.setup.rights import all_rights

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
ORDER = ("USAGE", "CONNECT", "EXECUTE", "SELECT", "INSERT", "UPDATE", "DELETE")


def settings() -> Settings:
    database = Database(
        dsn=SecretStr("postgresql://ftstream_apply@h/db"),
        watch_dsn=SecretStr("postgresql://ftstream_watch@h/db"),
    )
    return Settings(external=database, supabase=database)


def rights_table() -> Iterator[str]:
    yield "| role | at | may | on |"
    yield "| --- | --- | --- | --- |"
    for site in Site:
        here = wanted(site, FLOWS, settings())
        held: dict[tuple[str, str], set[str]] = defaultdict(set)
        for right in all_rights(here, (), (), ()):
            if right.kind == "table":
                name = right.object.removeprefix("public.")
                held[right.role, name].add(right.privilege)
        tables: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
        for (role, name), may in sorted(held.items()):
            tables[role, tuple(sorted(may, key=ORDER.index))].append(name)
        for (role, privileges), names in sorted(tables.items()):
            listed = ", ".join(f"`{name}`" for name in names)
            yield f"| `{role}` | {site} | {', '.join(privileges)} | {listed} |"


def topics_table() -> Iterator[str]:
    yield "| principal | may | topics |"
    yield "| --- | --- | --- |"
    captures = [CaptureNames(capture) for capture in log_captures(FLOWS)]
    of_connectors = {topic for names in captures for topic in names.topics}
    every = {spec.name for flow in FLOWS for spec in change_topics(Names(flow), settings())}
    signals = {names.signal_topic for names in captures}
    heartbeats = {names.heartbeat_topic for names in captures}
    besides = {spec.name for names in captures for spec in capture_topics(names, settings())}
    changelogs = {Names(f).changelog(t) for f in FLOWS if f.two_way for t in f.targets}
    assert of_connectors < every
    by_worker = every - of_connectors
    rest = {spec.name for spec in topics_of_all(settings(), FLOWS)}
    assert rest == every | besides | changelogs
    assert {f.capture for f in FLOWS} == set(Capture)
    yield row("Connect", "describe, write", of_connectors | (besides - signals))
    yield row("Connect", "describe, read", signals)
    yield row("Connect", "describe, read, write", {"connect-*"})
    yield row("worker", "describe, read", every | heartbeats | changelogs)
    repaired = {topic for names in captures if not names.capture.outbox for topic in names.topics}
    yield row("worker, `verify --repair`", "describe, write", by_worker | changelogs | repaired)
    yield row("worker", "read (group)", {app_id("")})
    yield row("`connectors apply`, `backfill`, `status`", "describe, read", besides)
    yield row("`backfill`", "write", signals)
    yield row("`init`, `remove`", "create, delete, describe", rest)


def row(principal: str, may: str, topics: Iterable[str]) -> str:
    return f"| {principal} | {may} | {', '.join(f'`{topic}`' for topic in sorted(topics))} |"


@pytest.mark.parametrize(("name", "lines"), [("rights", rights_table), ("topics", topics_table)])
def test_the_page_has_the_table_of_the_code(name: str, lines: object) -> None:
    assert callable(lines)
    table = "\n".join(lines())
    between = re.compile(rf"(<!-- {name}: derived -->\n).*?(\n<!-- end -->)", re.DOTALL)
    text = PAGE.read_text(encoding="utf-8")
    written = between.sub(lambda found: found[1] + table + found[2], text)
    assert f"<!-- {name}: derived -->" in text
    if os.environ.get("FTSTREAM_KEEP_PAGES"):
        PAGE.write_text(written, encoding="utf-8")
    assert written == PAGE.read_text(encoding="utf-8")
