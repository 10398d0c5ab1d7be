"""The Kafka client: topics, offsets, and the consumer that delivers chunks."""
