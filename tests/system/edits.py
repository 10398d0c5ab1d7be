"""People who edit overrides and cue sheets on both sites at once, whatever dies, and what must hold then."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import uuid
from typing import LiteralString, NamedTuple

import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition

from ftstream.flows import FLOWS, OVERRIDES, Capture, Names
from ftstream.kafka.clients import client_options
from ftstream.local.demo.rig import SITES, SiteName
from tests.conftest import POLL_SECONDS
from tests.system.scene import Scene

TWO_WAY = tuple(flow for flow in FLOWS if flow.capture is Capture.OUTBOX)

PAUSE_SECONDS = 0.05
"""Between two edits of one person."""

OVERRIDE_IDS, SHEET_IDS = (
    [str(uuid.UUID(int=first + n)) for n in range(8)] for first in (100, 200)
)
SESSION = str(uuid.UUID(int=300))

ROWS: dict[str, LiteralString] = {
    "player_overrides": "select t::text from player_overrides t order by id",
    "profile_images": "select t::text from profile_images t order by id",
    "cue_sheets": "select t::text from cue_sheets t order by id",
    "render_queue": "select t::text from render_queue t order by id",
}

LEDGER: LiteralString = (
    "select table_name, entity_id, version, site::text, operation::text"
    " from ftstream.last_write order by 1, 2"
)

EDITS: tuple[tuple[LiteralString, int], ...] = (
    (
        "insert into player_overrides"
        " (id, wsop_player_id, field_name, override_value, reason, created_by)"
        " values (%(override)s, %(override)s, 'name', %(text)s, 'r', 'test')"
        " on conflict (id) do update set override_value = excluded.override_value",
        6,
    ),
    ("delete from player_overrides where id = %(override)s", 2),
    (
        "insert into cue_sheets (id, sheet_code, session_id, sheet_name, sheet_order, created_by)"
        " values (%(sheet)s::uuid, %(sheet)s::text, %(session)s, %(text)s, %(place)s, 'test')"
        " on conflict (id) do update set sheet_name = excluded.sheet_name",
        4,
    ),
    ("update cue_sheets set sheet_order = %(place)s where id = %(sheet)s", 2),
    (
        "update cue_sheets set parent_version_id = (select id from cue_sheets where id = %(other)s)"
        " where id = %(sheet)s",
        2,
    ),
    ("delete from cue_sheets where id = %(sheet)s", 1),
)
OWN_SHEET: LiteralString = (
    "insert into cue_sheets (id, sheet_code, session_id, sheet_name, sheet_order, created_by)"
    " values (%s, %s, %s, 'own', %s, 'test')"
)
OWN_SESSION: LiteralString = (
    "insert into broadcast_sessions"
    " (id, session_code, event_name, broadcast_date, scheduled_start, created_by)"
    " values (%s, %s, 'e', '2026-11-24', now(), 'test') on conflict do nothing"
)
NOTED: LiteralString = (
    "select version from ftstream.last_write"
    " where (table_name, entity_id) = ('player_overrides', %s)"
)
QUERIES, WEIGHTS = zip(*EDITS, strict=True)


class Own:
    """The sheets of one session, which a site alone writes: nobody may overrule it."""

    def __init__(self, site: SiteName) -> None:
        self.session = str(uuid.UUID(int=310 + SITES.index(site)))
        self.left: dict[str, int] | None = None
        """The place of each sheet as the site left it; None if an answer to a commit was lost."""

    def write(self, connection: psycopg.Connection, chance: random.Random) -> None:
        """Swap two by a temporary place, or add or delete one, in one transaction."""
        if self.left is None:
            self.left = self.places(connection)
        after = dict(self.left)
        self.left = None
        with connection.transaction():
            match chance.choice(("swap", "swap", "swap", "insert", "delete")):
                case "swap" if len(after) > 1:
                    one, other = chance.sample(sorted(after), 2)
                    self._move(connection, one, -chance.randrange(1, 10**6))
                    self._move(connection, other, after[one])
                    self._move(connection, one, after[other])
                    after[one], after[other] = after[other], after[one]
                case "delete" if len(after) > 8:
                    gone = chance.choice(sorted(after))
                    connection.execute("delete from cue_sheets where id = %s", [gone])
                    del after[gone]
                case _ if len(after) < 12:
                    key = str(uuid.uuid4())
                    after[key] = min({*range(13)} - {*after.values()})
                    connection.execute(OWN_SHEET, [key, key, self.session, after[key]])
        self.left = after

    def places(self, connection: psycopg.Connection) -> dict[str, int]:
        found = connection.execute(
            "select id::text, sheet_order from cue_sheets where session_id = %s", [self.session]
        )
        return dict(found.fetchall())

    @staticmethod
    def _move(connection: psycopg.Connection, key: str, place: int) -> None:
        connection.execute("update cue_sheets set sheet_order = %s where id = %s", [place, key])


class Message(NamedTuple):
    """A write on its way; `topic_of`: the site in the name of its topic."""

    topic_of: str
    site: str
    id: str
    version: int


class Write(NamedTuple):
    """Of an override, at a site."""

    site: str
    id: str
    version: int


class Edits:
    """A person at each site, in threads of their own, for as long as the block lasts."""

    def __init__(self, scene: Scene, seed: int = 7, pause: float = PAUSE_SECONDS) -> None:
        self._scene = scene
        self._pause = pause
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._seed = seed
        self._before: set[Message] = set()
        self._written: set[Write] = set()
        """Of overrides, that were committed for sure."""
        self._unknown: set[Write] = set()
        """Of which nobody knows: the answer to the commit was lost."""
        self._own = {site: Own(site) for site in SITES}
        self._threads = [threading.Thread(target=self._edit, args=[site]) for site in SITES]

    def __enter__(self) -> Edits:
        for site in SITES:
            self._scene.execute(site, OWN_SESSION, SESSION, "EDITS")
            own = self._own[site].session
            self._scene.execute(site, OWN_SESSION, own, own)
        self._before = set(asyncio.run(messages(self._scene)))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    @property
    def written(self) -> int:
        """How many overrides were written so far."""
        return len(self._written)

    def must_have_bounced_never(self) -> None:
        """Each write of an override is one message on one topic, however often that is repeated.

        Two people may write a row in the same microsecond, each on a site: that is a tie, and two messages.
        """
        sent = set(asyncio.run(messages(self._scene))) - self._before
        overrides = {Write(e.site, e.id, e.version) for e in sent if e.id in OVERRIDE_IDS}
        assert self._written - overrides == set()
        assert overrides - self._written - self._unknown == set()
        assert [each for each in sent if each.site != each.topic_of] == []

    def must_have_overruled_nobody(self) -> None:
        """What one site alone writes is on both as it left it; once everything is applied."""
        for own in self._own.values():
            for site in SITES:
                with psycopg.connect(self._scene.rig.dsn(site)) as connection:
                    assert own.left is None or own.places(connection) == own.left

    def _edit(self, site: SiteName) -> None:
        chance = random.Random(f"{site} {self._seed}")
        try:
            while not self._stop.is_set():
                try:
                    with psycopg.connect(self._scene.rig.dsn(site), autocommit=True) as connection:
                        while not self._stop.wait(self._pause):
                            self._write(connection, chance, site)
                except psycopg.OperationalError:
                    self._stop.wait(POLL_SECONDS)  # the site is away: people try again
        except BaseException as error:  # noqa: BLE001  # raised again where the block ends
            self._errors.append(error)

    def _write(self, connection: psycopg.Connection, chance: random.Random, site: SiteName) -> None:
        if chance.random() < 0.2:
            self._own[site].write(connection, chance)
            return
        (query,) = chance.choices(QUERIES, WEIGHTS)
        values = {
            "override": chance.choice(OVERRIDE_IDS),
            "sheet": chance.choice(SHEET_IDS),
            "other": chance.choice(SHEET_IDS),
            "place": chance.randrange(12),
            "session": SESSION,
            "text": f"{site} {chance.random()}",
        }
        write: Write | None = None
        try:
            with connection.transaction():
                done = connection.execute(query, values).rowcount
                if done and "player_overrides" in query:
                    noted = connection.execute(NOTED, [values["override"]]).fetchone()
                    assert noted is not None
                    write = Write(site, str(values["override"]), noted[0])
        except (psycopg.errors.UniqueViolation, psycopg.errors.ForeignKeyViolation):
            return  # the database refuses it: nobody has written anything
        except psycopg.OperationalError:
            if write is not None:
                self._unknown.add(write)
            raise
        if write is not None:
            self._written.add(write)


def rows(scene: Scene, site: SiteName, table: str) -> list[tuple[object, ...]]:
    return list(scene.execute(site, ROWS[table]))


def must_agree(scene: Scene, *tables: str) -> None:
    """Once everything is applied and nothing waits, both sites hold the same, and nothing dangles."""
    scene.caught_up(*TWO_WAY)
    scene.until_nothing_is_parked()
    for table in tables or ROWS:
        assert rows(scene, "external", table) == rows(scene, "supabase", table)
    assert scene.execute("external", LEDGER) == scene.execute("supabase", LEDGER)
    scene.must_not_dangle()


async def messages(scene: Scene) -> list[Message]:
    """What is in the topics of the flow, repetitions too; changes of a row in their order."""
    names = Names(OVERRIDES, scene.rig.namespace)
    partitions = [
        TopicPartition(topic, number)
        for target in OVERRIDES.targets
        for topic in names.topics(target)
        for number in range(scene.rig.settings.kafka.partitions)
    ]
    found = []
    async with AIOKafkaConsumer(**client_options(scene.rig.settings.kafka)) as consumer:
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(partitions)
        while any([(await consumer.position(tp)) < end for tp, end in ends.items()]):
            for tp, records in (await consumer.getmany(timeout_ms=100)).items():
                origin = tp.topic.split(".")[-2]
                changes = [json.loads(record.value) for record in records]
                found += [Message(origin, c["site"], c["id"], c["version"]) for c in changes]
    return found
