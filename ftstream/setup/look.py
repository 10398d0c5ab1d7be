"""One look at everything that `init` and `connectors apply` have made: both sites, Kafka, and Connect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import psycopg

from ftstream.compare.gaps import Gap
from ftstream.connect.errors import ConnectError
from ftstream.flows import FLOWS, Flow, Site
from ftstream.kafka.errors import KafkaError
from ftstream.postgres.connection import open_site
from ftstream.settings import Settings
from ftstream.setup import watch
from ftstream.setup.expectations import wanted
from ftstream.setup.faults import INIT, Fault
from ftstream.setup.outside_faults import connect_faults, kafka_faults, silent_connectors
from ftstream.setup.watch import SiteLook

LOOK_SECONDS = 8.0
"""In which each of them answers, or counts as silent."""

AGAIN_SECONDS = 1.0
"""After which a command looks again at what it has found: it may come amid somebody's change."""


@dataclass(frozen=True, slots=True)
class SetupLook:
    """What was found; `gaps` by the site that had them."""

    faults: tuple[Fault, ...] = ()
    gaps: tuple[tuple[Site, Gap], ...] = ()

    def of(self, flows: Collection[Flow]) -> SetupLook:
        """Return what concerns these flows."""
        names = {flow.name for flow in flows}
        return SetupLook(
            tuple(fault for fault in self.faults if names & set(fault.flows)),
            tuple((site, gap) for site, gap in self.gaps if gap.flow in names),
        )

    @property
    def silent(self) -> bool:
        """Whether nobody can tell, since somebody does not answer."""
        return any(fault.silent for fault in self.faults)

    @property
    def well(self) -> bool:
        return not (self.faults or self.gaps)


async def look_for_certain(settings: Settings, flows: Sequence[Flow] = FLOWS) -> SetupLook:
    """Look, and if anything is found look again: what both have found is so."""
    first = await look(settings, flows)
    if first.well or all(fault.silent for fault in first.faults):
        return first
    await asyncio.sleep(AGAIN_SECONDS)
    second = await look(settings, flows)
    faults = tuple(fault for fault in second.faults if fault in first.faults)
    return SetupLook(faults, second.gaps)


async def look(
    settings: Settings,
    flows: Sequence[Flow] = FLOWS,
    certain: Collection[Fault] | None = None,
) -> SetupLook:
    """Look at everything at once; who does not answer is a fault, too. `certain`: see `watch.look`."""
    every = tuple(flow.name for flow in flows)
    sites = [_of_site(settings, flows, site, certain) for site in Site]
    outside = [
        _answered("connect", every, lambda: connect_faults(settings, flows)),
        _answered("kafka", every, lambda: _kafka(settings, flows)),
    ]
    looks = await asyncio.gather(*sites)
    found = await asyncio.gather(*outside)
    faults = [fault for each in (*(look.faults for look in looks), *found) for fault in each]
    return SetupLook(tuple(faults), tuple((each.site, gap) for each in looks for gap in each.gaps))


async def _of_site(
    settings: Settings, flows: Sequence[Flow], site: Site, certain: Collection[Fault] | None
) -> SiteLook:
    every = tuple(flow.name for flow in flows)
    aim, found = wanted(site, flows, settings), SiteLook(site)

    async def answer() -> list[Fault]:
        nonlocal found
        async with await open_site(settings, site) as connection:
            found = await watch.look(connection, aim, certain=certain) or found
        return list(found.faults)

    faults = await _answered(site.value, every, answer)
    return SiteLook(site, tuple(faults), found.gaps, found.unnoted)


async def _kafka(settings: Settings, flows: Sequence[Flow]) -> list[Fault]:
    found = await kafka_faults(settings, flows)
    return found or await silent_connectors(settings, flows)


async def _answered(
    where: str, flows: tuple[str, ...], ask: Callable[[], Awaitable[list[Fault]]]
) -> list[Fault]:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await ask()
    except TimeoutError:
        reason, command = f"no answer in {LOOK_SECONDS:.0f} s", "is it up, and reached?"
    except psycopg.OperationalError as error:
        reason, command = str(error), f"is it up, and is {where}.dsn right?"
    except psycopg.Error as error:
        reason, command = str(error), INIT
    except (KafkaError, ConnectError) as error:
        reason, command = str(error), "is it up, and are the settings right?"
    detail = " ".join(reason.split())
    return [Fault(where, "does not answer", command, flows, silent=True, detail=detail)]
