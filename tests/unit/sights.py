"""A look of the watcher in which there is something of everything."""

from __future__ import annotations

from datetime import UTC, datetime

from ftstream.failures import Severity
from ftstream.flows import FLOWS, GFX, Names, Site
from ftstream.watch.alerts import Alert
from ftstream.watch.metrics import Sight
from ftstream.watch.signals import (
    Compared,
    LagSignal,
    RunSignal,
    Signals,
    Silent,
    SiteSignals,
    SlotSignal,
    Waiting,
    WorkerSignal,
)

AT = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
EXTERNAL = SiteSignals(
    Site.EXTERNAL,
    skew_seconds=0.1,
    read_only=False,
    connections=20,
    most_connections=100,
    applied={},
    lags=[LagSignal(flow.name, 10, 12, 50, 4.0) for flow in FLOWS],
    slots=[SlotSignal("gfx_slot", True, "reserved", 10 * 2**20, 20 * 2**30)],
)
SUPABASE = SiteSignals(
    Site.SUPABASE,
    skew_seconds=-0.1,
    read_only=False,
    connections=30,
    most_connections=60,
    applied={(Names(GFX).topics(Site.SUPABASE)[0], 0): 5},
    lags=[LagSignal("gfx", 10, 12, 50, 3.0)],
    waiting=[Waiting("gfx", "parked", 3, 30.0, "e"), Waiting("gfx", "dead", 2, 60.0, "e")],
    workers=[
        WorkerSignal("host:1", 2.0, 600.0, "realtime", "", {}),
        WorkerSignal("host:2", 100.0, 600.0, "realtime", "", {}),
    ],
    runs=[RunSignal("wsop", "players", "failed", 1_000.0, 900.0, 2, "why")],
    outbox=4,
    outbox_seconds=1.5,
    used_bytes=2**30,
)
SIGNALS = Signals(
    {Site.EXTERNAL: EXTERNAL, Site.SUPABASE: SUPABASE},
    ends={(Names(GFX).topics(Site.SUPABASE)[0], 0): 12},
    connect=Silent("refused"),
    beating_seconds=500.0,
    compared=Compared(60.0, {"gfx_hands": 7}),
    undelivered={"duty": "refused"},
)
OPEN = Alert(
    "FT104",
    "connect",
    AT,
    Severity.CRITICAL,
    "Kafka Connect does not answer",
    "start it",
    ("gfx",),
    AT,
)
SIGHT = Sight(SIGNALS, AT.timestamp(), (OPEN,))
