"""The client of Kafka Connect's REST API."""
