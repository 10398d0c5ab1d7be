"""How far a flow is: what is captured, what is in Kafka, what is applied."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from ftstream.apply.sites import open_both
from ftstream.flows import HEARTBEAT_PREFIX, Capture, CaptureNames, Flow, Names, Site, log_captures
from ftstream.kafka.offsets import Ends, open_ends
from ftstream.kafka.partition import Partition
from ftstream.postgres.queries import Queries, statement
from ftstream.settings import Settings

_QUERIES = Queries.load(__package__, "position.sql")

POLL_SECONDS = 0.1
EMIT_SECONDS = 1.0

LOOK_SECONDS = 3.0
"""In which a connector that keeps up confirms what is committed when somebody looks."""


Say = Callable[[str], None]


class NotCaughtUp(Exception):
    """The flow did not apply everything in time; the message says where it is stuck."""


class SlotMissing(Exception):
    """External has no replication slot for the flow."""


@dataclass(frozen=True, slots=True)
class Lag:
    """What was applied lately, and how long after its commit, in milliseconds."""

    rows: int
    p50_ms: int
    p99_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What one look shows of a direction.

    `captures`: whether a connector reads the log; of Supabase's outbox `ftstream status` tells by the
    workers. `to_capture` counts changes in the outbox, `log_bytes` what of the log was committed before
    the look and is not in Kafka after it.
    """

    flow: str
    target: Site
    captures: bool
    to_capture: int
    to_apply: int
    log_bytes: int = 0


class Direction:
    """Watches what one flow carries to one site."""

    def __init__(
        self,
        flow: Flow,
        target: Site,
        namespace: str,
        connections: Mapping[Site, AsyncConnection],
        ends: Ends,
    ) -> None:
        self.target = target
        self._flow = flow
        self._topics = Names(flow, namespace).topics(target)
        self._at_source, self._at_target = connections[target.other], connections[target]
        self._ends = ends
        slots = (CaptureNames(capture, namespace).slot for capture in log_captures([flow]))
        self._slot_name = next(slots, "")

    async def wait(
        self, timeout: float, say: Say = lambda _: None, patience: float = math.inf
    ) -> None:
        """Return when everything committed before the call is applied.

        Parked changes are waited for too: not for longer than `patience` seconds, if that is given.
        `timeout`: seconds without any progress.

        Two steps, since a position in the log and an offset in Kafka cannot be compared: the slot
        confirms the position once Kafka has acknowledged all before it; then the topics end where
        the target must get to. Raises NotCaughtUp, SlotMissing.
        """
        await self.captured(timeout, say)
        wanted = await self._ends.read()
        least, deadline = math.inf, time.monotonic() + timeout
        while behind := _behind(wanted, await self._applied()):
            if behind < least:
                least, deadline = behind, time.monotonic() + timeout
            await self._pause(deadline, say, f"{behind} records to apply")
        enough = time.monotonic() + patience
        while (parked := await self._parked()) and time.monotonic() < enough:
            state = f"{parked} changes are parked: see `ftstream dead list`"
            await self._pause(deadline if patience == math.inf else enough, say, state)

    async def answered(
        self, timeout: float, say: Say = lambda _: None, patience: float = math.inf
    ) -> None:
        """Return when the other site has taken back what was refused here; times: see `wait`.

        Raises NotCaughtUp.
        """
        tables = [table.name for table in self._flow.tables]
        deadline, enough = time.monotonic() + timeout, time.monotonic() + patience
        while time.monotonic() < enough:
            (left,) = await self._one(self._at_target, "refused", tables=tables)
            if not left:
                return
            state = f"{left} rows that were refused are to be taken back"
            await self._pause(deadline if patience == math.inf else enough, say, state)

    async def captured(self, timeout: float, say: Say = lambda _: None) -> None:
        """Return when everything committed before the call is in Kafka. Raises like `wait`.

        What a flow captured by batch has not run yet is not waited for.
        """
        if self._flow.capture is Capture.BATCH:
            return
        if self.target is Site.EXTERNAL:
            await self._published(timeout, say)
        else:
            await self._in_log(timeout, say)

    async def _published(self, timeout: float, say: Say) -> None:
        """Wait until Kafka has what Supabase's outbox holds now, which is taken out then."""
        tables = [table.name for table in self._flow.tables]
        (last,) = await self._one(self._at_source, "newest_in_outbox", tables=tables)
        least, deadline = math.inf, time.monotonic() + timeout
        while True:
            (left,) = await self._one(self._at_source, "left_in_outbox", tables=tables, last=last)
            if not left:
                return
            if left < least:
                least, deadline = left, time.monotonic() + timeout
            await self._pause(deadline, say, f"{left} changes to publish")

    async def _in_log(self, timeout: float, say: Say) -> None:
        least, deadline = math.inf, time.monotonic() + timeout
        async for behind, active in self._left_in_log():
            if behind < least:
                least, deadline = behind, time.monotonic() + timeout
            state = (
                f"the connector is running, {behind} bytes of log to capture"
                if active
                else "the connector is not running: see `ftstream connectors status`"
            )
            await self._pause(deadline, say, state)

    async def _left_in_log(self) -> AsyncIterator[tuple[int, bool]]:
        """Yield how many bytes of what is committed now Kafka does not have, and whether a connector reads.

        Ends when it has all. Heartbeats go into the log meanwhile: nothing else moves the position of
        an idle slot.
        """
        (position,) = await self._one(self._at_source, "current_position")
        emitted = -math.inf
        while True:
            confirmed, active, behind = await self._slot(position)
            if confirmed:
                return
            if time.monotonic() - emitted > EMIT_SECONDS:
                emitted = time.monotonic()
                beat = {"prefix": HEARTBEAT_PREFIX}
                await self._at_source.execute(statement(_QUERIES["emit_heartbeat"]), beat)
            yield behind, active

    async def look(self) -> Standing:
        """Say how far it is now: in LOOK_SECONDS a connector has to confirm it. Raises SlotMissing."""
        captures, to_capture, log_bytes = True, 0, 0
        if self.target is Site.EXTERNAL:
            tables = [table.name for table in self._flow.tables]
            (last,) = await self._one(self._at_source, "newest_in_outbox", tables=tables)
            values = {"tables": tables, "last": last}
            (to_capture,) = await self._one(self._at_source, "left_in_outbox", **values)
        elif self._flow.capture is not Capture.BATCH:
            deadline = time.monotonic() + LOOK_SECONDS
            async for log_bytes, captures in self._left_in_log():  # noqa: B007  # the last is told
                if not captures or time.monotonic() > deadline:
                    break
                await asyncio.sleep(POLL_SECONDS)
            else:
                captures, log_bytes = True, 0
        to_apply = await self.unapplied()
        return Standing(self._flow.name, self.target, captures, to_capture, to_apply, log_bytes)

    async def assigned(self) -> int:
        """Partitions of which the target knows an applied offset: none before the first worker."""
        return len(await self._applied())

    async def lag(self, seconds: float) -> Lag:
        """Return what the target logged in the last seconds."""
        topics = list(self._topics)
        return Lag(*await self._one(self._at_target, "lag", topics=topics, seconds=seconds))

    async def conflicts(self) -> int:
        """Changes that have come, and lost to one of the target's."""
        return int((await self._one(self._at_target, "conflicts", topics=list(self._topics)))[0])

    async def unapplied(self) -> int:
        """Records in Kafka that the target does not have yet."""
        return _behind(await self._ends.read(), await self._applied())

    async def dead(self) -> int:
        """Changes at the target that wait for a person."""
        return (await parked_and_dead(self._at_target)).get(self._flow.name, (0, 0))[1]

    async def _parked(self) -> int:
        return int((await self._one(self._at_target, "parked", flow=self._flow.name))[0])

    async def _slot(self, position: str) -> tuple[Any, ...]:
        cursor = await self._at_source.execute(
            statement(_QUERIES["slot"]), {"position": position, "slot": self._slot_name}
        )
        row = await cursor.fetchone()
        if row is None:
            raise SlotMissing(
                f"External has no replication slot {self._slot_name}: run `ftstream init`"
            )
        return row

    async def _applied(self) -> dict[Partition, int]:
        cursor = await self._at_target.execute(
            statement(_QUERIES["applied"]), {"topics": list(self._topics)}
        )
        return {Partition(row[0], row[1]): row[2] for row in await cursor.fetchall()}

    async def _one(self, connection: AsyncConnection, name: str, **values: Any) -> tuple[Any, ...]:
        row = await (await connection.execute(statement(_QUERIES[name]), values)).fetchone()
        assert row is not None  # each of these statements returns exactly one row
        return row

    async def _pause(self, deadline: float, say: Callable[[str], None], state: str) -> None:
        if time.monotonic() > deadline:
            raise NotCaughtUp(f"flow {self._flow.name} to {self.target}: {state}")
        say(state)
        await asyncio.sleep(POLL_SECONDS)


def _behind(wanted: Any, applied: dict[Partition, int]) -> int:
    return sum(max(0, end - applied.get(partition, 0)) for partition, end in wanted.items())


class FlowProgress:
    """Watches a flow, to each of its targets; made by `watch`."""

    def __init__(self, directions: Sequence[Direction]) -> None:
        self.directions = tuple(directions)

    async def wait(
        self, timeout: float, say: Say = lambda _: None, patience: float = math.inf
    ) -> None:
        """Return when everything committed before the call is applied: see `Direction.wait`."""
        for direction in self.directions:
            await direction.wait(timeout, say, patience)
        # What is refused goes back the other way.
        for direction in self.directions:
            await direction.answered(timeout, say, patience)

    async def captured(self, timeout: float, say: Say = lambda _: None) -> None:
        """Return when everything committed before the call is in Kafka."""
        for direction in self.directions:
            await direction.captured(timeout, say)

    async def look(self) -> list[Standing]:
        """Say how far each direction is now. Raises SlotMissing."""
        return [await direction.look() for direction in self.directions]

    async def assigned(self) -> int:
        """Partitions of which the targets know an applied offset: none before the first worker."""
        return sum([await direction.assigned() for direction in self.directions])

    async def dead(self) -> int:
        """Changes that wait for a person, at each of the targets."""
        return sum([await direction.dead() for direction in self.directions])

    async def unapplied(self) -> int:
        """Records in Kafka that the targets do not have yet."""
        return sum([await direction.unapplied() for direction in self.directions])


async def slot_exists(connection: AsyncConnection, name: str) -> bool:
    """Say whether External has this replication slot. Raises psycopg.Error."""
    values = {"position": "0/0", "slot": name}
    return (
        await (await connection.execute(statement(_QUERIES["slot"]), values)).fetchone() is not None
    )


async def parked_and_dead(connection: AsyncConnection) -> dict[str, tuple[int, int]]:
    """By flow, how many changes are parked and dead on a site. Raises psycopg.Error."""
    cursor = await connection.execute(statement(_QUERIES["parked_and_dead"]))
    return {flow: (parked, dead) for flow, parked, dead in await cursor.fetchall()}


@asynccontextmanager
async def watch(flow: Flow, settings: Settings) -> AsyncIterator[FlowProgress]:
    """Open what watching a flow takes. Raises psycopg.OperationalError, KafkaUnreachable, TopicMissing."""
    settings.require_databases()
    names = Names(flow, settings.namespace)
    async with AsyncExitStack() as stack:
        connections = await stack.enter_async_context(open_both(settings))
        directions = []
        for target in flow.targets:
            opened = open_ends(settings.kafka, names.topics(target))
            ends = await stack.enter_async_context(opened)
            directions.append(Direction(flow, target, settings.namespace, connections, ends))
        yield FlowProgress(directions)
