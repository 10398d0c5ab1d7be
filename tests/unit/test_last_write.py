"""What an agent keeps of the writes that it has seen, and how that comes into its changelog."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from types import SimpleNamespace
from typing import NamedTuple

import faust
import pytest
from faust.streams import _current_event

from ftstream.flows import CUE_SHEETS, FLOWS, OVERRIDES, Flow, Names, Site, app_id
from ftstream.kafka.chunk import Chunk
from ftstream.kafka.errors import KafkaUnreachable
from ftstream.kafka.partition import Partition
from ftstream.kafka.publishing import Message
from ftstream.kafka.topics import change_topics, changelog_topics
from ftstream.last_write import changelog, table
from ftstream.last_write.changelog import Changelog
from ftstream.last_write.seen import SeenWrite, encode, key_of
from ftstream.last_write.table import LastWrite
from ftstream.settings import KafkaSettings, Settings

NAMES = Names(OVERRIDES, "rehearsal")
AT = Partition("rehearsal.external.player_overrides", 3)


class Record(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None


class FakePublishing:
    """Takes so many messages at a time, or none."""

    def __init__(self) -> None:
        self.taken: list[Message] = []
        self.takes = 1_000
        self.abandoned = False

    async def publish(self, messages: Sequence[Message]) -> int:
        if not self.takes:
            raise KafkaUnreachable("nowhere", "away")
        self.taken += messages[: self.takes]
        return min(self.takes, len(messages))

    async def abandon(self) -> None:
        self.abandoned = True


class FakeEvent:
    message = SimpleNamespace(topic=AT.topic, partition=AT.partition)


@pytest.fixture
def event() -> Iterator[FakeEvent]:
    """The record that the agent's loop is at."""
    event = FakeEvent()
    token = _current_event.set(weakref.ref(event))
    yield event
    _current_event.reset(token)


def kept(restored: Sequence[Record] = ()) -> tuple[LastWrite, FakePublishing]:
    app = faust.App(app_id("rehearsal"), store="memory://")
    app.consumer = SimpleNamespace(topic_partitions=lambda topic: None)
    made = LastWrite(app, NAMES, Site.SUPABASE, KafkaSettings())
    publishing = FakePublishing()

    async def read(partitions: Sequence[int]) -> AsyncIterator[Record]:
        for record in restored:
            yield record

    made._changelog._publishing = publishing  # type: ignore[assignment]
    made._changelog.read = read  # type: ignore[method-assign, assignment]
    return made, publishing


def message(key: str, version: int) -> bytes:
    return json.dumps({"id": key, "op": "update", "site": "external", "version": version}).encode()


def chunk(*records: tuple[str, int]) -> Chunk:
    """Of ids and versions, from offset 5 on."""
    found = [Record(n, key.encode(), message(key, v)) for n, (key, v) in enumerate(records, 5)]
    return Chunk(AT, found, 1, 1)


def seen(version: int, offset: int = 0) -> SeenWrite:
    return SeenWrite(version, "external", *AT, offset)


@pytest.mark.parametrize("flow", [OVERRIDES, CUE_SHEETS], ids=lambda flow: flow.name)
@pytest.mark.parametrize("target", Site)
def test_changelog_is_called_what_faust_calls_it(flow: Flow, target: Site) -> None:
    names = Names(flow, "rehearsal")
    made = LastWrite(
        faust.App(app_id("rehearsal"), store="memory://"), names, target, KafkaSettings()
    )
    assert made.table.changelog_topic_name == names.changelog(target)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_flow_that_both_sites_write_has_a_compacted_topic_for_each_agent(flow: Flow) -> None:
    specs = changelog_topics(Names(flow), Settings())
    assert len(specs) == (2 if flow in (OVERRIDES, CUE_SHEETS) else 0)
    changes = {spec.partitions for spec in change_topics(Names(flow), Settings())}
    for spec in specs:
        assert {spec.partitions} == changes
        assert spec.config["cleanup.policy"] == "compact,delete"


async def test_greatest_write_is_kept_and_goes_to_the_partition_of_its_changes(
    event: FakeEvent,
) -> None:
    made, publishing = kept()
    await made.note(chunk(("a", 7), ("a", 9), ("a", 8), ("b", 1)))
    await made.close()
    assert {(m.key, m.value, m.partition) for m in publishing.taken} == {
        (key_of(("player_overrides", "a")), encode(seen(9, 6)), 3),
        (key_of(("player_overrides", "b")), encode(seen(1, 8)), 3),
    }
    assert {m.topic for m in publishing.taken} == {NAMES.changelog(Site.SUPABASE)}


async def test_what_is_no_message_is_not_kept(event: FakeEvent) -> None:
    made, _ = kept()
    records = [Record(1, b"a", b"?"), Record(2, b"a", None), Record(3, None, b'{"id": "a"}')]
    await made.note(Chunk(AT, records, 1, 1))
    assert made.look(("player_overrides", "a")) is None


async def test_what_was_kept_is_restored_unless_something_greater_came(event: FakeEvent) -> None:
    entities = [("player_overrides", key) for key in "abc"]
    values = [encode(seen(5)), encode(seen(5)), b"nonsense"]
    made, publishing = kept(
        [Record(n, key_of(e), v) for n, (e, v) in enumerate(zip(entities, values, strict=True))]
    )
    made.begin([AT])
    await made.note(chunk(("a", 6)))
    assert made._restoring is not None
    await made._restoring
    assert [made.look(entity) for entity in entities] == [seen(6, 5), seen(5), None]
    await made.close()
    assert [m.key for m in publishing.taken] == [key_of(entities[0])]


async def test_assignment_forgets_what_was_known_of_other_partitions(event: FakeEvent) -> None:
    made, _ = kept()
    await made.note(chunk(("a", 7)))
    made.forget()
    assert made.look(("player_overrides", "a")) is None


async def test_entries_are_bounded_and_the_oldest_go(
    event: FakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "MOST_ENTRIES", 2)
    made, _ = kept()
    await made.note(chunk(("a", 1), ("b", 1), ("a", 2), ("c", 1)))
    known = [made.look(("player_overrides", key)) for key in "abc"]
    assert known == [seen(2, 7), None, seen(1, 8)]


async def test_changelog_waits_for_kafka_keeps_the_newest_values_and_is_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(changelog, "MOST_WAITING", 2)
    monkeypatch.setattr(changelog, "LINGER_SECONDS", 0)
    monkeypatch.setattr(changelog, "RETRY_SECONDS", 0)
    written, publishing = Changelog(KafkaSettings(), "t"), FakePublishing()
    written._publishing = publishing  # type: ignore[assignment]
    publishing.takes = 0
    running = asyncio.create_task(written.run())
    for key, value in ((b"a", b"1"), (b"b", b"1"), (b"c", b"1"), (b"a", b"2")):
        written.put(0, key, value)
        await asyncio.sleep(0.01)
    assert written.waiting == 2
    assert len(caplog.records) == 1
    publishing.takes = 1
    while written.waiting:
        await asyncio.sleep(0.01)
    assert [(m.key, m.value) for m in publishing.taken] == [(b"a", b"2"), (b"b", b"1")]
    running.cancel()


async def test_changelog_that_kafka_does_not_take_holds_up_no_stop() -> None:
    written, publishing = Changelog(KafkaSettings(), "t"), FakePublishing()
    written._publishing = publishing  # type: ignore[assignment]
    publishing.takes = 0
    written.put(0, b"a", b"1")
    await written.close()
    assert publishing.abandoned
