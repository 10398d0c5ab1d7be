"""One change from topic to row: merged, applied in one transaction, or parked."""
