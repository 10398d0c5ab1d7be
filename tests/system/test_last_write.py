"""What a worker has seen of last writes may be lost, stale or made up: edits go on as if nothing had been."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import LiteralString

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from ftstream.flows import OVERRIDES, Names, Site
from ftstream.kafka.clients import client_options
from ftstream.last_write.seen import SeenWrite, decode, encode, key_of
from ftstream.local.demo.rig import Rig, SiteName
from ftstream.messages.change import Entity
from tests.conftest import until
from tests.system.scene import Scene, Worker, admin, set_up

SITES: tuple[SiteName, SiteName] = ("external", "supabase")
PLAYER = str(uuid.UUID(int=1))
KEYS = [str(uuid.UUID(int=n)) for n in range(10, 14)]
TABLE = "player_overrides"
UPSERT: LiteralString = (
    "insert into player_overrides (id, gfx_player_id, field_name, override_value, reason, created_by)"
    " values (%s, %s, 'name', %s, 'r', 'test')"
    " on conflict (id) do update set override_value = excluded.override_value"
)
AGREED: tuple[LiteralString, ...] = (
    "select t::text from player_overrides t order by id",
    "select table_name, entity_id, version, site::text, operation::text from ftstream.last_write"
    " order by 1, 2",
)
FAR = 8 * 10**15
"""A version of the year 2223."""


@pytest.fixture(scope="module")
def scene(rig: Rig) -> Iterator[Scene]:
    for site in SITES:  # before there is a guard: no connector carries this table here
        insert = "insert into gfx_players (id, player_hash, name) values (%s, 'h', 'n')"
        Scene(rig).execute(site, insert, PLAYER)
    with set_up(rig, [OVERRIDES]) as scene:
        yield scene


class Kafka:
    """The flow's topics, and its agents' changelogs."""

    def __init__(self, scene: Scene) -> None:
        self._rig = scene.rig
        self._names = Names(OVERRIDES, scene.rig.namespace)
        self._options = client_options(scene.rig.settings.kafka)

    def changes(self, target: Site) -> Mapping[tuple[str, int, int], tuple[bytes, bytes]]:
        """Topic, partition and offset to key and value, of what is for this site."""
        return asyncio.run(self._read(self._names.topics(target)))

    def known(self, target: Site) -> dict[Entity, SeenWrite]:
        """What the changelog holds of each entity."""
        found: dict[Entity, SeenWrite] = {}
        for key, entry in asyncio.run(self._read([self._names.changelog(target)])).values():
            table, entity_id = key.decode().split("\0")
            seen = decode(entry)
            assert seen is not None
            found[table, entity_id] = seen
        return found

    def knows_all(self, target: Site) -> bool:
        """Whether the changelog has the newest change of each row."""
        newest = {
            (TABLE, key.decode()): json.loads(message)["version"]
            for key, message in self.changes(target).values()
        }
        return {entity: seen.version for entity, seen in self.known(target).items()} == newest

    def write(self, target: Site, entries: Mapping[Entity, SeenWrite]) -> None:
        """Put entries into the changelog."""

        async def send() -> None:
            async with AIOKafkaProducer(**self._options) as producer:
                for entity, seen in entries.items():
                    await producer.send_and_wait(
                        self._names.changelog(target),
                        encode(seen),
                        key=key_of(entity),
                        partition=seen.partition,
                    )

        asyncio.run(send())

    def empty(self) -> None:
        """Delete all that the changelogs hold."""

        async def delete() -> None:
            async with admin(self._rig) as client:
                every = [
                    TopicPartition(self._names.changelog(target), number)
                    for target in Site
                    for number in range(self._rig.settings.kafka.partitions)
                ]
                await client.delete_records({tp: RecordsToDelete(-1) for tp in every})

        asyncio.run(delete())
        assert not self.known(Site.EXTERNAL) and not self.known(Site.SUPABASE)

    async def _read(self, topics: Sequence[str]) -> dict[tuple[str, int, int], tuple[bytes, bytes]]:
        partitions = [
            TopicPartition(topic, number)
            for topic in topics
            for number in range(self._rig.settings.kafka.partitions)
        ]
        found = {}
        async with AIOKafkaConsumer(**self._options, auto_offset_reset="earliest") as consumer:
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            while any([(await consumer.position(tp)) < end for tp, end in ends.items()]):
                for tp, records in (await consumer.getmany(timeout_ms=100)).items():
                    for record in records:
                        found[tp.topic, tp.partition, record.offset] = record.key, record.value
        return found


def edit(scene: Scene, text: str) -> None:
    """Each row on each site in turn, every write seen by the other before its own."""

    def shows(site: SiteName, words: str) -> bool:
        found = scene.execute(site, "select id::text, override_value from player_overrides")
        return dict(found) == dict.fromkeys(KEYS, words)

    for here, there in (SITES, SITES[::-1]):
        words = f"{text} of {here}"
        for key in KEYS:
            scene.execute(here, UPSERT, key, PLAYER, words)
        until(partial(shows, there, words))
    for query in AGREED:
        assert scene.execute("external", query) == scene.execute("supabase", query)


def must_be_logged_once(scene: Scene, kafka: Kafka, **others: int) -> None:
    """Each change once, as applied, but for so many with these outcomes."""
    outcomes: Counter[str] = Counter()
    for site in SITES:
        rows = scene.execute(
            site,
            "select topic, kafka_partition, kafka_offset, outcome::text from ftstream.sync_log"
            " where kafka_offset is not null",
        )
        logged = Counter((topic, partition, offset) for topic, partition, offset, _ in rows)
        assert logged == Counter(kafka.changes(Site(site)).keys())
        outcomes.update(outcome for *_, outcome in rows)
    assert outcomes == Counter({"applied": outcomes["applied"]} | others)


def restored(scene: Scene) -> Worker:
    """A worker that has read all that the changelogs hold."""
    worker = scene.worker().ready()
    for target in Site:
        worker.until_said(f"last_write-overrides-{target} restored")
    return worker


def stop(worker: Worker) -> None:
    assert worker.stop() == 0, worker.log
    assert worker.errors == []


def repeat_first(scene: Scene, kafka: Kafka) -> tuple[str, int, int]:
    """Have the first change of a row come again, as after a crash of Connect; where it then is."""
    before = kafka.changes(Site.SUPABASE)
    key, message = next(entry for entry in before.values() if entry[0] == KEYS[0].encode())
    scene.publish_to(Names(OVERRIDES, scene.rig.namespace).topics(Site.SUPABASE)[0], key, message)
    (where,) = kafka.changes(Site.SUPABASE).keys() - before.keys()
    return where


def test_whatever_the_changelog_holds_both_sites_agree(scene: Scene) -> None:
    kafka = Kafka(scene)
    worker = scene.worker().ready()
    edit(scene, "first")
    edit(scene, "second")
    for target in Site:
        until(partial(kafka.knows_all, target))
    right = {target: kafka.known(target) for target in Site}
    stop(worker)

    # As it is: what has lost is known before it comes, and waits for nobody.
    worker = restored(scene)
    with psycopg.connect(scene.rig.dsn("supabase", "supabase_admin")) as user:
        user.execute("select from player_overrides where id = %s for update", [KEYS[0]])
        where = repeat_first(scene, kafka)
        logged = (
            "select outcome::text from ftstream.sync_log"
            " where (topic, kafka_partition, kafka_offset) = (%s, %s, %s)"
        )
        until(lambda: scene.execute("supabase", logged, *where) == [("duplicate",)])
    stop(worker)

    # Deleted.
    kafka.empty()
    worker = scene.worker().ready()
    repeat_first(scene, kafka)
    edit(scene, "third")
    must_be_logged_once(scene, kafka, duplicate=2)
    stop(worker)

    # Stale.
    for target in Site:
        kafka.write(target, right[target])
    worker = restored(scene)
    repeat_first(scene, kafka)
    edit(scene, "fourth")
    must_be_logged_once(scene, kafka, duplicate=3)
    stop(worker)

    # Ahead of the database, and greater than all that comes: of records that are applied, and that will be.
    for target in Site:
        entries = enumerate(right[target].items())
        made_up = {
            entity: SeenWrite(FAR, seen.site, *seen.at, (0, seen.offset + 6)[n % 2])
            for n, (entity, seen) in entries
        }
        kafka.write(target, made_up)
    workers = [scene.worker(), scene.worker()]
    for each in workers:
        each.ready()
    repeat_first(scene, kafka)
    edit(scene, "fifth")
    must_be_logged_once(scene, kafka, duplicate=4)
    for each in workers:
        stop(each)
