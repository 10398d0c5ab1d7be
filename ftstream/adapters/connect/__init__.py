"""Kafka Connect: connector configurations and its REST API."""
