"""Benchmarks of the whole way, on the local stack, with the commands a user runs."""
