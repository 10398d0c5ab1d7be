"""Faust agents: one for each flow and target site."""
