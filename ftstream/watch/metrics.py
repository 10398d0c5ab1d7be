"""What the last look has seen, for Prometheus. Pure: the time of the look comes with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ftstream.flows import Capture, Flow, Site
from ftstream.watch.alerts import Alert
from ftstream.watch.judge import Limits, beat_seconds, to_apply
from ftstream.watch.signals import Signals, Silent, SiteSignals, worst


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is to export: a look, when it was (seconds since 1970), and the alerts that are open."""

    signals: Signals
    at: float
    alerts: Sequence[Alert] = ()


class WatchMetrics(Collector):
    """Collects from the last sight; None while this watcher stands by, and another one exports."""

    def __init__(
        self,
        flows: Sequence[Flow],
        namespace: str,
        limits: Limits,
        sight: Callable[[], Sight | None],
    ) -> None:
        self._flows, self._namespace = flows, namespace
        self._limits, self._sight = limits, sight

    def describe(self) -> list[Metric]:
        """Nothing: what there is depends on what was seen."""
        return []

    def collect(self) -> Iterator[Metric]:
        sight = self._sight()
        active = 0 if sight is None else 1
        yield _gauge("watcher_active", "1 if this watcher looks, tells and heals", [((), active)])
        if sight is not None:
            yield from self._of(sight)

    def _of(self, sight: Sight) -> Iterator[Metric]:
        signals = sight.signals
        sites = [found for site in Site if (found := signals.site(site))]
        yield _gauge("looked_timestamp_seconds", "When the last look was", [((), sight.at)])
        yield _gauge("up", "1 if it answers", _up(signals), "service")
        yield _gauge("alerts", "Alerts that are open", _alerts(sight.alerts), "code", "severity")
        yield from self._of_sites(sites)
        yield from self._of_waiting(sites)
        yield from self._of_flows(signals, sites)
        yield from _of_slots(sites)
        yield from _of_runs(sites)
        ago = signals.compared.seconds
        compared = [] if ago is None else [((), sight.at - ago)]
        yield _gauge("verified_timestamp_seconds", "When both sites were compared", compared)
        interval = [((), self._limits.verify_seconds)]
        yield _gauge("verify_interval_seconds", "How often they are to be; 0: never", interval)
        rows = [((table,), n) for table, n in signals.compared.differing.items()]
        yield _gauge("differing_rows", "Rows that differed then", rows, "table")
        refused = [((name,), 1) for name in signals.undelivered]
        yield _gauge("receiver_failing", "1 if it does not take alerts", refused, "receiver")

    def _of_sites(self, sites: Sequence[SiteSignals]) -> Iterator[Metric]:
        def each(value: Callable[[SiteSignals], float]) -> list[_Sample]:
            return [((seen.site.value,), value(seen)) for seen in sites]

        yield _gauge(
            "outbox_oldest_seconds",
            "How old the oldest change is that waits in the outbox",
            each(lambda s: s.outbox_seconds),
            "site",
        )
        yield _gauge("outbox", "Changes that wait in the outbox", each(lambda s: s.outbox), "site")
        yield _gauge("connections", "Connections in use", each(lambda s: s.connections), "site")
        yield _gauge(
            "most_connections",
            "Connections there may be",
            each(lambda s: s.most_connections),
            "site",
        )
        yield _gauge(
            "clock_skew_seconds",
            "How far the site's clock is ahead of the watcher's",
            each(lambda s: s.skew_seconds),
            "site",
        )
        yield _gauge("database_bytes", "Databases and log", each(lambda s: s.used_bytes), "site")
        least = self._limits.silent_worker
        workers = [
            ((), sum(worker.silent_seconds <= least for worker in seen.workers))
            for seen in sites
            if seen.site is Site.SUPABASE  # who is away says nothing of workers
        ]
        yield _gauge("workers", "Workers that said so lately", workers)

    def _of_waiting(self, sites: Sequence[SiteSignals]) -> Iterator[Metric]:
        for state, text in (
            ("parked", "Changes that are tried again"),
            ("dead", "Changes that wait for a person"),
        ):
            found = {
                (flow.name, seen.site.value): 0.0
                for flow in self._flows
                for seen in sites
                if seen.site in flow.targets
            }
            for seen in sites:
                for each in seen.waiting:
                    if each.state == state:
                        found[each.flow, seen.site.value] = each.changes
            yield _gauge(state, text, found.items(), *_WAY)

    def _of_flows(self, signals: Signals, sites: Sequence[SiteSignals]) -> Iterator[Metric]:
        late: list[_Sample] = []
        beats: list[_Sample] = []
        behind: list[_Sample] = []
        for flow in self._flows:
            for seen in (each for each in sites if each.site in flow.targets):
                where = (flow.name, seen.site.value)
                if flow.capture is not Capture.BATCH:
                    beats.append((where, beat_seconds(signals, seen, flow)))
                left = to_apply(signals, seen, flow, seen.site, self._namespace)
                if left is not None:
                    behind.append((where, left))
                found = worst(lag for lag in seen.lags if lag.flow == flow.name)
                if found is not None:
                    late.append(((*where, "0.5"), found[0] / 1000))
                    late.append(((*where, "0.99"), found[1] / 1000))
        yield _gauge(
            "heartbeat_age_seconds",
            "How old the newest heartbeat is that has come the whole way",
            beats,
            *_WAY,
        )
        yield _gauge("records_to_apply", "Records in Kafka that the target lacks", behind, *_WAY)
        yield _gauge(
            "recent_delay_seconds",
            "How late the changes of the last minute came, as workers say",
            late,
            *_WAY,
            "quantile",
        )


_Sample = tuple[tuple[str, ...], float]
_WAY = ("flow", "target")


def _gauge(name: str, text: str, samples: Iterable[_Sample], *labels: str) -> Metric:
    found = GaugeMetricFamily(f"ftstream_{name}", text, labels=labels)
    for values, number in dict(samples).items():
        found.add_metric(values, number)
    return found


def _up(signals: Signals) -> Iterator[_Sample]:
    for site, seen in signals.sites.items():
        yield (site.value,), not isinstance(seen, Silent) or seen.refused
    yield ("kafka",), not isinstance(signals.ends, Silent)
    yield ("connect",), signals.connect is None


def _alerts(alerts: Sequence[Alert]) -> list[_Sample]:
    counted = Counter((alert.code, alert.severity.value) for alert in alerts)
    return list(counted.items())


def _of_slots(sites: Sequence[SiteSignals]) -> Iterator[Metric]:
    slots = [slot for seen in sites for slot in seen.slots]
    yield _gauge(
        "slot_retained_bytes",
        "What is kept of External's log",
        [((slot.name,), slot.retained_bytes) for slot in slots],
        "slot",
    )
    yield _gauge(
        "slot_safe_bytes",
        "What may still be written before changes are lost",
        [((slot.name,), slot.safe_bytes) for slot in slots if slot.safe_bytes is not None],
        "slot",
    )
    yield _gauge(
        "slot_active", "1 if a connector reads it", [((s.name,), s.active) for s in slots], "slot"
    )
    lost = [((s.name,), s.status == "lost") for s in slots]
    yield _gauge("slot_lost", "1 if what it was to keep is gone", lost, "slot")


def _of_runs(sites: Sequence[SiteSignals]) -> Iterator[Metric]:
    runs = [run for seen in sites for run in seen.runs]
    yield _gauge(
        "batch_age_seconds",
        "How long ago the last run was done",
        [((r.flow, r.entity_type), r.late_seconds) for r in runs if r.late_seconds is not None],
        "flow",
        "entity_type",
    )
    yield _gauge(
        "batch_failures",
        "Runs that failed, one after the other",
        [((r.flow, r.entity_type), r.failures) for r in runs],
        "flow",
        "entity_type",
    )
