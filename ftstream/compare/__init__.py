"""Whether two sites hold the same: digests, verify, reconcile, and how far a flow is."""
