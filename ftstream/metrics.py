"""What a worker counts, for Prometheus. What the databases tell the watcher exports (watch/metrics.py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import Counter, Gauge, Histogram, Info

from ftstream import __version__
from ftstream.flows import Site
from ftstream.outcomes import Outcome

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

DELAY = Histogram(
    "ftstream_apply_delay_seconds",
    "From the commit at the source to the write at the target, of up to 40 changes of each batch",
    ("flow", "target"),
    buckets=BUCKETS,
)
CHANGES = Counter(
    "ftstream_changes",
    "What became of changes, by the names of sync_log",
    ("flow", "target", "outcome"),
)
HALTED = Gauge(
    "ftstream_flow_halted", "1 if this worker does not carry the flow any more", ("flow", "target")
)
BUILD = Info("ftstream_build", "The version of ftstream")
BUILD.info({"version": __version__})


def count(flow: str, target: Site, outcomes: Mapping[Outcome, int]) -> None:
    """Count what became of changes that are in the database."""
    for outcome, changes in outcomes.items():
        CHANGES.labels(flow, target.value, outcome.value).inc(changes)


def observe(flow: str, target: Site, milliseconds: Iterable[int]) -> None:
    """Note how late changes came."""
    delay = DELAY.labels(flow, target.value)
    for each in milliseconds:
        delay.observe(each / 1000)
