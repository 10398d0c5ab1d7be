"""What travels through Kafka, and how it reads: Debezium's changes, edits, refusals, Avro."""
