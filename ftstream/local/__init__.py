"""Everything to try ftstream with on one machine: the stack, the demo, the benchmarks."""
