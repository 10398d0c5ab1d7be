"""One look at everything that `init` and `connectors apply` have made: both sites, Kafka, and Connect."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace

import psycopg

from ftstream.apply.sites import open_both
from ftstream.compare.gaps import Gap
from ftstream.connect.errors import ConnectError
from ftstream.flows import FLOWS, Flow, Site
from ftstream.kafka.errors import KafkaError
from ftstream.postgres.connection import SiteUnreachable, open_site
from ftstream.settings import Settings
from ftstream.setup import site_look
from ftstream.setup.expectations import wanted
from ftstream.setup.faults import INIT, NOBODY_READS, Fault
from ftstream.setup.lineage import lineage_faults
from ftstream.setup.outside_faults import (
    NO_HEARTBEAT,
    connect_faults,
    kafka_faults,
    read_positions,
    silent_connectors,
)
from ftstream.setup.site_look import SiteLook

LOOK_SECONDS = 10.0
"""In which each of them answers, or counts as silent."""

AGAIN_SECONDS = 1.0
"""After which a command looks again at what it has found: it may come amid somebody's change."""

SETTING_UP = "somebody sets it up at this moment"


@dataclass(frozen=True, slots=True)
class SetupLook:
    """What was found; `gaps` by the site that had them.

    `unnoted`: tables of which something was changed since a worker last looked.
    """

    faults: tuple[Fault, ...] = ()
    gaps: tuple[tuple[Site, Gap], ...] = ()
    unnoted: tuple[tuple[Site, str], ...] = ()

    def of(self, flows: Collection[Flow]) -> SetupLook:
        """Return what concerns these flows."""
        names = {flow.name for flow in flows}
        tables = {table.qualified for flow in flows for table in flow.tables}
        return SetupLook(
            tuple(fault for fault in self.faults if names & set(fault.flows)),
            tuple((site, gap) for site, gap in self.gaps if gap.flow in names),
            tuple((site, table) for site, table in self.unnoted if table in tables),
        )

    @property
    def silent(self) -> bool:
        """Whether nobody can tell, since somebody does not answer."""
        return any(fault.silent for fault in self.faults)

    @property
    def well(self) -> bool:
        return not (self.faults or self.gaps or self.unnoted)


async def look_for_certain(settings: Settings, flows: Sequence[Flow] = FLOWS) -> SetupLook:
    """Look, and if anything is found look again: what both have found is so."""
    first = await look(settings, flows)
    if first.well or all(fault.silent for fault in first.faults):
        return first
    await asyncio.sleep(AGAIN_SECONDS)
    second = await look(settings, flows)
    faults = [fault for fault in second.faults if fault.silent or fault in first.faults]
    return SetupLook(tuple(faults), second.gaps, second.unnoted)


async def look(
    settings: Settings,
    flows: Sequence[Flow] = FLOWS,
    certain: Collection[Fault] | None = None,
) -> SetupLook:
    """Look at everything; who does not answer is a fault, too. `certain`: see `site_look.look`."""
    every = tuple(flow.name for flow in flows)
    connect, kafka = await asyncio.gather(
        _answered("connect", every, lambda: connect_faults(settings, flows)),
        _answered("kafka", every, lambda: _kafka(settings, flows)),
    )
    sites = [
        _of_site(settings, flows, site, certain, connect if site is Site.EXTERNAL else ())
        for site in Site
    ]
    looks = await asyncio.gather(*sites)
    found = [fault for each in looks for fault in each.faults]
    if not any(fault.silent for fault in found):
        found += await _answered("both sites", every, lambda: _lineage(settings, flows, certain))
    if not any(fault.silent for fault in connect):
        # Connect itself says why; but if it says that all runs, PostgreSQL does not let it read.
        unread = [fault for fault in found if NOBODY_READS in fault.what]
        found = [fault for fault in found if fault not in unread]
        kafka = [_unread(fault, unread) for fault in kafka]
    return SetupLook(
        (*found, *connect, *kafka),
        tuple((each.site, gap) for each in looks for gap in each.gaps),
        tuple((each.site, table) for each in looks for table in each.unnoted),
    )


def _unread(fault: Fault, unread: Sequence[Fault]) -> Fault:
    """Return the fault of a connector without heartbeats, as one whose slot nobody reads."""
    for each in unread:
        if NO_HEARTBEAT in fault.what and each.flows == fault.flows:
            return replace(fault, command=each.command, detail=each.what)
    return fault


async def _of_site(
    settings: Settings,
    flows: Sequence[Flow],
    site: Site,
    certain: Collection[Fault] | None,
    others: Collection[Fault],
) -> SiteLook:
    """`others`: faults of Connect, by which what is written at this site may be lost."""
    every = tuple(flow.name for flow in flows)
    aim, found = wanted(site, flows, settings), SiteLook(site)

    async def answer() -> list[Fault]:
        nonlocal found
        async with await open_site(settings, site) as connection:
            seen = await site_look.look(connection, aim, certain=certain, others=others)
        if seen is None:
            return [Fault(site.value, SETTING_UP, "wait until it is done", every, silent=True)]
        found = seen
        return list(found.faults)

    faults = await _answered(site.value, every, answer)
    return SiteLook(site, tuple(faults), found.gaps, found.unnoted)


async def _lineage(
    settings: Settings, flows: Sequence[Flow], certain: Collection[Fault] | None
) -> list[Fault]:
    read_to = 0
    with contextlib.suppress(ConnectError):  # told as such
        read_to = await read_positions(settings, flows)
    async with open_both(settings) as connections:
        return await lineage_faults(
            settings, flows, connections, count=certain is not None, read_to=read_to
        )


async def _kafka(settings: Settings, flows: Sequence[Flow]) -> list[Fault]:
    if found := await kafka_faults(settings, flows):
        return found
    try:
        return await silent_connectors(settings, flows)
    except ConnectError:
        return []  # told as such


async def _answered(
    where: str, flows: tuple[str, ...], ask: Callable[[], Awaitable[list[Fault]]]
) -> list[Fault]:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await ask()
    except TimeoutError:
        reason, command = f"no answer in {LOOK_SECONDS:.0f} s", "is it up, and reached?"
    except SiteUnreachable as error:
        reason, command = str(error.__cause__), f"is it up, and is {where}.dsn right?"
    except psycopg.OperationalError as error:
        reason, command = str(error), f"is it up, and is {where}.dsn right?"
    except psycopg.Error as error:
        reason, command = str(error), INIT
    except (KafkaError, ConnectError) as error:
        reason, command = str(error), "is it up, and are the settings right?"
    detail = " ".join(reason.split())
    return [Fault(where, "does not answer", command, flows, silent=True, detail=detail)]
