"""The pure heart: no async, no I/O, no clock, no environment."""
