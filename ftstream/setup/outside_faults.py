"""What is not as promised in Kafka and Kafka Connect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from ftstream.capture.connector_diff import differences
from ftstream.capture.connectors import connector_config, snapshot_over
from ftstream.capture.heartbeat import SILENT_SECONDS, last_heartbeat
from ftstream.connect.client import ConnectClient, ConnectorStatus
from ftstream.flows import CaptureNames, Flow, log_captures
from ftstream.kafka.errors import TopicsDiffer
from ftstream.kafka.topics import capture_topics, missing_topics, topics_of_all
from ftstream.settings import Settings
from ftstream.setup.faults import INIT, Fault, apply_command, written

ADDRESSES = ("database.hostname", "database.port", "signal.kafka.bootstrap.servers")
"""Settings that name the same by other words where somebody else stands: in a container, behind a tunnel."""

NO_HEARTBEAT = "sends no heartbeat"


async def connect_faults(settings: Settings, flows: Sequence[Flow]) -> list[Fault]:
    """Return what is wrong with the connectors of these flows. Raises ConnectError."""
    found: list[Fault] = []
    async with ConnectClient(settings.connect) as client:
        for capture in log_captures(flows):
            names = CaptureNames(capture, settings.namespace)
            config = await client.get_config(names.connector)
            status = await client.status(names.connector)
            found += connector_faults(names, settings, config, status)
    return found


def connector_faults(
    names: CaptureNames,
    settings: Settings,
    deployed: Mapping[str, str] | None,
    status: ConnectorStatus | None,
) -> Iterator[Fault]:
    """Judge one connector, which goes on where it was once it runs again."""
    flows = tuple(flow.name for flow in names.capture.flows)
    apply = apply_command(names.capture)
    connector = f"connector {names.connector}"
    if deployed is None:
        yield Fault("connect", f"{connector} does not exist", apply, flows)
        return
    first = not names.capture.outbox and not snapshot_over(deployed)
    wanted = connector_config(names, settings, first_snapshot=first)
    if differ := [d for d in differences(wanted, deployed) if d.key not in ADDRESSES]:
        what = f"{connector} is configured otherwise: {', '.join(d.key for d in differ)}"
        # It may leave out tables, or what it cannot send.
        yield Fault("connect", what, apply, flows, written(names.capture))
    if status is None or status.running:
        return
    if failed := status.failed:
        what = f"{connector} has failed"
        yield Fault("connect", what, apply, flows, detail=failed.cause)
    else:
        state = status.connector.state.lower()
        what = "has no running task" if state == "running" else f"is {state}"
        yield Fault("connect", f"{connector} {what}", apply, flows)


async def kafka_faults(settings: Settings, flows: Sequence[Flow]) -> list[Fault]:
    """Return what is wrong with the topics of these flows. Raises KafkaError."""
    specs = topics_of_all(settings, flows)
    every = tuple(flow.name for flow in flows)
    try:
        missing = set(await missing_topics(settings, specs))
    except TopicsDiffer as error:
        return [Fault("kafka", str(error), INIT, every)]
    found: list[Fault] = []
    for capture in log_captures(flows):
        names = CaptureNames(capture, settings.namespace)
        apply = apply_command(capture)
        small = {spec.name for spec in capture_topics(names, settings)} & missing
        missing -= small
        of = tuple(flow.name for flow in capture.flows)
        found += [Fault("kafka", f"topic {name} is missing", apply, of) for name in sorted(small)]
    return [
        *found,
        *(Fault("kafka", f"topic {n} is missing", INIT, every) for n in sorted(missing)),
    ]


async def silent_connectors(settings: Settings, flows: Sequence[Flow]) -> list[Fault]:
    """Return those whose heartbeats do not come, though they may say that they run. Raises KafkaError."""
    found = []
    for names in await _streaming(settings, flows):
        capture = names.capture
        at = await last_heartbeat(settings.kafka, names)
        if at is not None and (datetime.now(UTC) - at).total_seconds() > SILENT_SECONDS:
            what = f"connector {names.connector} {NO_HEARTBEAT}"
            of = tuple(flow.name for flow in capture.flows)
            found.append(Fault("connect", what, "see `ftstream connectors status`", of))
    return found


async def read_positions(settings: Settings, flows: Sequence[Flow]) -> int:
    """Return how far the connectors have read External's log, in bytes. Raises ConnectError."""
    async with ConnectClient(settings.connect) as client:
        names = [CaptureNames(capture, settings.namespace) for capture in log_captures(flows)]
        return max([await client.position(each.connector) for each in names], default=0)


async def _streaming(settings: Settings, flows: Sequence[Flow]) -> list[CaptureNames]:
    """Return those that are past their first snapshot, during which no heartbeat comes."""
    found = []
    async with ConnectClient(settings.connect) as client:
        for capture in log_captures(flows):
            names = CaptureNames(capture, settings.namespace)
            deployed = await client.get_config(names.connector)
            if deployed is not None and (capture.outbox or snapshot_over(deployed)):
                found.append(names)
    return found
