"""The worker's log: ftstream's lines, the libraries' troubles once, and no story told twice."""

from __future__ import annotations

import logging
from types import TracebackType

from ftstream.failures import Halted
from ftstream.logs import OneLine, logging_config

Info = tuple[type[BaseException], BaseException, TracebackType | None]


def kept(keep: OneLine, name: str, message: str, error: BaseException | None = None) -> bool:
    info: Info | None = (type(error), error, None) if error else None
    record = logging.LogRecord(name, logging.ERROR, __file__, 1, message, (), info)
    return keep.filter(record)


def test_what_halts_is_left_to_ftstream_to_tell() -> None:
    keep = OneLine()
    assert not kept(keep, "mode.worker", "Crashed reason=...", Halted("x"))
    assert kept(keep, "ftstream.app", "stopped: x")


def test_unexpected_error_keeps_its_traceback_once() -> None:
    keep, error = OneLine(), RuntimeError("odd")
    assert kept(keep, "faust.agents.agent", "Crashed", error)
    assert not kept(keep, "mode.worker", "Crashed", error)
    assert kept(keep, "mode.worker", "Crashed", RuntimeError("another"))


def test_rebalances_are_no_trouble() -> None:
    keep = OneLine()
    assert not kept(keep, "aiokafka.consumer", "Heartbeat failed because it is rebalancing")
    assert kept(keep, "aiokafka.consumer", "Unable to connect to broker")


def test_library_that_tries_again_and_again_is_heard_once_a_minute() -> None:
    keep = OneLine()

    def says(seconds: float, partition: int) -> bool:
        record = logging.LogRecord("aiokafka", 40, "", 1, "cannot fetch %s", (partition,), None)
        record.created = seconds
        return keep.filter(record)

    assert [says(second, second) for second in (0, 1, 30, 61, 62)] == [
        *(True, False, False, True, False)
    ]


def test_level_is_that_of_ftstreams_own_lines() -> None:
    for level in ("debug", "info", "warning", "error"):
        config = logging_config(level)
        assert config["loggers"]["ftstream"]["level"] == level.upper()
        assert config["root"]["level"] == ("INFO" if level == "debug" else "WARNING")
