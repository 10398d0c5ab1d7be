"""No edit out of reach: who wrote what when, winners and losers."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from ftstream.flows import Site
from ftstream.recover.history import (
    ABSENT,
    HistoryEntry,
    Restoration,
    changed,
    effective,
    restoration,
    writes,
)
from ftstream.recover.read_history import entries
from tests.integration.conftest import Pair
from tests.integration.test_outbox import NOTES
from tests.integration.two_way import Place, Two, two_places

SETUP = (
    "create table notes (id uuid primary key, body text, amount numeric, doc jsonb, place int unique)",
)
ONE, TWO = (str(uuid.UUID(int=n)) for n in (1, 2))
TABLE = NOTES.tables[0]


@pytest.fixture
async def two(least: Pair) -> AsyncIterator[Two]:
    async with two_places(least, NOTES, SETUP) as two:
        yield two


async def write(place: Place, author: str, body: str | None, key: str = ONE) -> None:
    async with place.user.transaction():
        await place.run("select set_config('ftstream.author', %s, true)", author)
        if body is None:
            await place.run("delete from notes where id = %s", key)
        else:
            await place.run(
                "insert into notes values (%s, %s, 20.00, 'null')"
                " on conflict (id) do update set body = excluded.body",
                key,
                body,
            )


async def history(two: Two, key: str = ONE) -> list[HistoryEntry]:
    found: list[HistoryEntry] = []
    for place in two.both:
        found += (await entries(place.user, place.site, TABLE, [key])).get(key, [])
    return writes(found)


def told(entry: HistoryEntry) -> tuple[str, str, str, object]:
    return entry.at, entry.author, entry.outcome, entry.row and entry.row["body"]


async def test_history_has_winner_and_loser_with_who_and_what(two: Two) -> None:
    await write(two.external, "kim", "first")
    await two.exchange()
    await write(two.external, "kim", "kim's")
    await write(two.supabase, "lee", "lee's, later")
    await two.exchange()
    await write(two.supabase, "park", None)
    await two.exchange()
    assert [told(entry) for entry in await history(two)] == [
        ("supabase", "kim (admin)", "applied", "first"),
        ("supabase", "kim (admin)", "conflict_update_update", "kim's"),
        ("external", "lee (supabase_admin)", "applied", "lee's, later"),
        ("external", "park (supabase_admin)", "applied", None),
    ]


def since(entry: HistoryEntry) -> int:
    assert entry.stamp is not None
    return entry.stamp.version


async def test_state_before_a_time_is_found_and_what_nobody_knows_is_said(two: Two) -> None:
    for author, body in (("kim", "a"), ("lee", "b"), ("kim", "c")):
        await write(two.external, author, body)
        await two.exchange()
    first, second, third = found = await history(two)
    assert restoration(ONE, found, since(third), None) == Restoration(ONE, second.state)
    assert restoration(ONE, found, since(second), None) == Restoration(ONE, first.state)
    assert restoration(ONE, found, since(third) + 1, None) is None
    # Its first write is an insert: it was not there before.
    assert restoration(ONE, found, since(first), None) == Restoration(ONE, ABSENT)
    unknown = restoration(ONE, found[1:], since(second), None)
    assert unknown is not None and unknown.state is None and "never received" in unknown.reason
    # What others have written since is not taken back with it.
    assert restoration(ONE, found, since(third), "kim (admin)") == Restoration(ONE, second.state)
    of_lee = restoration(ONE, found, since(second), "lee (admin)")
    assert of_lee is not None and of_lee.reason == "kim (admin) has changed it since"
    # What a login says of others does not make it theirs; all of it is the login's.
    assert restoration(ONE, found, since(second), "lee") is None
    assert restoration(ONE, found, since(second), "admin") == Restoration(ONE, first.state)


async def test_write_that_was_refused_never_was(two: Two) -> None:
    for place, key, where in ((two.external, ONE, 1), (two.supabase, TWO, 1)):
        await place.run("insert into notes (id, place) values (%s, %s)", key, where)
    for _ in range(3):
        changes = await two.external.captured()
        for change in changes:
            await two.supabase.apply(change)
        for change in await two.supabase.captured():
            if change.entity_id == ONE:
                await two.external.apply(change)
    found = await history(two)
    assert [entry.outcome for entry in found] == ["refused", "applied"]
    assert [entry.author for entry in effective(found)] == ["ftstream"]


def test_columns_that_differ_are_told_with_both_values() -> None:
    assert changed({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": None}) == {"b": (2, 3)}
    assert changed(None, {"a": 1}) == {"a": (None, 1)}


async def test_history_of_a_site_is_read_with_the_worker_s_rights(pair: Pair, two: Two) -> None:
    await write(two.external, "kim", "a")
    await two.exchange()
    role = f"apply_{pair.database}"
    async with await pair.connect(Site.SUPABASE, role) as connection:
        assert list(await entries(connection, Site.SUPABASE, TABLE, [ONE])) == [ONE]
