"""ftstream keeps two PostgreSQL databases, External and Supabase, in step through Kafka."""

__version__ = "0.1.0"
