"""Records that anybody may have written: what is no change is told, and nothing else happens."""

from __future__ import annotations

import pytest

from ftstream.apply.merge import Reread, effects
from ftstream.messages.change import (
    LONGEST_KEY,
    Change,
    MalformedMessage,
    Operation,
    decode,
    heartbeat_time,
)

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


# As they came from Debezium 3.6.3, but for columns that are null.
ZERO = "00000000-0000-0000-0000-000000000000"
SOURCE = '"source":{"table":"gfx_players","txId":1008,"lsn":33328408,"ts_us":1795916973699004}'
IDENTITY_DEFAULT = (
    '{"before":{"id":"%s","player_hash":"","name":"","long_name":null,"total_hands_played":null},'
    f'"after":null,{SOURCE},"op":"d"}}'
)
IDENTITY_INDEX = (
    '{"before":{"id":"%s","player_hash":"h12","name":"","long_name":null,"total_hands_played":null},'
    f'"after":null,{SOURCE},"op":"d"}}'
)
IDENTITY_FULL = (
    '{"before":{"id":"%s","player_hash":"h12","name":"n","long_name":"","total_hands_played":0},'
    f'"after":null,{SOURCE},"op":"d"}}'
)
SOME_ID = "00000000-0000-0000-0000-000000000012"


def deleted(event: str, key: str) -> Change:
    change = decode("gfx_players", "gfx.gfx_players", 0, 1, key.encode(), (event % key).encode())
    assert change is not None
    return change


@pytest.mark.parametrize("event", [IDENTITY_DEFAULT, IDENTITY_FULL])
def test_delete_whose_key_the_log_holds_is_a_delete(event: str) -> None:
    change = deleted(event, SOME_ID)
    assert (change.operation, change.entity_id, change.instead) == (Operation.DELETE, SOME_ID, "")


def test_delete_whose_key_the_log_does_not_hold_is_no_delete_of_another_row() -> None:
    change = deleted(IDENTITY_INDEX, ZERO)
    assert effects([change]) == {("gfx_players", ZERO): Reread()}
    assert change.instead == "player_hash = h12"


def test_delete_of_a_row_whose_id_is_all_zero_asks_its_owner_and_is_not_told() -> None:
    change = deleted(IDENTITY_DEFAULT, ZERO)
    assert effects([change]) == {("gfx_players", ZERO): Reread()}
    assert change.instead == ""


@pytest.mark.parametrize("key", ["0", ""])
def test_key_of_another_type_that_the_log_does_not_hold_is_no_delete_either(key: str) -> None:
    assert deleted(IDENTITY_INDEX, key).operation is Operation.REPAIR


def test_delete_without_anything_of_its_row_is_read_as_it_is() -> None:
    change = decode(
        "gfx_players", "gfx.gfx_players", 0, 1, ZERO.encode(), b'{"op":"d","source":{}}'
    )
    assert change is not None and change.instead == ""
