"""The demonstration: the production schema and seeded poker traffic to run through it."""
