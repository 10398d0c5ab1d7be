"""Old deletes are forgotten where both sites know them, and nothing comes back for it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from ftstream.compare.reconciliation import repair
from ftstream.flows import Site
from ftstream.last_write import tombstones
from ftstream.last_write.tombstones import horizon, prune
from ftstream.postgres.connection import open_connection
from tests.integration.conftest import Pair
from tests.integration.test_outbox import NOTES
from tests.integration.two_way import Place, Two, two_places

SETUP = ("create table notes (id uuid primary key, body text)",)
ONE, OTHER, THIRD = (str(uuid.UUID(int=n)) for n in range(1, 4))
FOREVER = 9 * 10**15
TABLE = NOTES.tables[0]


@pytest.fixture
async def two(least: Pair) -> AsyncIterator[Two]:
    async with two_places(least, NOTES, SETUP) as two:
        yield two


async def write(place: Place, *keys: str) -> None:
    for key in keys:
        await place.run("insert into notes values (%s, 'text')", key)


async def forget(pair: Pair, before: int = FOREVER) -> int:
    """As the worker does, with its rights."""
    external, supabase = (pair.settings.database(site).conninfo() for site in Site)
    async with await open_connection(external) as one, await open_connection(supabase) as other:
        return await prune([one, other], TABLE, before)


async def known(place: Place) -> set[str]:
    return {row[1] for row in await place.ledger()}


async def test_delete_that_both_know_is_forgotten_and_a_late_write_refused(
    least: Pair, two: Two
) -> None:
    external, supabase = two.both
    await write(external, ONE, OTHER)
    late = await external.captured()
    await supabase.apply(*late)
    await supabase.run("delete from notes where id = %s", ONE)
    gone = await supabase.captured()
    version = max(change.version for change in gone)
    assert await forget(least) == 0  # External has not heard of it
    await external.apply(*gone)
    assert await forget(least, version) == 0  # not old enough
    assert await forget(least) == 1
    for place in two.both:
        assert await known(place) == {OTHER}
        assert await horizon(place.user, TABLE) == version
    # The inserts come once more, as of a topic that is replayed: the row stays deleted.
    await supabase.apply(*late)
    assert sorted(await supabase.outcomes()) == ["applied", "applied", "duplicate", "refused"]
    assert [told.kind for told in supabase.told] == ["write_refused"]
    await two.must_agree("notes")
    # A user may write it again, and it arrives.
    await write(external, ONE)
    await supabase.apply(*await external.captured())
    await two.must_agree("notes")


async def test_what_one_site_has_forgotten_alone_is_forgotten_by_the_other(
    least: Pair, two: Two
) -> None:
    external, supabase = two.both
    await write(external, ONE)
    await external.run("delete from notes")
    await two.exchange()
    stamp = (await external.ledger())[0][2]
    for place in two.both:
        await place.run("insert into ftstream.horizon values ('notes', %s)", stamp)
    await supabase.run("delete from ftstream.last_write")  # interrupted there
    assert await forget(least) == 1
    assert await known(external) == await known(supabase) == set()


async def test_delete_stays_while_the_sites_differ_or_a_change_waits(least: Pair, two: Two) -> None:
    external, supabase = two.both
    await write(external, ONE, OTHER, THIRD)
    await external.run("delete from notes")
    await two.exchange()
    await external.run(
        "update ftstream.last_write set version = version + 1 where entity_id = %s", ONE
    )
    await supabase.run(
        "insert into ftstream.parked_change"
        " (flow, state, table_name, entity_id, topic, kafka_partition, kafka_offset, message, sqlstate,"
        "  error, hint) values ('notes', 'dead', 'notes', %s, 't', 0, 0, '', '', '', '')",
        OTHER,
    )
    assert await forget(least) == 1
    assert await known(external) == await known(supabase) == {ONE, OTHER}


async def test_delete_that_the_other_site_never_heard_of_is_not_forgotten(
    least: Pair, two: Two
) -> None:
    """Of a row that was equal on both sites when they met: neither knows a last write of it."""
    external = two.external
    await write(external, ONE, OTHER)
    await two.exchange()
    for place in two.both:
        await place.run("delete from ftstream.last_write")
    await external.run("delete from notes where id = %s", ONE)
    assert await external.captured()  # and it is lost on the way
    await external.run("delete from notes where id = %s", OTHER)
    await two.exchange()
    assert await forget(least) == 1  # raises the horizon beyond the first
    assert await forget(least) == 0
    assert await known(external) == {ONE}
    await repair(NOTES, least.settings, NOTES.tables)
    await two.exchange()
    await two.must_agree("notes")
    assert await external.rows("notes") == []


async def test_pages_of_deletes_that_nobody_agrees_on_hold_up_no_other(
    least: Pair, two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tombstones, "MOST", 1)
    external, supabase = two.both
    await write(external, ONE, OTHER, THIRD)
    for key in (ONE, OTHER, THIRD):
        await external.run("delete from notes where id = %s", key)
    await two.exchange()
    await supabase.run(
        "update ftstream.last_write set version = version + 1 where entity_id = %s", ONE
    )
    assert await forget(least) == 2
    assert await known(external) == {ONE}
