"""An importer on External, who writes whole files: rows of one COPY share positions in the log."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import LiteralString

import psycopg

from tests.conftest import until
from tests.system.proxy import Proxy
from tests.system.scene import Scene

COPIED, INSERTED, EDITED = 1_500, 20, 100
"""Rows of the first COPY, of each INSERT, and of each transaction on a table that leaves by the outbox."""
PAUSE_SECONDS = 0.5
LONG_SECONDS = 300.0
"""In which what was held is read and applied, beside everything else, on two slow cores."""

# With ids of their own: a default that is volatile would have COPY write row by row.
COPY: LiteralString = "copy gfx_players (id, player_hash, name) from stdin"
INSERT: LiteralString = (
    "insert into gfx_players (id, player_hash, name)"
    " select id, 'import ' || id, 'imported' from unnest(%s::uuid[]) as id"
)
EDIT: LiteralString = (
    "insert into player_overrides"
    " (id, wsop_player_id, field_name, override_value, reason, created_by)"
    " select id, id, 'name', 'imported', 'r', 'test' from unnest(%s::uuid[]) as id"
)
LOGGED: LiteralString = (
    "select distinct entity_id from ftstream.sync_log"
    " where table_name in ('gfx_players', 'player_overrides') and entity_id = any(%s)"
    " and outcome not in ('parked', 'dead')"
)


class Imports:
    """What importers have written; `strike` lets something happen while it is read from the log.

    The connectors read the log through the proxy.
    """

    def __init__(self, scene: Scene, proxy: Proxy) -> None:
        self._scene = scene
        self._proxy = proxy
        self._written: list[str] = []

    def strike(self, blow: Callable[[], None], read: float) -> None:
        """When this part of a file is read, whose rest is held; writers go on until it is over.

        The blow lets the proxy go. Connectors read a file faster than Connect acts on a request: unheld, it
        would be over before the blow. Returns once they have read what was written last.
        """
        over = threading.Event()
        firsts = _ids(COPIED), _ids(EDITED)
        # One row at the least: after the first of a file Debezium's search for its place is at its weakest.
        rests = {first[max(1, int(read * len(first)))].encode() for first in firsts}
        self._proxy.hold_at(*rests)
        with ThreadPoolExecutor(2) as pool:
            writers = [
                pool.submit(write, first, over)
                for write, first in zip((self._copy, self._edit), firsts, strict=True)
            ]
            try:
                until(
                    lambda: self._proxy.held == rests or any(w.done() for w in writers),
                    LONG_SECONDS,
                )
                # What was read is in Kafka, and at the other site.
                until(lambda: self._arrived(firsts[0]) and self._arrived(firsts[1]), LONG_SECONDS)
                blow()
            finally:
                over.set()
                self._proxy.let_go()
        written = [writer.result() for writer in writers]
        self._written += [entity for rows in written for entity in rows]
        # Until then one may look for its place in the log, where what is held next would keep it.
        until(lambda: all(self._arrived(rows[-1:]) for rows in written), LONG_SECONDS)

    def _arrived(self, entities: list[str]) -> bool:
        return bool(self._scene.execute("supabase", LOGGED, entities))

    def missing(self) -> list[str]:
        """Rows that were committed, and of which the other site was never told."""
        found = {row[0] for row in self._scene.execute("supabase", LOGGED, self._written)}
        return [entity for entity in self._written if entity not in found]

    def _copy(self, first: list[str], over: threading.Event) -> list[str]:
        written: list[str] = []
        with self._connected() as connection:
            for rows in _until(over, first):
                with connection.cursor().copy(COPY) as copy:
                    for entity in rows:
                        copy.write_row((entity, f"import {entity}", "imported"))
                more = _ids(INSERTED)
                connection.execute(INSERT, [more])
                written += [*rows, *more]
        return written

    def _edit(self, first: list[str], over: threading.Event) -> list[str]:
        written = []
        with self._connected() as connection:
            for rows in _until(over, first):
                with connection.transaction():
                    for part in (rows[::2], rows[1::2]):
                        connection.execute(EDIT, [part])
                written += rows
        return written

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self._scene.rig.dsn("external"), autocommit=True) as connection:
            yield connection


def _until(over: threading.Event, first: list[str]) -> Iterator[list[str]]:
    """Ids of the rows to write: of a large file, and of small ones until it is over."""
    yield first
    while not over.wait(PAUSE_SECONDS):
        yield _ids(INSERTED)


def _ids(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]
