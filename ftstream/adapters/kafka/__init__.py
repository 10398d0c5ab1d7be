"""Kafka: topics, offsets and the consumer that delivers chunks."""
