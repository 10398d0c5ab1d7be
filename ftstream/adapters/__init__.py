"""What speaks to PostgreSQL, Kafka and Kafka Connect: translates, decides nothing."""
