"""What goes wrong with Kafka, in words for the operator."""

from __future__ import annotations


class KafkaError(Exception):
    """Something that was asked of Kafka did not work; the message says what to do."""


class KafkaUnreachable(KafkaError):
    """No broker answers."""

    def __init__(self, bootstrap_servers: str, reason: str) -> None:
        super().__init__(
            f"Kafka does not answer at {bootstrap_servers} ({reason}). "
            "Is it running, and is kafka.bootstrap_servers right?"
        )


class TopicsDiffer(KafkaError):
    """Topics exist with other partitions or settings than the flow needs."""


class TopicRefused(KafkaError):
    """The broker did not create or delete a topic."""


class TopicMissing(KafkaError):
    """A topic that a flow reads does not exist."""
