"""Sees whether both sites are in step, and tells: signals, verdicts, alerts, healing."""
