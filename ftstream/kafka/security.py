"""How every Kafka client of ftstream reaches the brokers."""

from __future__ import annotations

from typing import Any

from ftstream.settings import KafkaSettings


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """The keyword arguments that aiokafka's consumer, producer and admin client have in common."""
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "security_protocol": kafka.security_protocol,
        "ssl_context": kafka.ssl_context(),
    }
    if kafka.authenticated:
        options |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.sasl_username,
            "sasl_plain_password": kafka.sasl_password.get_secret_value(),
        }
    return options
