"""A time in the past as people write it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from ftstream.cli.since import parse

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7_200), ("1d", 86_400), ("1w", 604_800)]
)
def test_how_long_ago(text: str, seconds: int) -> None:
    assert parse(text, NOW) == NOW - timedelta(seconds=seconds)


def test_iso_time_with_a_zone_means_that_moment() -> None:
    assert parse("2026-11-24T20:00:00.123456+09:00", NOW) == datetime(
        2026, 11, 24, 11, 0, 0, 123456, tzinfo=UTC
    )


def test_iso_time_without_a_zone_is_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Seoul")
    time.tzset()
    try:
        assert parse("2026-11-24 20:30", NOW) == datetime(2026, 11, 24, 11, 30, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "yesterday", "10", "10 m", "-5m", "1y", "12:30", "m"])
def test_what_is_no_time_is_refused_and_what_one_looks_like_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is no time: give an ISO time"):
        parse(text, NOW)


def test_time_in_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="lies in the future"):
        parse("2026-11-24T12:00:01+00:00", NOW)


def test_time_before_all_time_is_refused() -> None:
    with pytest.raises(ValueError, match="too far back"):
        parse("999999w", NOW)
