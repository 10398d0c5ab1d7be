"""The seeded play behind the demonstration's traffic."""

import json
import re
from collections import Counter
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftstream.local.demo import poker
from ftstream.local.demo.operations import (
    HandRow,
    PlayerRow,
    PlayKind,
    PlayTransaction,
    SeatRow,
    SessionRow,
)
from ftstream.local.demo.script import DECK, DECK_SIZE, Script
from ftstream.local.demo.traffic import QUERIES, Traffic

SMALL = 40_000  # exports small enough for many seeds
MAX_INT = 2**31 - 1

seeds = st.integers(min_value=0, max_value=2**64)


def play(seed: int, count: int, **options: int) -> list[PlayTransaction]:
    return list(islice(Script(seed, **options), count))


def written(operations: list[PlayTransaction], query: str) -> list[dict[str, Any]]:
    return [
        dict(row)
        for op in operations
        for step in op.steps
        if step.query == query
        for row in step.rows
    ]


@settings(max_examples=10)
@given(seed=seeds)
def test_the_same_seed_plays_the_same_operations(seed: int) -> None:
    assert play(seed, 60, largest=SMALL) == play(seed, 60, largest=SMALL)


def test_another_seed_plays_other_operations() -> None:
    assert play(1, 20, largest=SMALL) != play(2, 20, largest=SMALL)


def test_every_kind_of_operation_has_its_cards() -> None:
    assert set(DECK) == set(PlayKind)


@settings(max_examples=10)
@given(seed=seeds)
def test_every_kind_of_operation_comes_within_two_decks(seed: int) -> None:
    seen = Counter(op.kind for op in play(seed, 2 * DECK_SIZE, largest=SMALL))
    assert set(seen) == set(PlayKind)


@settings(max_examples=5)
@given(seed=seeds)
def test_each_step_names_a_statement_and_brings_the_values_it_takes(seed: int) -> None:
    for operation in play(seed, 2 * DECK_SIZE, largest=SMALL):
        assert operation.steps
        for step in operation.steps:
            placeholders = set(re.findall(r"%\((\w+)\)s", QUERIES[step.query]))
            assert step.rows
            assert all(placeholders <= set(row) for row in step.rows)


def test_every_statement_is_used() -> None:
    used = {step.query for op in play(3, 2 * DECK_SIZE, largest=SMALL) for step in op.steps}
    assert used == set(QUERIES) - {"seed_was_used"}


@pytest.mark.parametrize(
    ("query", "row"),
    [
        ("upsert_session", SessionRow),
        ("upsert_hand", HandRow),
        ("insert_seat", SeatRow),
        ("upsert_player", PlayerRow),
    ],
)
def test_a_row_has_exactly_the_columns_its_statement_writes(query: str, row: Any) -> None:
    placeholders = set(re.findall(r"%\((\w+)\)s", QUERIES[query]))
    assert {column.name for column in fields(row)} == placeholders


def test_exports_range_from_empty_to_the_largest_and_never_beyond() -> None:
    operations = play(5, 1500)
    sizes = sorted(
        len(row["raw_json"].encode())
        for query in ("upsert_session", "replace_export")
        for row in written(operations, query)
    )
    assert sizes[0] < 1_000
    assert sizes[-1] <= poker.LARGEST_EXPORT
    assert sizes[-1] > poker.LARGEST_EXPORT * 0.9
    assert sizes[len(sizes) // 2] < 100_000


@pytest.mark.parametrize("large_every", [1, 3])
def test_one_new_export_in_so_many_is_large(large_every: int) -> None:
    operations = [
        op
        for op in islice(Script(7, large_every=large_every), 150)
        if op.kind is PlayKind.SESSION_IMPORTED
    ]
    large = [len(row["raw_json"]) > 150_000 for row in written(operations, "upsert_session")]
    assert sum(large) == len(large) // large_every


def test_an_export_of_the_largest_size_stays_below_the_limit_of_a_message() -> None:
    rows = written(play(5, 1500), "upsert_session")
    largest = max((row["raw_json"] for row in rows), key=len)
    as_jsonb_text = json.dumps(json.loads(largest), ensure_ascii=False)
    assert len(json.dumps(as_jsonb_text, ensure_ascii=False).encode()) < 2**20


def test_an_export_has_the_structure_of_pokergfx_and_exact_numbers() -> None:
    text = max((row["raw_json"] for row in written(play(5, 100), "upsert_session")), key=len)
    export = json.loads(text, parse_float=Decimal)
    assert set(export) == {
        "CreatedDateTimeUTC", "EventTitle", "Hands", "ID", "Payouts", "SoftwareVersion", "Type"
    }  # fmt: skip
    assert float(export["ID"]) != export["ID"] or export["ID"] > 2**53
    assert {"Players", "Events", "FlopDrawBlinds"} <= set(export["Hands"][0])
    assert "20.00" in text


def test_sessions_hands_and_seats_stay_within_the_bounds_of_their_columns() -> None:
    operations = play(11, 600, largest=SMALL)
    for seat in written(operations, "insert_seat"):
        assert 1 <= seat["seat_num"] <= 10
        assert abs(seat["cumulative_winnings_amt"]) < 2**63
        assert 0 <= seat["aggression_frequency_percent"] <= 600
        assert len(seat["hand_description"] or "") <= 100
    for hand in written(operations, "upsert_hand"):
        assert 0 < hand["hand_num"] <= MAX_INT
        assert len(hand["winning_hand"] or "") <= 100
        assert 6.3e10 < (hand["recording_offset_seconds"] or 6.4e10) < 6.5e10
        assert "\x00" not in (hand["winner_name"] or "")


def test_columns_come_null_and_empty_and_filled() -> None:
    operations = play(13, 400, largest=SMALL)
    hands = written(operations, "upsert_hand")
    assert {None, ""} < {hand["description"] for hand in hands}
    assert {None, "{}", "null"} < {hand["blinds"] for hand in hands}
    boards = [hand["board_cards"] for hand in hands]
    assert all(some in boards for some in (None, [], [""], [None]))
    assert {hand["grade"] for hand in hands} == {None, "A", "B", "C", "D", "F"}
    seats = written(operations, "insert_seat")
    assert {len(list(hand_seats)) for hand_seats in _by_hand(seats).values()} == set(range(2, 11))
    assert None in {seat["player_hash"] for seat in seats}


def _by_hand(seats: list[dict[str, Any]]) -> dict[Any, set[int]]:
    hands: dict[Any, set[int]] = {}
    for seat in seats:
        hands.setdefault(seat["hand_id"], set()).add(seat["seat_num"])
    return hands


def test_every_difficult_name_sits_down_sooner_or_later() -> None:
    names = {row["name"] for row in written(play(17, 1500, largest=SMALL), "upsert_player")}
    assert set(poker.DIFFICULT_NAMES) <= names


def test_a_reimported_session_sends_the_same_file_under_a_new_id() -> None:
    rows: dict[int, dict[str, Any]] = {}
    changed = 0
    for operation in islice(Script(19, largest=SMALL), 400):
        for row in written([operation], "upsert_session"):
            before = rows.get(row["session_id"])
            if operation.kind is PlayKind.SESSION_REIMPORTED and before:
                changed += row["id"] != before["id"]
            rows[row["session_id"]] = row
    assert changed


def test_an_overwritten_hand_keeps_its_id_and_number_and_gets_new_seats() -> None:
    operations = play(23, 300, largest=SMALL)
    overwritten = [op for op in operations if op.kind is PlayKind.HAND_OVERWRITTEN]
    imported = {(row["session_id"], row["hand_num"]) for row in written(operations, "upsert_hand")}
    for operation in overwritten:
        (hand,) = written([operation], "upsert_hand")
        assert (hand["session_id"], hand["hand_num"]) in imported
        assert {seat["hand_id"] for seat in written([operation], "insert_seat")} == {hand["id"]}


def test_the_hash_of_a_player_is_that_of_the_trimmed_lower_case_names() -> None:
    assert poker.player_hash(" KIM ", 'The "K" ') == poker.player_hash("kim", 'the "k"')
    assert poker.player_hash("Kim", "") == "36641c005c1f5c7ab9068693ae5a8804"  # md5('kim:')


def test_recording_offset_counts_from_year_one() -> None:
    iso, seconds = poker.recording_offset(datetime(2025, 10, 16, 16, 3, 20, tzinfo=UTC))
    assert iso == "P739539DT16H3M20.0000007S"
    assert seconds == 739539 * 86400 + 16 * 3600 + 3 * 60 + 20


@given(seed=seeds)
def test_encoded_decimals_keep_their_scale(seed: int) -> None:
    value = poker.percent(Random(seed))
    assert poker.encode({"n": value}) == f'{{"n":{value}}}'


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_that_is_not_positive_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate must be above 0"):
        Traffic(1, "", rate)
