"""The Kafka client: topics, offsets, publishing, and the consumer that delivers chunks."""
