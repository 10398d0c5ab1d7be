"""The PostgreSQL client: connections, named statements, columns and how their values travel."""
