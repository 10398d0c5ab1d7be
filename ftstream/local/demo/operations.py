"""What the traffic writes, as data: rows, named statements with their values, operations."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID


class PlayKind(StrEnum):
    """Everything that happens to the gfx tables, each in a transaction of its own."""

    SESSION_IMPORTED = "session_imported"
    SESSION_GREW = "session_grew"
    SESSION_REIMPORTED = "session_reimported"
    SESSION_REKEYED = "session_rekeyed"
    SESSION_CORRECTED = "session_corrected"
    SESSION_DELETED = "session_deleted"
    TOTALS_RECOMPUTED = "totals_recomputed"
    FILE_HASHES_SWAPPED = "file_hashes_swapped"
    HAND_IMPORTED = "hand_imported"
    HAND_BEFORE_SESSION = "hand_before_session"
    HAND_OVERWRITTEN = "hand_overwritten"
    HAND_CORRECTED = "hand_corrected"
    HAND_DELETED = "hand_deleted"
    HAND_NUM_REUSED = "hand_num_reused"
    HANDS_RENUMBERED = "hands_renumbered"
    SEAT_CORRECTED = "seat_corrected"
    SEATS_SWAPPED_BY_FREE_SEAT = "seats_swapped_by_free_seat"
    SEATS_SWAPPED_BY_REINSERT = "seats_swapped_by_reinsert"
    PLAYER_RENAMED = "player_renamed"
    PLAYER_DELETED = "player_deleted"
    PLAYER_HASHES_SWAPPED = "player_hashes_swapped"


@dataclass(frozen=True, slots=True)
class PlayStatement:
    """A statement of traffic.sql by name, run once for each row of values."""

    query: str
    rows: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class PlayTransaction:
    """Steps that belong to one transaction, which may be repeated if its commit was lost."""

    kind: PlayKind
    steps: tuple[PlayStatement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayerRow:
    id: UUID
    player_hash: str
    name: str
    long_name: str | None
    total_sessions: int
    seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    id: UUID
    session_id: int
    file_name: str
    file_hash: str
    nas_path: str | None
    table_type: str
    event_title: str | None
    software_version: str | None
    payouts: list[int] | None
    hand_count: int
    session_created_at: datetime
    session_start_time: datetime | None
    raw_json: str
    sync_status: str
    sync_error: str | None
    processed_at: datetime
    grade_summary: str
    avg_hand_duration: timedelta | None
    import_status: str
    import_errors: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HandRow:
    id: UUID
    session_id: int
    hand_num: int
    game_variant: str
    game_class: str
    bet_structure: str
    duration_seconds: int
    start_time: datetime
    recording_offset_iso: str | None
    recording_offset_seconds: int | None
    num_boards: int
    run_it_num_times: int
    ante_amt: int | None
    bomb_pot_amt: int | None
    description: str | None
    blinds: str | None
    stud_limits: str | None
    pot_size: int
    player_count: int
    showdown_count: int
    board_cards: list[str | None] | None
    winner_name: str | None
    winner_seat: int | None
    grade: str | None
    is_premium: bool
    is_showdown: bool | None
    grade_factors: str | None
    flop_cards: str | None
    turn_card: str | None
    river_card: str | None
    winning_hand: str | None
    winning_hand_rank: str | None
    winning_rank_value: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatRow:
    """A seat names its player by hash: which id that player has, the database knows."""

    id: UUID
    hand_id: UUID
    player_hash: str | None
    seat_num: int
    player_name: str
    hole_cards: list[str] | None
    has_shown: bool
    start_stack_amt: int
    end_stack_amt: int
    cumulative_winnings_amt: int
    blind_bet_straddle_amt: int
    sitting_out: bool
    elimination_rank: int
    is_winner: bool
    vpip_percent: Decimal
    preflop_raise_percent: Decimal
    aggression_frequency_percent: Decimal
    went_to_showdown_percent: Decimal | None
    hole_cards_normalized: str | None
    hole_card_1: str | None
    hole_card_2: str | None
    hole_card_3: str | None
    hole_card_4: str | None
    hand_description: str | None
    hand_rank: str | None
    rank_value: int | None
    won_amount: Decimal
    total_bet_amount: Decimal
    is_eliminated: bool


Row = PlayerRow | SessionRow | HandRow | SeatRow


def write(query: str, *rows: Row) -> PlayStatement:
    """A step that writes whole rows."""
    return PlayStatement(query, tuple(_values(row) for row in rows))


def call(query: str, **values: Any) -> PlayStatement:
    """A step that runs once, with these values."""
    return PlayStatement(query, (values,))


def _values(row: Row) -> Mapping[str, Any]:
    # Not asdict: it copies every value deeply, and rows are never changed.
    return {column.name: getattr(row, column.name) for column in fields(row)}
