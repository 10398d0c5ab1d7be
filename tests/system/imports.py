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
from tests.system.scene import Scene

COPIED, INSERTED, EDITED = 1_500, 50, 100
"""Rows of the first COPY, of each INSERT, and of each transaction on a table that leaves by the outbox."""
PAUSE_SECONDS = 0.3

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
    """What importers have written; `strike` lets something happen while it is read from the log."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._written: list[str] = []
        # Of the first COPY.
        self._first: list[str] = []

    def strike(self, blow: Callable[[], None]) -> None:
        """While a file that is committed is being read; writers go on until it is over.

        Raises AssertionError if all of it has been read before the blow: then it would show nothing.
        """
        over = threading.Event()
        first = [threading.Event(), threading.Event()]
        with ThreadPoolExecutor(2) as pool:
            writers = [
                pool.submit(writer, committed, over)
                for writer, committed in zip((self._copy, self._edit), first, strict=True)
            ]
            try:
                until(
                    lambda: all(each.is_set() for each in first) or any(w.done() for w in writers)
                )
                # Part of the COPY is at the other site, and so in Kafka; the rest is on its way.
                until(lambda: self._arrived() > 0, 30)
                assert self._arrived() < COPIED, "the file was read before the blow"
                blow()
            finally:
                over.set()
        self._written += [entity for writer in writers for entity in writer.result()]

    def _arrived(self) -> int:
        return len(self._scene.execute("supabase", LOGGED, self._first))

    def missing(self) -> list[str]:
        """Rows that were committed, and of which the other site was never told."""
        found = {row[0] for row in self._scene.execute("supabase", LOGGED, self._written)}
        return [entity for entity in self._written if entity not in found]

    def _copy(self, committed: threading.Event, over: threading.Event) -> list[str]:
        written: list[str] = []
        with self._connected() as connection:
            for rows in _until(over, COPIED, INSERTED):
                if not written:
                    self._first = rows
                with connection.cursor().copy(COPY) as copy:
                    for entity in rows:
                        copy.write_row((entity, f"import {entity}", "imported"))
                committed.set()
                more = _ids(INSERTED)
                connection.execute(INSERT, [more])
                written += [*rows, *more]
        return written

    def _edit(self, committed: threading.Event, over: threading.Event) -> list[str]:
        written = []
        with self._connected() as connection:
            for rows in _until(over, EDITED, INSERTED):
                with connection.transaction():
                    for part in (rows[::2], rows[1::2]):
                        connection.execute(EDIT, [part])
                committed.set()
                written += rows
        return written

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self._scene.rig.dsn("external"), autocommit=True) as connection:
            yield connection


def _until(over: threading.Event, first: int, then: int) -> Iterator[list[str]]:
    """Ids of the rows to write: of a large file, and of small ones until it is over."""
    yield _ids(first)
    while not over.wait(PAUSE_SECONDS):
        yield _ids(then)


def _ids(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]
