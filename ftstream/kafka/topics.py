"""The topics of flows and connectors: which there are, and making and removing them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from ftstream.flows import CaptureNames, Flow, Names, captures_of
from ftstream.kafka.clients import open_admin_client
from ftstream.kafka.errors import TopicMissing, TopicRefused, TopicsDiffer
from ftstream.settings import MAX_REQUEST_BYTES, KafkaSettings, Settings

MAX_MESSAGE_BYTES = MAX_REQUEST_BYTES + 64 * 2**10
"""A little over what a producer sends, so that whatever it accepts the broker does too."""

_HOUR = 3_600_000
_CREATED = 0


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be; `config` holds the settings that are not the broker's own."""

    name: str
    partitions: int
    replication_factor: int
    config: dict[str, str] = field(default_factory=dict)


def change_topics(names: Names, settings: Settings) -> tuple[TopicSpec, ...]:
    """The changes of each table of a flow."""
    kafka = settings.kafka
    return tuple(
        TopicSpec(topic, kafka.partitions, kafka.replication_factor, _change_config(kafka))
        for target in names.flow.targets
        for topic in names.topics(target)
    )


def changelog_topics(names: Names, settings: Settings) -> tuple[TopicSpec, ...]:
    """Return the topics in which the agents of a two-way flow keep what they have seen."""
    kafka = settings.kafka
    return tuple(
        # As many partitions as the changes have: each stands beside theirs.
        TopicSpec(name, kafka.partitions, kafka.replication_factor, _cache_config(kafka))
        for name in (names.changelog(target) for target in names.flow.targets)
        if names.flow.two_way
    )


def capture_topics(names: CaptureNames, settings: Settings) -> tuple[TopicSpec, ...]:
    """Return what a connector needs besides."""
    kafka = settings.kafka
    return tuple(
        # One partition: what they hold has one order, and Debezium reads signals from one only.
        TopicSpec(topic, 1, kafka.replication_factor, config)
        for topic, config in (
            # Read like the changes, offsets and all: kept as long.
            (names.heartbeat_topic, _passing_config(kafka, hours=kafka.retention_hours)),
            (names.keepalive_topic, _passing_config(kafka, hours=1)),
            (names.signal_topic, _passing_config(kafka, hours=24)),
            (names.notification_topic, _passing_config(kafka, hours=24)),
        )
    )


def topics_of_all(
    settings: Settings, flows: Sequence[Flow], others: Sequence[Flow] = ()
) -> tuple[TopicSpec, ...]:
    """Every topic that these flows use; of their connectors, if no other flow has a share in it."""
    namespace = settings.namespace
    captures = captures_of(flows, others)
    return (
        *(spec for flow in flows for spec in change_topics(Names(flow, namespace), settings)),
        *(spec for flow in flows for spec in changelog_topics(Names(flow, namespace), settings)),
        *(spec for c in captures for spec in capture_topics(CaptureNames(c, namespace), settings)),
    )


async def partition_counts(kafka: KafkaSettings) -> dict[str, int]:
    """Topic to number of partitions, of every topic there is. Raises KafkaUnreachable."""
    async with open_admin_client(kafka) as admin:
        return await _partitions(admin)


async def require_topics(kafka: KafkaSettings, names: Iterable[str]) -> None:
    """A client would wait for one that is not there until its time is up, or make it.

    Raises TopicMissing, KafkaUnreachable.
    """
    there = await partition_counts(kafka)
    if missing := [name for name in names if name not in there]:
        raise TopicMissing(
            f"Kafka has no topic {', '.join(missing)}: `ftstream connectors apply` makes it again"
        )


async def missing_topics(settings: Settings, specs: Sequence[TopicSpec]) -> list[str]:
    """The names of those that do not exist. Raises TopicsDiffer, KafkaUnreachable."""
    async with open_admin_client(settings.kafka) as admin:
        return [spec.name for spec in await _missing(admin, specs)]


async def existing_topics(settings: Settings, specs: Sequence[TopicSpec]) -> list[str]:
    """The names of those that exist, whatever they are like. Raises KafkaUnreachable."""
    async with open_admin_client(settings.kafka) as admin:
        existing = await _partitions(admin)
        return [spec.name for spec in specs if spec.name in existing]


async def ensure_topics(settings: Settings, specs: Sequence[TopicSpec]) -> list[str]:
    """Create those that do not exist, and return their names.

    Raises TopicsDiffer, before it creates anything, if one exists with other partitions;
    TopicRefused if the broker refuses one; KafkaUnreachable.
    """
    async with open_admin_client(settings.kafka) as admin:
        missing = await _missing(admin, specs)
        if missing:
            response = await admin.create_topics([_new(spec) for spec in missing])
            # Somebody else may have made it meanwhile; then its partitions are looked at again.
            _check("create", response.topic_errors, allowed=TopicAlreadyExistsError.errno)
            _compare(await _partitions(admin), specs)
        return [spec.name for spec in missing]


async def delete_topics(settings: Settings, specs: Sequence[TopicSpec]) -> list[str]:
    """Delete those that exist, with all they hold, and return their names.

    Raises TopicRefused, KafkaUnreachable.
    """
    async with open_admin_client(settings.kafka) as admin:
        existing = await _partitions(admin)
        present = [spec.name for spec in specs if spec.name in existing]
        if present:
            response = await admin.delete_topics(present)
            _check("delete", response.topic_error_codes, allowed=UnknownTopicOrPartitionError.errno)
        return present


def _change_config(kafka: KafkaSettings) -> dict[str, str]:
    return {
        # Stated, whatever the broker's defaults are: compaction makes holes in the offsets, and
        # a limit in bytes would drop changes that were not applied yet.
        "cleanup.policy": "delete",
        "retention.ms": str(kafka.retention_hours * _HOUR),
        "retention.bytes": "-1",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        **_durability(kafka),
    }


def _passing_config(kafka: KafkaSettings, hours: int) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(hours * _HOUR),
        # A segment in use is not deleted; by default it is in use for a week.
        "segment.ms": str(hours * _HOUR),
        **_durability(kafka),
    }


def _cache_config(kafka: KafkaSettings) -> dict[str, str]:
    """The newest value of each key, as long as the change it tells of may come again."""
    return _passing_config(kafka, hours=kafka.retention_hours) | {
        "cleanup.policy": "compact,delete",
        # What is in use is not compacted, and all of it is read at a start.
        "segment.ms": str(_HOUR),
    }


def _durability(kafka: KafkaSettings) -> dict[str, str]:
    # Connect asks for acknowledgement by all in-sync replicas: that must be more than the leader.
    return {"min.insync.replicas": "2"} if kafka.replication_factor > 2 else {}


async def _partitions(admin: Any) -> dict[str, int]:
    """Topic to number of partitions. All topics are asked for: naming one could create it."""
    return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}


async def _missing(admin: Any, specs: Sequence[TopicSpec]) -> list[TopicSpec]:
    existing = await _partitions(admin)
    _compare(existing, specs)
    await _compare_configs(admin, [spec for spec in specs if spec.name in existing])
    return [spec for spec in specs if spec.name not in existing]


def _compare(existing: dict[str, int], specs: Sequence[TopicSpec]) -> None:
    wrong = [
        f"{spec.name} has {existing[spec.name]} partitions, not {spec.partitions}"
        for spec in specs
        if existing.get(spec.name, spec.partitions) != spec.partitions
    ]
    if wrong:
        raise TopicsDiffer(
            f"{'; '.join(wrong)}. A key's changes stay in order only in one partition, so the "
            "number is never changed: set kafka.partitions to what exists and then run `ftstream "
            "verify --repair`, or delete the topics once all they hold is applied."
        )


# Settings without which changes are lost, or a connector's task fails; a more generous value will do.
_AT_LEAST = ("max.message.bytes", "retention.ms", "retention.bytes")


async def _compare_configs(admin: Any, specs: Sequence[TopicSpec]) -> None:
    """Raises TopicsDiffer if a topic that exists would lose changes."""
    wanted = {
        spec.name: {k: v for k, v in spec.config.items() if k in (*_AT_LEAST, "cleanup.policy")}
        for spec in specs
    }
    resources = [
        ConfigResource(ConfigResourceType.TOPIC, name, config) for name, config in wanted.items()
    ]
    if not resources:
        return
    wrong = [
        f"{name} has {key}={value}, not {wanted[name][key]}"
        for answer in await admin.describe_configs(resources)
        for _, _, _, name, entries in answer.resources
        for key, value, *_ in entries
        if not _suffices(key, value, wanted[name][key])
    ]
    if wrong:
        raise TopicsDiffer(
            f"{'; '.join(wrong)}. Set it: kafka-configs.sh --alter --topic TOPIC --add-config KEY=VALUE"
        )


def _suffices(key: str, value: str, wanted: str) -> bool:
    if key not in _AT_LEAST:
        return value == wanted
    unlimited = -1
    return int(value) == unlimited or (int(wanted) != unlimited and int(value) >= int(wanted))


def _new(spec: TopicSpec) -> NewTopic:
    return NewTopic(
        name=spec.name,
        num_partitions=spec.partitions,
        replication_factor=spec.replication_factor,
        topic_configs=spec.config,
    )


def _check(verb: str, results: Iterable[tuple[Any, ...]], *, allowed: int) -> None:
    """Each result is a topic, an error code and, in newer answers, the broker's own words."""
    refused = [
        f"{topic}: {' '.join([for_code(code).__name__, *filter(None, words)])}"
        for topic, code, *words in results
        if code not in (_CREATED, allowed)
    ]
    if refused:
        raise TopicRefused(f"Kafka did not {verb} {'; '.join(refused)}")
