"""A log that does not go on where the target is: the flow halts, says what is lost, and the hint works."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator

import psycopg
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewPartitions, RecordsToDelete
from psycopg import sql

from ftstream.flows import FLOWS
from ftstream.kafka.clients import client_options
from ftstream.kafka.errors import KafkaError
from ftstream.kafka.topics import change_topics, delete_topics, ensure_topics, topics_of_all
from ftstream.local.demo.rig import Rig
from tests.system.scene import Scene, Worker, admin, set_up


@pytest.fixture(scope="module")
def scene(rig: Rig) -> Iterator[Scene]:
    with set_up(rig) as scene:
        worker = scene.worker().ready()
        scene.write(500)
        scene.caught_up()
        worker.stop()
        yield scene


def halts(scene: Scene, *words: str) -> None:
    """The flow halts with one line that has these words and the hint."""
    worker = scene.worker()
    worker.halted()
    for word in (*words, "`ftstream accept-loss`", "`ftstream verify --repair`"):
        assert word in worker.errors[0]


def repaired(scene: Scene) -> None:
    """What the message says is done, and both sites are equal."""
    assert scene.command("accept-loss", "gfx", "--dry-run").returncode == 0
    assert scene.command("accept-loss", "gfx").returncode == 1  # nobody says yes
    assert scene.command("accept-loss", "gfx", "--yes").returncode == 0
    worker = scene.worker().ready()
    done = scene.command("verify", "gfx", "--repair", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert worker.stop() == 0


def partitions(scene: Scene) -> list[TopicPartition]:
    return scene.partitions


def test_records_deleted_before_they_were_applied(scene: Scene) -> None:
    scene.write(300)
    scene.until_captured()

    async def delete() -> None:
        async with admin(scene.rig) as client:
            everything = RecordsToDelete(before_offset=-1)
            await client.delete_records(dict.fromkeys(partitions(scene), everything))

    asyncio.run(delete())
    halts(scene, "records are lost", "were deleted before they were applied")
    assert any("records are lost" in each for each in scene.notifications("flow_halted"))
    repaired(scene)


def test_hole_in_the_log(scene: Scene) -> None:
    """The mark of a transaction takes an offset, and nobody can tell what stood there."""

    async def write() -> None:
        options = client_options(scene.rig.settings.kafka)
        async with AIOKafkaProducer(**options, transactional_id=scene.rig.namespace) as producer:
            for _ in range(2):
                async with producer.transaction():
                    await producer.send_and_wait(scene.partitions[0].topic, None, b"k", 0)

    worker = scene.worker().ready()
    asyncio.run(write())
    worker.halted()
    assert "expected offset" in worker.errors[0]
    halts(scene, "records are lost", "are not there")
    repaired(scene)


def made_anew(scene: Scene, changes: int) -> None:
    """Every topic again, with this many changes."""
    specs = [
        spec
        for spec in change_topics(scene.names, scene.rig.settings)
        if spec.name in {tp.topic for tp in scene.partitions}
    ]

    async def renew() -> None:
        left = set(await delete_topics(scene.rig.settings, specs))
        while left:  # the broker deletes in the background
            with contextlib.suppress(KafkaError):
                left -= set(await ensure_topics(scene.rig.settings, specs))

    asyncio.run(renew())
    scene.write(changes)
    scene.until_captured()


def test_topic_made_anew_and_shorter(scene: Scene) -> None:
    made_anew(scene, 40)
    halts(scene, "the topic was recreated", "it ends at offset")
    repaired(scene)


def test_topic_made_anew_and_longer(scene: Scene) -> None:
    ends = sum(scene.offsets().values())
    made_anew(scene, 10 * ends + 1_000)
    halts(scene, "the topic was recreated", "is not the one that was applied")
    repaired(scene)


def test_topic_made_anew_and_just_as_long(scene: Scene) -> None:
    made_anew(scene, 40)

    async def fill() -> None:
        async with AIOKafkaProducer(**client_options(scene.rig.settings.kafka)) as producer:
            for (topic, partition), end in scene.offsets().items():
                record = await producer.send_and_wait(topic, None, b"k", partition)
                for _ in range(record.offset + 1, end):
                    record = await producer.send_and_wait(topic, None, b"k", partition)
                assert record.offset + 1 == end

    asyncio.run(fill())
    halts(scene, "the topic was recreated", "is not the one that was applied")
    repaired(scene)


def test_target_restored_from_an_older_copy_is_read_on_from_there(scene: Scene) -> None:
    backup = f"{scene.rig.namespace}_old"
    copy = sql.SQL("create database {} template {}")
    with psycopg.connect(
        scene.rig.stack.dsn("supabase", "supabase_admin"), autocommit=True
    ) as connection:
        here, there = sql.Identifier(scene.rig.namespace), sql.Identifier(backup)
        connection.execute(copy.format(there, here))
        worker = scene.worker().ready()
        scene.write(800)
        scene.caught_up()
        worker.stop()
        connection.execute(sql.SQL("drop database {} with (force)").format(here))
        connection.execute(copy.format(here, there))
        connection.execute(sql.SQL("drop database {}").format(there))
    again = scene.worker().ready()
    scene.caught_up()
    assert scene.command("verify", "gfx").returncode == 0
    assert again.stop() == 0


def test_target_that_goes_back_under_a_running_worker_halts_it(scene: Scene) -> None:
    worker = scene.worker().ready()
    scene.write(200)
    scene.caught_up()
    back = (
        "update ftstream.applied_offset set next_offset = next_offset - 1, record_digest = null"
        " where next_offset > 0"
    )
    scene.execute("supabase", back)
    scene.write(200)
    worker.halted()
    assert "the applied offset went back" in worker.errors[0]
    again = scene.worker().ready()
    scene.caught_up()
    assert scene.command("verify", "gfx").returncode == 0
    assert again.stop() == 0


def test_partitions_added(scene: Scene) -> None:
    async def add() -> None:
        async with admin(scene.rig) as client:
            specs = topics_of_all(scene.rig.settings, FLOWS)
            topics = [spec.name for spec in specs if spec.partitions > 1]
            await client.create_partitions(dict.fromkeys(topics, NewPartitions(6)))

    worker = scene.worker().ready()
    asyncio.run(add())
    scene.write(500)  # keys have moved, and what they wrote before may not be applied yet
    assert worker.ended() == 1
    assert any("another number of partitions: 6, not 4" in line for line in worker.errors)
    started = scene.worker()
    assert started.ended() == 1
    assert "has 6 partitions, not 4" in started.errors[0]

    os.environ["FTSTREAM_KAFKA__PARTITIONS"] = "6"
    try:
        mended_worker: Worker = scene.worker().ready()
        with scene.load():
            scene.until_applied(200)
        done = scene.command("verify", "gfx", "--repair", "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
        scene.must_be_equal()
        assert mended_worker.stop() == 0
    finally:
        del os.environ["FTSTREAM_KAFKA__PARTITIONS"]
