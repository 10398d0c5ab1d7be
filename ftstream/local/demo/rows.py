"""Random rows of the gfx tables, their columns in all the states that production shows."""

import hashlib
from datetime import datetime, timedelta
from random import Random
from typing import Final
from uuid import UUID

from ftstream.local.demo import poker
from ftstream.local.demo.operations import HandRow, PlayerRow, SeatRow, SessionRow

TABLE_TYPES: Final = ("FEATURE_TABLE", "MAIN_TABLE", "FINAL_TABLE", "SIDE_TABLE", "UNKNOWN")
_GAMES: Final = (
    *(("HOLDEM", "FLOP", "NOLIMIT"),) * 6,
    ("OMAHA", "FLOP", "POTLIMIT"),
    ("OMAHA_HILO", "FLOP", "LIMIT"),
    ("STUD", "STUD", "LIMIT"),
    ("STUD_HILO", "STUD", "SPREAD_LIMIT"),
    ("RAZZ", "STUD", "LIMIT"),
    ("DRAW", "DRAW", "NOLIMIT"),
    ("MIXED", "MIXED", "LIMIT"),
)
_RANKS: Final = ("High Card", "Pair", "Two Pair", "Flush", "풀하우스", "", None)
_DESCRIPTIONS: Final = (
    None,
    "",
    "",
    "run it twice",
    'said "all in"\nthen \\folded\\',
    "{}",
    "NULL",
)


def new_id(rng: Random) -> UUID:
    return UUID(int=rng.getrandbits(128), version=4)


def player_row(rng: Random, at: datetime) -> PlayerRow:
    name = poker.player_name(rng)
    long = poker.long_name(rng, name)
    return PlayerRow(
        id=new_id(rng),
        player_hash=poker.player_hash(name, long),
        name=name,
        long_name=long,
        total_sessions=rng.randrange(20),
        seen_at=at,
    )


def session_row(rng: Random, session_id: int, at: datetime, hands: list[bytes]) -> SessionRow:
    """Return a session whose export holds these hands, each encoded already."""
    table_type = rng.choice(TABLE_TYPES)
    title = rng.choice(("WSOP Super Circuit Cyprus", '2025 WSOP 메인 이벤트 "Day 2"', ""))
    document = poker.export(session_id, table_type, title, at, hands)
    return SessionRow(
        id=new_id(rng),
        session_id=session_id,
        file_name=f"PGFX_live_data_export GameID={session_id}.json",
        file_hash=hashlib.sha256(document.encode()).hexdigest(),
        nas_path=rng.choice((None, "", f"\\\\nas\\gfx\\피쳐 테이블\\{session_id}.json")),
        table_type=table_type,
        event_title=rng.choice((title, None)),
        software_version="PokerGFX 3.2",
        payouts=rng.choice((None, [], [0] * 10, [1_000_000_000, 250_000, 0])),
        hand_count=len(hands),
        session_created_at=at,
        session_start_time=rng.choice((None, at)),
        raw_json=document,
        sync_status=rng.choice(("pending", "synced")),
        sync_error=None,
        processed_at=at,
        grade_summary=poker.encode({"A": rng.randrange(9), "mean": poker.percent(rng)}),
        avg_hand_duration=rng.choice((None, timedelta(microseconds=rng.randrange(10**10)))),
        import_status=rng.choice(("complete", "partial")),
        import_errors=rng.choice(("[]", '[{"hand": 7, "why": "duplicate \\"HandNum\\""}]')),
    )


def hand_row(rng: Random, session_id: int, number: int, at: datetime, seats: int) -> HandRow:
    variant, game_class, structure = rng.choice(_GAMES)
    iso, offset = poker.recording_offset(at)
    board = poker.cards(rng, 5)
    seen = rng.choice((0, 3, 4, 5))
    boards: tuple[list[str | None] | None, ...] = (None, [], [""], [None], [*board[:seen]])
    timed = rng.random() < 0.9
    return HandRow(
        id=new_id(rng),
        session_id=session_id,
        hand_num=number,
        game_variant=variant,
        game_class=game_class,
        bet_structure=structure,
        duration_seconds=rng.randrange(1200),
        start_time=at,
        recording_offset_iso=iso if timed else rng.choice((None, "")),
        recording_offset_seconds=offset if timed else None,
        num_boards=rng.choice((1, 1, 1, 2)),
        run_it_num_times=rng.choice((1, 1, 1, 2)),
        ante_amt=rng.choice((0, 500, None)),
        bomb_pot_amt=rng.choice((0, 0, 10_000, None)),
        description=rng.choice(_DESCRIPTIONS),
        blinds=rng.choice((None, "{}", "null", poker.encode(poker.blinds(rng)))),
        stud_limits=rng.choice((None, "{}", '{"BringInAmt": 20.00, "LowBetAmt": 0.10}')),
        pot_size=poker.amount(rng),
        player_count=seats,
        showdown_count=rng.randrange(seats + 1),
        board_cards=rng.choice(boards),
        winner_name=rng.choice((None, "", poker.player_name(rng))),
        winner_seat=rng.choice((None, rng.randint(1, seats))),
        grade=rng.choice((None, "A", "B", "C", "D", "F")),
        is_premium=rng.random() < 0.1,
        is_showdown=rng.choice((True, False, None)),
        grade_factors=rng.choice((None, "{}", '{"pot": 600.00, "drama": [1.0, 2.50, -0.0]}')),
        flop_cards=rng.choice((None, "null", "[]", poker.encode(board[:3]))) if seen else None,
        turn_card=board[3] if seen > 3 else rng.choice((None, "")),
        river_card=board[4] if seen > 4 else None,
        winning_hand=rng.choice((None, "", "Ace-high flush, ♠", "é" * 100)),
        winning_hand_rank=rng.choice(_RANKS),
        winning_rank_value=rng.choice((None, rng.randrange(1, 7463))),
    )


def seat_row(rng: Random, hand_id: UUID, seat: int, player: PlayerRow) -> SeatRow:
    held = poker.cards(rng, rng.choice((2, 4)))
    shown = rng.random() < 0.4
    known = (*held, None, None) if shown else (None, None, "", None)
    return SeatRow(
        id=new_id(rng),
        hand_id=hand_id,
        # A guest whom the importer could not match has a seat and no player.
        player_hash=None if rng.random() < 0.05 else player.player_hash,
        seat_num=seat,
        player_name=player.name,
        hole_cards=held if shown else rng.choice((None, [], [""])),
        has_shown=shown,
        start_stack_amt=poker.amount(rng),
        end_stack_amt=poker.amount(rng),
        cumulative_winnings_amt=poker.amount(rng) - poker.amount(rng),
        blind_bet_straddle_amt=rng.choice((0, 200)),
        sitting_out=rng.random() < 0.05,
        elimination_rank=rng.choice((-1, -1, -1, 9)),
        is_winner=rng.random() < 0.2,
        vpip_percent=poker.percent(rng),
        preflop_raise_percent=poker.percent(rng),
        aggression_frequency_percent=poker.percent(rng),
        went_to_showdown_percent=rng.choice((None, poker.percent(rng))),
        hole_cards_normalized=rng.choice((None, "", "AKs", "QQ")),
        hole_card_1=known[0],
        hole_card_2=known[1],
        hole_card_3=known[2],
        hole_card_4=known[3],
        hand_description=rng.choice((None, "", "Pair of 8s — kicker “A”")),
        hand_rank=rng.choice(_RANKS),
        rank_value=rng.choice((None, rng.randrange(1, 7463))),
        won_amount=poker.money(rng),
        total_bet_amount=poker.money(rng),
        is_eliminated=rng.random() < 0.02,
    )
