"""`ftstream bench`: throughput, latency and memory of the flows on a local stack."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console

from ftstream.cli.grid import grid
from ftstream.local.bench import cases, twoway, wsop
from ftstream.local.demo.rig import temporary_stack

RECORD = Path("bench/latest.json")
CASES = ("full", "narrow", "latency", "large", "snapshot", "twoway", "outbox", "capture", "wsop")


@click.command(
    epilog="""\b
Examples:
  ftstream bench
  ftstream bench --only full --only latency
  ftstream bench --rows 50000 --output /tmp/figures.json"""
)
@click.option("--rows", default=200_000, show_default=True, help="Hands in a backlog.")
@click.option("--large-rows", default=2_000, show_default=True, help="Sessions of 1 MB.")
@click.option("--snapshot-rows", default=1_000_000, show_default=True)
@click.option("--rate", default=200, show_default=True, help="Rows a second for latency.")
@click.option("--edit-rate", default=20, show_default=True, help="Edits a second on each site.")
@click.option("--outbox-rows", default=20_000, show_default=True, help="Edits in a backlog.")
@click.option("--batch-rows", default=500_000, show_default=True, help="Chip counts.")
@click.option("--seconds", default=30.0, show_default=True, help="How long latency is measured.")
@click.option("--only", multiple=True, type=click.Choice(CASES), help="Some cases; all without.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Where to write the figures; {RECORD} if all cases are run.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".ftstream/bench"),
    show_default=True,
    help="Where the stack lives meanwhile; removed at the end.",
)
def bench(
    rows: int,
    large_rows: int,
    snapshot_rows: int,
    rate: int,
    edit_rate: int,
    outbox_rows: int,
    batch_rows: int,
    seconds: float,
    only: tuple[str, ...],
    output: Path | None,
    folder: Path,
) -> None:
    """Measure the flows, audit on, one worker; write a table and a JSON file."""
    console = Console(highlight=False, stderr=True)

    def say(line: str) -> None:
        console.print(f"  {line}", style="dim")

    figures: dict[str, Any] = {}
    with temporary_stack(folder, say) as stack:
        for case in only or CASES:
            console.print(case)
            match case:
                case "full":
                    figures[case] = cases.figures(cases.throughput(stack, rows, say, narrow=False))
                case "narrow":
                    figures[case] = cases.figures(cases.throughput(stack, rows, say, narrow=True))
                case "latency":
                    figures[case] = asdict(cases.latency(stack, rate, seconds, say))
                case "large":
                    figures[case] = cases.figures(cases.large_rows(stack, large_rows, say))
                case "snapshot":
                    run, compared = cases.snapshot(stack, snapshot_rows, say)
                    figures[case] = cases.figures(run)
                    figures["verify"] = asdict(compared)
                case "twoway":
                    found = twoway.latency(stack, edit_rate, seconds, say)
                    figures[case] = {name: asdict(each) for name, each in found.items()}
                case "outbox":
                    figures[case] = round(twoway.publishing(stack, outbox_rows, say))
                case "capture":
                    figures[case] = asdict(twoway.capture(stack, 1_500, say))
                case "wsop":
                    figures[case] = asdict(wsop.runs(stack, batch_rows, say))
        servers = cases.servers(stack)
    _print(figures)
    if only and output is None:
        return
    output = output or RECORD
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(_report(figures, servers), indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {output}")


def _report(figures: dict[str, Any], servers: dict[str, str]) -> dict[str, Any]:
    full = figures.get("full", {})
    return {
        "gfx": {
            "rows_per_s": full.get("rows_per_s"),
            "cpu_us_per_row": full.get("cpu_us_per_row"),
            "worker_rss_mb": full.get("rss_mb"),
            "latency_ms": figures.get("latency"),
            "columns_15": figures.get("narrow"),
            "large_rows": figures.get("large"),
            "snapshot": figures.get("snapshot"),
            "verify": figures.get("verify"),
        },
        "twoway": {"latency_ms": figures.get("twoway")},
        "outbox": {"changes_per_s": figures.get("outbox")},
        "capture": figures.get("capture"),
        "wsop": figures.get("wsop"),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": psutil.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 2**30),
        },
        "versions": {
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("ftstream", "faust-streaming", "aiokafka", "psycopg")
            },
            **servers,
        },
    }


def _print(figures: dict[str, Any]) -> None:
    table = grid("case", "rows", "rows/s", "CPU us/row", "peak MB")
    for case, row in figures.items():
        if isinstance(row, dict) and "rows_per_s" in row:
            table.add_row(
                case,
                f"{row['rows']:,.0f}",
                f"{row['rows_per_s']:,.0f}",
                f"{row['cpu_us_per_row']:.1f}",
                f"{row['rss_mb']:.0f}",
            )
    console = Console()
    if table.rows:
        console.print(table)
    if compared := figures.get("verify"):
        console.print(
            f"verify: {compared['rows']:,} equal rows in {compared['seconds']} s,"
            f" peak {compared['rss_mb']:.0f} MB"
        )
    waits = {"": figures.get("latency"), **(figures.get("twoway") or {})}
    for where, lag in waits.items():
        if lag:
            way = f" {where.replace('_', ' ')}" if where else ""
            console.print(
                f"commit to visible{way}, ms: p50 {lag['p50']}, p95 {lag['p95']}, p99 {lag['p99']}"
            )
    if rate := figures.get("outbox"):
        console.print(f"published from Supabase's outbox: {rate:,} changes/s")
    if cost := figures.get("capture"):
        console.print(f"capturing a row costs its writer {cost['us_per_row']} us")
    if batch := figures.get("wsop"):
        console.print(
            f"batches of {batch['rows']:,} rows: the first {batch['first_rows_per_s']:,.0f} rows/s, of a"
            f" hundredth {batch['one_percent_s']} s, of nothing {batch['idle_s']} s;"
            f" worker's peak {batch['rss_mb']:.0f} MB"
        )
