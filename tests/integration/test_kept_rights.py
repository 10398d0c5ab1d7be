"""Everything in schema ftstream with its owner, grants, path and row security, as a reviewer can read it.

`FTSTREAM_KEEP_RIGHTS=1` writes the file again.
"""

from __future__ import annotations

import os
from pathlib import Path

from ftstream.flows import Site
from ftstream.postgres.queries import Queries, statement
from ftstream.setup import run_init
from tests.integration.conftest import MemoryTopics, Pair

KEPT = Path(__file__).with_name("rights.txt")
QUERIES = Queries.load("tests.integration", "rights.sql")
PARTS = {"functions": "function", "tables": "table", "reached": "reached", "roles": "role"}


async def test_rights_are_those_that_were_reviewed(least: Pair) -> None:
    async for _ in run_init(least.settings, MemoryTopics()):
        pass
    lines = []
    for site in Site:
        async with await least.connect(site) as connection:
            for part, kind in PARTS.items():
                cursor = await connection.execute(statement(QUERIES[part]))
                lines += [f"{site}: {kind} {row[0]}" for row in await cursor.fetchall()]
    names = {
        f"ftstream_definer_{least.database}": "DEFINER",
        f"apply_{least.database}": "WORKER",
        f"capture_{least.database}": "CAPTURE",
        f"watch_{least.database}": "WATCHER",
        "supabase_admin": "ADMIN",
        "admin": "ADMIN",
    }
    text = "\n".join(lines) + "\n"
    for name, stands_for in names.items():
        text = text.replace(name, stands_for)
    if os.environ.get("FTSTREAM_KEEP_RIGHTS"):
        KEPT.write_text(text)
    assert text == KEPT.read_text()
