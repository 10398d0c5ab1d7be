"""setup/schema.sql shows ftstream's schema as the migrations and the rooms' functions make it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ftstream import setup
from ftstream.flows import Site
from tests.integration.conftest import MemoryTopics, Pair

KEPT = Path(setup.__file__).with_name("schema.sql")
HEAD = """\
-- ftstream's schema on Supabase, as PostgreSQL writes it out; External's lacks what is for people.
-- Derived, by `make schema`: tables come from setup/migrations, functions from functions.sql of each room.

"""


async def test_schema_of_record_is_what_init_makes(pair: Pair) -> None:
    async for _ in setup.run_init(pair.settings, MemoryTopics()):
        pass
    found = HEAD + readable(pair.dump(Site.SUPABASE, "--schema=ftstream", "--no-owner", "--no-acl"))
    if "FTSTREAM_KEEP_SCHEMA" in os.environ:
        KEPT.write_text(found, encoding="utf-8")
    assert KEPT.read_text(encoding="utf-8") == found, "run `make schema` and look at the difference"


def readable(dump: list[str]) -> str:
    """Leave out what is the same in every dump, the policies of a role, and the log's partitions by day."""
    statements = re.split(r"\n(?=--\n)", "\n".join(dump))
    kept = [re.sub(r"(?m)^--.*\n?", "", each).strip() for each in statements]
    noise = re.compile(r"SET |SELECT pg_catalog|CREATE POLICY|ROLE |\(|.*sync_log_\d", re.S)
    return "\n\n".join(each for each in kept if each and not noise.match(each)) + "\n"
