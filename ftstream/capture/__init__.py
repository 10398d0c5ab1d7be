"""How changes leave a site: connectors that read the log, the outbox and its publisher, batch runs."""
