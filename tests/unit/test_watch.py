"""What the watcher concludes from what it sees, and when it tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftstream.apply.lag import Lags
from ftstream.failures import Severity
from ftstream.flows import FLOWS, GFX, Names, Site
from ftstream.messages.change import Change, Operation
from ftstream.setup import faults, lineage
from ftstream.watch import judge as judge_words
from ftstream.watch import words
from ftstream.watch.alerts import Alert, AlertStep, Hours, Mute, Occasion, Rules, newest, step
from ftstream.watch.codes import CODES
from ftstream.watch.heal import Restarts
from ftstream.watch.judge import (
    Limits,
    Verdict,
    blind,
    causes,
    duration,
    found,
    judge,
    shown,
    size,
)
from ftstream.watch.signals import (
    Compared,
    LagSignal,
    OpenGap,
    RunSignal,
    SetupFault,
    SetupSignals,
    Signals,
    Silent,
    SiteSignals,
    SlotSignal,
    Waiting,
    WorkerSignal,
)

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
LIMITS = Limits(verify_seconds=3_600)
WORKER = WorkerSignal("host:1", 2.0, 600.0, "realtime", "", {})
GFX_TOPIC = Names(GFX).topics(Site.SUPABASE)[0]
SLOT = SlotSignal("gfx_slot", True, "reserved", 10 * 2**20, 20 * 2**30)


def lags(target: Site) -> list[LagSignal]:
    return [LagSignal(flow.name, 10, 12, 50, 4.0) for flow in FLOWS if target in flow.targets]


def site(which: Site, **changes: object) -> SiteSignals:
    well = SiteSignals(which, 0.1, False, 20, 100, {}, lags=lags(which))
    if which is Site.EXTERNAL:
        well = replace(well, slots=[SLOT])
    else:
        run = RunSignal("wsop", "players", "synced", 100.0, 900.0, 0, "")
        well = replace(well, workers=[WORKER], runs=[run])
    return replace(well, **changes)  # type: ignore[arg-type]


def signals(**changes: object) -> Signals:
    sites = {each: site(each) for each in Site}
    well = Signals(sites, {}, beating_seconds=500.0, compared=Compared(60.0, {}))
    return replace(well, **changes)  # type: ignore[arg-type]


def at(which: Site, **changes: object) -> Signals:
    sites = {each: site(each, **(changes if each is which else {})) for each in Site}
    return signals(sites=sites)


def silent(which: Site) -> Signals:
    return signals(sites={**signals().sites, which: Silent("refused")})


def told(seen: Signals) -> list[Verdict]:
    return causes(judge(seen, FLOWS, "", LIMITS))


def test_what_is_told_apart_by_its_words_is_what_the_set_up_says() -> None:
    assert judge_words.NOBODY_READS == faults.NOBODY_READS
    assert judge_words.WENT_BACK in lineage.WENT_BACK


def test_nothing_is_wrong_where_all_is_well() -> None:
    assert judge(signals(), FLOWS, "", LIMITS) == []


FAULT = SetupFault("external", "trigger x does not exist", "ftstream init", ("cue_sheets",), True)
LATE = [replace(each, p50_ms=9_000) for each in lags(Site.SUPABASE) if each.flow == "gfx"]
STUCK = [replace(each, heartbeat_seconds=40.0) for each in lags(Site.EXTERNAL)]
LOW = replace(SLOT, retained_bytes=9 * 2**30, safe_bytes=2**29)
GONE = replace(WORKER, name="host:2", silent_seconds=100.0)


OVERDUE = RunSignal("wsop", "players", "synced", 2_000.0, 900.0, 0, "")
FAILING = RunSignal("wsop", "players", "failed", 50.0, 900.0, 2, "why")
PARKED = Waiting("gfx", "parked", 3, 300.0, "e")
TROUBLES: list[tuple[str, Signals, str]] = [
    (
        "FT102",
        signals(
            sites={**signals().sites, Site.SUPABASE: Silent("FATAL: Tenant or user not found")}
        ),
        "so it is with a project that is paused",
    ),
    (
        "FT140",
        signals(sites={**signals().sites, Site.EXTERNAL: Silent("no right", refused=True)}),
        "external refuses what the watcher asks: no right",
    ),
    ("FT111", at(Site.EXTERNAL, slots=[replace(SLOT, status="lost", safe_bytes=None)]), "is lost"),
    ("FT121", signals(stuck={(GFX_TOPIC, 2): 60.0}), "partition 2 of"),
    (
        "FT160",
        signals(sites={each: site(each, skew_seconds=30.0) for each in Site}),
        "the watcher's clock is 30 s behind external's",
    ),
    ("FT171", signals(compared=Compared(None, {}), beating_seconds=9_000.0), "compared never"),
    ("FT132", at(Site.EXTERNAL, conflicts={"cue_sheets": 21}), "21 edits of cue_sheets"),
    ("FT163", at(Site.SUPABASE, used_bytes=9 * 2**30, disk_bytes=10 * 2**30), "9.0 GB of 10.0 GB"),
    ("FT101", silent(Site.EXTERNAL), "external does not answer: refused"),
    ("FT102", silent(Site.SUPABASE), "supabase does not answer"),
    ("FT103", signals(ends=Silent("no broker")), "no broker"),
    ("FT104", signals(connect=Silent("refused")), "Kafka Connect does not answer"),
    ("FT105", at(Site.SUPABASE, read_only=True), "supabase is read-only"),
    ("FT106", at(Site.SUPABASE, workers=[]), "no worker runs"),
    ("FT106", at(Site.SUPABASE, workers=[GONE]), "the last one was seen 100 s ago"),
    ("FT107", at(Site.SUPABASE, workers=[WORKER, GONE]), "host:2 has said nothing for 100 s"),
    (
        "FT110",
        signals(
            setup=SetupSignals([replace(FAULT, where="connect", what="connector c is paused")])
        ),
        "connector c is paused",
    ),
    (
        "FT111",
        signals(setup=SetupSignals([replace(FAULT, what="replication slot s does not exist")])),
        "replication slot s",
    ),
    (
        "FT112",
        at(Site.EXTERNAL, slots=[LOW]),
        "9.0 GB of External's log wait, 512.0 MB are left",
    ),
    ("FT113", at(Site.EXTERNAL, slots=[replace(SLOT, safe_bytes=None)]), "disk is full"),
    ("FT120", at(Site.SUPABASE, lags=[*lags(Site.SUPABASE), *LATE]), "later than 9.0 s"),
    ("FT121", at(Site.EXTERNAL, lags=STUCK[:1]), "stands still for 40 s"),
    ("FT123", at(Site.SUPABASE, outbox=7, outbox_seconds=60.0), "7 changes wait"),
    (
        "FT124",
        at(Site.SUPABASE, workers=[replace(WORKER, halted={"gfx": "flow gfx halted: x"})]),
        "flow gfx halted: x",
    ),
    (
        "FT130",
        at(Site.SUPABASE, waiting=[PARKED]),
        "3 changes are parked",
    ),
    (
        "FT131",
        at(Site.SUPABASE, waiting=[Waiting("gfx", "dead", 1, 3.0, "e")]),
        "1 changes are dead",
    ),
    ("FT140", signals(setup=SetupSignals([FAULT])), "trigger x does not exist"),
    (
        "FT141",
        signals(setup=SetupSignals(gaps=[OpenGap(Site.EXTERNAL, "gfx", "g")])),
        "external: g",
    ),
    (
        "FT142",
        signals(setup=SetupSignals([replace(FAULT, what="it has gone back in time: a backup")])),
        "gone back in time",
    ),
    (
        "FT150",
        at(Site.SUPABASE, runs=[OVERDUE]),
        "33 min ago",
    ),
    (
        "FT151",
        at(Site.SUPABASE, runs=[FAILING]),
        "failed 2 times: why",
    ),
    ("FT160", at(Site.EXTERNAL, skew_seconds=-30.0), "30 s behind supabase's"),
    (
        "FT161",
        at(Site.SUPABASE, workers=[replace(WORKER, way="polling", reason="refused")]),
        "look by themselves: refused",
    ),
    ("FT162", at(Site.EXTERNAL, connections=95), "95 of 100 connections"),
    ("FT170", signals(compared=Compared(5.0, {"gfx_hands": 2})), "2 rows of gfx_hands differ"),
    ("FT171", signals(compared=Compared(9_000.0, {})), "2 h ago"),
    ("FT180", signals(undelivered={"slack": "refused"}), "receiver slack: refused"),
]


@pytest.mark.parametrize(("code", "seen", "words_of_it"), TROUBLES)
def test_each_trouble_is_one_verdict_of_its_code(
    code: str, seen: Signals, words_of_it: str
) -> None:
    found_codes = {verdict.code.name for verdict in told(seen)}
    assert found_codes == {code}
    assert any(words_of_it in verdict.what for verdict in told(seen))


def test_every_code_can_be_found_and_is_told_of() -> None:
    assert {code for code, _, _ in TROUBLES} == set(CODES)


@pytest.mark.parametrize("name", CODES)
def test_codes_hide_behind_codes_that_there_are_and_not_behind_each_other(name: str) -> None:
    code = CODES[name]
    assert set(code.hidden_by) <= CODES.keys() - {name}
    assert not any(name in CODES[other].hidden_by for other in code.hidden_by)
    assert code.title and code.korean and code.hint and code.more


def test_a_site_that_is_away_hides_what_follows_there_and_nothing_of_the_other() -> None:
    away = silent(Site.EXTERNAL)
    seen = replace(
        away,
        sites={**away.sites, Site.SUPABASE: site(Site.SUPABASE, read_only=True)},
        setup=SetupSignals([FAULT, replace(FAULT, where="supabase", what="trigger y is gone")]),
    )
    assert [(v.code.name, v.site) for v in told(seen)] == [
        ("FT101", Site.EXTERNAL),
        ("FT140", Site.SUPABASE),
        ("FT105", Site.SUPABASE),
    ]


def test_a_right_that_is_missing_hides_no_flow_that_stands_still() -> None:
    drift = replace(FAULT, lost=False, flows=("cue_sheets",))
    sites = {each: site(each) for each in Site}
    sites[Site.EXTERNAL] = site(Site.EXTERNAL, lags=STUCK)
    found_now = told(signals(sites=sites, setup=SetupSignals([drift])))
    assert {v.code.name for v in found_now} == {"FT140", "FT121"}


def test_a_watcher_that_has_just_begun_tells_no_end_of_what_it_cannot_see() -> None:
    young = signals(beating_seconds=3.0, setup_seen=False)
    assert {"FT121", "FT110", "FT140"} <= blind(young, LIMITS)
    assert blind(signals(), LIMITS) == frozenset()
    days = Days()
    for _ in range(3):
        days.look(found("FT121", "gfx to supabase", "w", ("gfx",)))
    for _ in range(10):
        days.look(rules=Rules(blind=frozenset({"FT121"})))
    assert days.occasions == [Occasion.OPENED]
    for _ in range(3):
        days.look()
    assert days.occasions == [Occasion.OPENED, Occasion.OVER]


def test_what_has_waited_for_a_trouble_is_not_late_for_itself() -> None:
    sites = {each: site(each) for each in Site}
    others = [each for each in lags(Site.SUPABASE) if each.flow != "gfx"]
    sites[Site.SUPABASE] = site(Site.SUPABASE, lags=[*others, *LATE])
    assert told(signals(sites=sites, settled={"gfx": 20.0})) == []
    assert [v.code.name for v in told(signals(sites=sites, settled={"gfx": 200.0}))] == ["FT120"]


def test_what_any_login_can_write_is_one_short_line_without_markup() -> None:
    text = shown("a\x00b\n<!channel> <https://evil|x>" + "y" * 10_000)
    assert text.startswith("a b \u2039!channel\u203a") and len(text) < 600
    assert "<" not in text and "\x00" not in text


def test_connect_that_is_down_is_one_trouble_and_not_seven_lagging_flows() -> None:
    behind = [replace(each, heartbeat_seconds=100.0) for each in lags(Site.SUPABASE)]
    stopped = replace(FAULT, where="connect", what="connector c has no running task")
    seen = replace(
        at(Site.SUPABASE, lags=behind),
        connect=Silent("refused"),
        setup=SetupSignals([stopped]),
    )
    assert [verdict.code.name for verdict in told(seen)] == ["FT104"]
    assert len(judge(seen, FLOWS, "", LIMITS)) > 4


def test_a_flow_that_stands_still_for_five_minutes_is_critical() -> None:
    stuck = [replace(each, heartbeat_seconds=400.0) for each in STUCK]
    assert {v.severity for v in told(at(Site.EXTERNAL, lags=stuck))} == {Severity.CRITICAL}
    assert {v.severity for v in told(at(Site.EXTERNAL, lags=STUCK))} == {Severity.ERROR}


def test_what_waits_in_kafka_is_said_of_a_flow_that_stands_still() -> None:
    topic = Names(GFX).topics(Site.SUPABASE)[0]
    stuck = [
        replace(each, heartbeat_seconds=40.0) for each in lags(Site.SUPABASE) if each.flow == "gfx"
    ]
    rest = [each for each in lags(Site.SUPABASE) if each.flow != "gfx"]
    seen = replace(
        at(Site.SUPABASE, lags=[*stuck, *rest], applied={(topic, 0): 5}), ends={(topic, 0): 12}
    )
    (verdict,) = told(seen)
    assert "7 records to apply" in verdict.what


def test_a_worker_that_was_replaced_is_not_missed() -> None:
    after = replace(WORKER, since_seconds=50.0)
    assert told(at(Site.SUPABASE, workers=[after, GONE])) == []


# -- alerts


DEAD = found("FT131", "gfx to supabase", "1 changes are dead", ("gfx",))
AWAY = found("FT102", "supabase", "supabase does not answer", ("gfx",))


class Days:
    """Looks, one after the other, and what was told."""

    def __init__(self) -> None:
        self.now = NOW
        self.alerts: Sequence[Alert] = ()
        self.occasions: list[Occasion] = []

    def look(self, *verdicts: Verdict, after: float = 5.0, rules: Rules | None = None) -> AlertStep:
        self.now += timedelta(seconds=after)
        found_now = step(self.alerts, verdicts, self.now, rules or Rules())
        self.alerts = tuple(found_now.open.values())
        self.occasions += [telling.occasion for telling in found_now.tellings]
        return found_now


def test_a_trouble_is_told_once_when_it_lasts_and_once_when_it_is_over() -> None:
    days = Days()
    for _ in range(20):
        days.look(DEAD)
    assert days.occasions == [Occasion.OPENED]
    for _ in range(5):
        days.look()
    assert days.occasions == [Occasion.OPENED, Occasion.OVER]
    assert days.alerts == ()


def test_what_one_look_alone_has_seen_is_never_told() -> None:
    days = Days()
    days.look(DEAD)
    for _ in range(5):
        days.look()
    assert days.occasions == []


def test_what_gets_worse_is_told_again_though_somebody_is_at_it() -> None:
    days = Days()
    for _ in range(3):
        days.look(DEAD)
    days.alerts = [replace(alert, acknowledged_by="kim") for alert in days.alerts]
    days.look(replace(DEAD, severity=Severity.CRITICAL))
    assert days.occasions == [Occasion.OPENED, Occasion.WORSE]
    assert [alert.acknowledged_by for alert in days.alerts] == [""]


def test_it_is_told_again_after_a_while_unless_somebody_is_at_it() -> None:
    days = Days()
    for _ in range(3):
        days.look(DEAD)
    days.look(DEAD, after=3_700)
    assert days.occasions == [Occasion.OPENED, Occasion.AGAIN]
    days.alerts = [replace(alert, acknowledged_by="kim") for alert in days.alerts]
    days.look(DEAD, after=3_700)
    assert days.occasions == [Occasion.OPENED, Occasion.AGAIN]


def test_what_cannot_be_seen_is_neither_over_nor_told() -> None:
    days = Days()
    for _ in range(3):
        days.look(DEAD)
    for _ in range(10):
        days.look(AWAY)
    assert days.occasions == [Occasion.OPENED, Occasion.OPENED]
    days.look(DEAD)
    days.look(DEAD)
    days.look(DEAD)
    assert days.occasions == [Occasion.OPENED, Occasion.OPENED, Occasion.OVER]


def test_what_is_muted_is_kept_and_told_once_the_mute_is_over() -> None:
    days = Days()
    muted = Rules(mutes=[Mute("FT131", "", NOW + timedelta(minutes=10))])
    for _ in range(5):
        days.look(DEAD, rules=muted)
    assert days.occasions == [] and len(days.alerts) == 1
    days.look(DEAD, after=700, rules=muted)
    assert days.occasions == [Occasion.OPENED]


def test_off_air_only_what_is_critical_does_not_wait() -> None:
    days = Days()
    for _ in range(5):
        days.look(DEAD, AWAY, rules=Rules(on_air=False))
    assert days.occasions == [Occasion.OPENED]
    days.look(replace(DEAD, flows=("wsop",)), AWAY)


@pytest.mark.parametrize(
    ("moment", "off"),
    [
        (datetime(2026, 11, 30, 3, 0), True),  # a Monday
        (datetime(2026, 11, 30, 11, 0), False),
        (datetime(2026, 12, 1, 3, 0), False),
    ],
)
def test_hours_off_air(moment: datetime, off: bool) -> None:
    assert Hours(frozenset({0}), time(2), time(10)).cover(moment) is off


def test_hours_may_go_past_midnight() -> None:
    hours = Hours(frozenset({0}), time(22), time(4))
    assert hours.cover(datetime(2026, 11, 30, 23, 0))
    assert hours.cover(datetime(2026, 12, 1, 3, 0))
    assert not hours.cover(datetime(2026, 11, 30, 3, 0))


def test_of_two_stores_the_one_that_was_written_last_counts() -> None:
    old = Alert("FT131", "s", NOW, Severity.ERROR, "w", "c", (), NOW)
    new = replace(old, seen_at=NOW + timedelta(seconds=5), times=1)
    over = replace(new, closed_at=NOW + timedelta(seconds=9))
    assert list(newest([old], [new])) == [new]
    assert list(newest([over], [new])) == [over]


@given(st.lists(st.booleans(), max_size=60))
def test_whatever_comes_and_goes_each_end_is_of_something_that_was_told(seen: list[bool]) -> None:
    days = Days()
    for each in seen:
        days.look(*([DEAD] if each else []))
    begun = days.occasions.count(Occasion.OPENED)
    assert begun - days.occasions.count(Occasion.OVER) in (0, 1)
    assert all(a != b for a, b in zip(days.occasions, days.occasions[1:], strict=False))


# -- healing, words, lag


def test_a_connector_is_restarted_by_the_schedule() -> None:
    restarts, now, waits = Restarts(), NOW, []
    for _ in range(10):
        begun = now
        while not restarts.due(now):
            now += timedelta(minutes=1)
        waits.append((now - begun).total_seconds() / 60)
        restarts = restarts.done(now)
    assert waits == [0, 2, 6, 12, 20, 30, 42, 56, 60, 60]
    assert restarts.done(now + timedelta(hours=3)).count == 1


def test_a_message_is_short_and_says_what_to_do() -> None:
    days = Days()
    (telling,) = [t for _ in range(3) for t in days.look(DEAD).tellings]
    assert words.title(telling, "ko") == "[FT131] 오류: 적용할 수 없는 변경이 있습니다"
    assert words.title(telling, "en") == "[FT131] error: Changes are dead"
    assert words.body(telling, "ko", "https://page") == (
        "1 changes are dead\n조치: ftstream dead list\nhttps://page"
    )
    (over,) = [t for _ in range(5) for t in days.look().tellings]
    assert words.title(over, "ko").endswith("(복구됨)")
    assert words.body(over, "ko").startswith("gfx to supabase: ")


def test_the_morning_says_what_the_daily_checklist_asks() -> None:
    head, body = words.morning("ko", [], 0, "p50 12 ms, p99 80 ms", [], [])
    assert head == "[ftstream] 일일 점검: 이상 없음"
    assert "CDC 지연: p50 12 ms, p99 80 ms" in body
    assert "확인 필요" in words.morning("ko", ["gfx.hands STALE"], 2, "-", ["wsop.players"], [])[0]
    assert "확인 필요" in words.morning("ko", [], 0, "-", [], ["FT170"])[0]


def change(written: float, operation: Operation = Operation.UPDATE) -> Change:
    return Change("t", "i", operation, b"{}", False, "t", 0, 0, None, int(written * 1e6))


def test_lag_is_from_commit_to_write_over_the_last_minute() -> None:
    known = Lags()
    known.add([change(1_000.0 - each / 1000) for each in range(100)], now=1_000.0)
    found_lag = known.of_the_last_minute(1_010.0)
    assert found_lag is not None
    assert (found_lag.p50_ms, found_lag.p99_ms) == (48, 96)
    assert known.of_the_last_minute(1_100.0) is None


def test_rows_of_a_snapshot_have_no_lag() -> None:
    known = Lags()
    known.add([change(1.0, Operation.SNAPSHOT), change(1.0, Operation.REPAIR)], now=1_000.0)
    assert known.of_the_last_minute(1_000.0) is None


def test_numbers_are_said_as_people_say_them() -> None:
    assert [duration(each) for each in (5, 119, 120, 7_200)] == ["5 s", "119 s", "2 min", "2 h"]
    assert [size(each) for each in (10, 2**20, 3 * 2**29)] == ["10 B", "1.0 MB", "1.5 GB"]
