"""docs/codes.md and docs/metrics.md say what the code says. `FTSTREAM_KEEP_PAGES=1` writes them again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric

from ftstream import metrics
from ftstream.flows import FLOWS
from ftstream.watch.codes import CODES
from ftstream.watch.judge import Limits
from ftstream.watch.metrics import WatchMetrics
from tests.unit.sights import SIGHT

DOCS = Path(__file__).parents[2] / "docs"

OF_CODES = """\
What `ftstream watch` finds and tells, as `ftstream explain FT101` explains it. An alert is over when what it
tells of is. While one of those under *hidden by* is found, of the same flows, it is not told."""

OF_METRICS = """\
Workers (`ftstream worker`) answer at `listen.worker` (127.0.0.1:8471), the watcher (`ftstream watch`) at
`listen.watcher` (127.0.0.1:8472): `/healthz`, `/readyz` and `/metrics`. Beside these there are the process's
own (`process_*`, `python_*`). Of several watchers the active one alone has more than
`ftstream_watcher_active`. What Connect's JMX exporter shows is in `ftstream/local/stack/jmx.yml`; rules and
a dashboard are in `docker/`."""


def codes_page() -> Iterator[str]:
    yield "# Codes"
    yield ""
    yield OF_CODES
    for code in CODES.values():
        yield f"\n## {code.name}\n"
        yield f"**{code.title}** · {code.korean}\n"
        yield f"Severity: {code.severity.value}. Cause: {code.cause.value}.\n"
        yield f"{code.more.strip()}\n"
        yield f"Then: {code.hint}"
        if code.hidden_by:
            yield f"\n*Hidden by* {', '.join(code.hidden_by)}"


def metrics_page() -> Iterator[str]:
    yield "# Metrics"
    yield ""
    yield OF_METRICS
    for title, found in (("Workers", of_workers()), ("Watcher", of_watcher())):
        yield f"\n## {title}\n"
        yield "| metric | labels | what it is |"
        yield "| --- | --- | --- |"
        for name, labels, metric in found:
            shown = ", ".join(f"`{label}`" for label in labels)
            yield f"| `{name}` | {shown} | {metric.documentation} |"


def of_workers() -> Iterator[tuple[str, list[str], Metric]]:
    for each in (metrics.DELAY, metrics.CHANGES, metrics.HALTED, metrics.BUILD):
        (metric,) = each.collect()
        suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
        labels = ["version"] if each is metrics.BUILD else list(each._labelnames)
        yield f"{metric.name}{suffix}", labels, metric


def of_watcher() -> Iterator[tuple[str, list[str], Metric]]:
    for metric in WatchMetrics(FLOWS, "", Limits(), lambda: SIGHT).collect():
        assert metric.samples, f"{metric.name}: the sight of the tests has none"
        yield metric.name, sorted(metric.samples[0].labels), metric


@pytest.mark.parametrize(
    ("name", "lines"), [("codes.md", codes_page), ("metrics.md", metrics_page)]
)
def test_the_page_says_what_the_code_says(name: str, lines: object) -> None:
    assert callable(lines)
    text, page = "\n".join(lines()) + "\n", DOCS / name
    if os.environ.get("FTSTREAM_KEEP_PAGES"):
        page.write_text(text, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == text
