"""Records that anybody may have written: what is no change is told, and nothing else happens."""

from __future__ import annotations

import pytest

from ftstream.core.change import LONGEST_KEY, MalformedMessage, decode, heartbeat_time

DEEP = b'{"op":"m","source":' + b"[" * 5_000 + b"]" * 5_000 + b"}"
GARBAGE = [b"", b"\x00\xff", b"null", b'{"op":"\xff","source":{"ts_ms":1}}', DEEP]


@pytest.mark.parametrize("value", GARBAGE, ids=range(len(GARBAGE)))
def test_what_is_no_event_is_malformed_and_no_heartbeat(value: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode("gfx_players", "gfx.gfx_players", 0, 0, b"key", value)
    assert heartbeat_time(value) is None


def test_heartbeat_tells_when_it_was_written() -> None:
    assert heartbeat_time(b'{"op":"m","source":{"ts_ms":1500}}') == 1.5
    assert heartbeat_time(b'{"op":"c","source":{"ts_ms":1500}}') is None


def test_key_is_bounded_in_bytes_as_an_index_is() -> None:
    event = b'{"op":"d","source":{}}'
    longest = b"k" * LONGEST_KEY
    assert decode("gfx_players", "gfx.gfx_players", 0, 0, longest, event) is not None
    with pytest.raises(MalformedMessage, match="cannot hold"):
        decode("gfx_players", "gfx.gfx_players", 0, 0, "패".encode() * 400, event)
