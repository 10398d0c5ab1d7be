"""Random poker values: names, cards, amounts, and the document PokerGFX exports for a session."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, Final

import msgspec

# The largest real export is 819 KB as a file: about 900 KB as jsonb text and 1.0 MB as a string
# inside a JSON event, just below Kafka's default limit of 1 MiB.
LARGEST_EXPORT: Final = 820_000

# Every name here has broken some pipeline: quoting, escaping, width, normalization, direction.
DIFFICULT_NAMES: Final = (
    "김철수",
    "이세돌 9단",
    "정해진\u3000선수",
    "José Ignacio Barbero",
    "Jose\u0301 Decomposed",
    "Đorđe Nikolić-Štrbac",
    "Seán O'Brien",
    'Phil "The Magician" Laak',
    "back\\slash \\n \\N \\u0041",
    "tab\there",
    "two\nlines",
    "carriage\r\nreturn",
    "👩‍👩‍👧 🂡🂱 Ace",
    "𝔊𝔬𝔱𝔥𝔦𝔠 beyond the basic plane",
    "עומר שלום",
    "percent %s %(name)s $1",
    "{curly,braces}",
    "comma, semicolon; pipe| 'quote''d'",
    "null",
    " padded with spaces ",
    "<b>markup</b> & entity &amp;",
    "control \x01\x1f\x7f",
    "Bartholomew-Maximilian " + "van der " * 120 + "Long",
)
_FIRST = ("Min-jun", "Zoë", "Daniel", "Søren", "Xuan", "Adrián", "Liv", "민수", "Yuki", "Ella")
_LAST = (
    "Park",
    "Negreanu",
    "Müller",
    "Ivey",
    "Nguyễn",
    "Łukasz",
    "Hellmuth",
    "최",
    "Ødegård",
    "Cho",
)

_CARDS: Final = tuple(rank + suit for rank in "23456789TJQKA" for suit in "cdhs")
_EVENT_TYPES = ("FOLD", "CALL", "CHECK", "BET", "ALL IN", "BLIND", "BOARD CARD")
_YEAR_ONE: Final = datetime(1, 1, 1, tzinfo=UTC)
_encoder = msgspec.json.Encoder(decimal_format="number")


def encode(value: Any) -> str:
    """Return JSON text in which decimals keep their scale: Decimal("20.00") is 20.00."""
    return _encoder.encode(value).decode()


def player_name(rng: Random) -> str:
    """Return a difficult name one time in four, else an everyday one."""
    if rng.random() < 0.25:
        return rng.choice(DIFFICULT_NAMES)
    return f"{rng.choice(_FIRST)} {rng.choice(_LAST)} {rng.randrange(1000)}"


def long_name(rng: Random, name: str) -> str:
    """Return what stands in the second line of a seat: nothing, a title, or the name again."""
    return rng.choice(("", "", name, f"{name} (chip leader)", "\\", "“WSOP” 챔피언"))


def player_hash(name: str, long: str) -> str:
    """Return the importer's key for a player; trim() of PostgreSQL takes off spaces alone."""
    normal = f"{name.strip(' ').lower()}:{long.strip(' ').lower()}"
    return hashlib.md5(normal.encode(), usedforsecurity=False).hexdigest()


def cards(rng: Random, count: int) -> list[str]:
    return rng.sample(_CARDS, count)


def amount(rng: Random) -> int:
    """Return chips: mostly small, sometimes beyond 2^31, rarely beyond 2^53."""
    limit = rng.choices((50_000, 40_000_000, 9_000_000_000, 2**60), (70, 20, 9, 1))[0]
    return rng.randrange(limit)


def percent(rng: Random) -> Decimal:
    """Return a percentage with two decimals; aggression really does reach 600."""
    return rng.choice(
        (Decimal("0.00"), Decimal("20.00"), Decimal(rng.randrange(10_000)) / 100, Decimal(600))
    ).quantize(Decimal("0.01"))


def money(rng: Random) -> Decimal:
    """Return an amount for a numeric(12, 2)."""
    return Decimal(rng.randrange(rng.choice((1, 100_000, 10**12)))).scaleb(-2)


def recording_offset(start: datetime) -> tuple[str, int]:
    """Return how PokerGFX counts time, from year 1, as ISO 8601 text and as whole seconds."""
    offset = start - _YEAR_ONE
    minutes, seconds = divmod(offset.seconds, 60)
    fraction = f"{seconds}.{offset.microseconds:06d}7"
    iso = f"P{offset.days}DT{minutes // 60}H{minutes % 60}M{fraction}S"
    return iso, int(offset.total_seconds())


def blinds(rng: Random) -> dict[str, Any]:
    big = rng.choice((200, 1_000, 50_000, 3_000_000_000))
    return {
        "AnteType": rng.choice(("BB_ANTE", "NO_ANTE")),
        "BigBlindAmt": big,
        "BigBlindPlayerNum": rng.randint(1, 10),
        "BlindLevel": rng.randint(0, 40),
        "ButtonPlayerNum": rng.randint(1, 10),
        "SmallBlindAmt": big // 2,
        "SmallBlindPlayerNum": rng.randint(1, 10),
        "ThirdBlindAmt": 0,
        "ThirdBlindPlayerNum": 0,
    }


def exported_hand(rng: Random, number: int, start: datetime) -> bytes:
    """Return one hand as it stands in an export: 3 to 30 KB of JSON."""
    players = [_exported_player(rng, seat) for seat in range(1, rng.randint(3, 11))]
    iso, _ = recording_offset(start)
    return _encoder.encode(
        {
            "AnteAmt": rng.choice((0, 500)),
            "BetStructure": "NOLIMIT",
            "BombPotAmt": 0,
            "Description": rng.choice(("", 'bomb pot\n"double board"')),
            "Duration": f"PT{rng.randrange(60)}M{rng.randrange(60)}.{rng.randrange(10**7):07d}S",
            "Events": [_exported_event(rng, start) for _ in range(rng.randint(5, 120))],
            "FlopDrawBlinds": blinds(rng),
            "GameClass": "FLOP",
            "GameVariant": "HOLDEM",
            "HandNum": number,
            "NumBoards": 1,
            "Players": players,
            "RecordingOffsetStart": iso,
            "RunItNumTimes": 1,
            "StartDateTimeUTC": start.isoformat(),
            "StudLimits": {"BringInAmt": 0, "HighBetAmt": 0, "LowBetAmt": 0},
        }
    )


def export(
    session_id: int, table_type: str, title: str, created: datetime, hands: Sequence[bytes]
) -> str:
    """Return the whole document around hands that are encoded already."""
    document = {
        "CreatedDateTimeUTC": created.isoformat(),
        "EventTitle": title,
        "Hands": [msgspec.Raw(hand) for hand in hands],
        "ID": session_id,
        "Payouts": [0] * 10,
        "SoftwareVersion": "PokerGFX 3.2",
        "Type": table_type,
    }
    return encode(document)


def _exported_player(rng: Random, seat: int) -> dict[str, Any]:
    name = player_name(rng)
    return {
        "AggressionFrequencyPercent": percent(rng),
        "BlindBetStraddleAmt": 0,
        "CumulativeWinningsAmt": amount(rng) - amount(rng),
        "EliminationRank": -1,
        "EndStackAmt": amount(rng),
        "HoleCards": rng.choice(([""], [" ".join(cards(rng, 2)).lower()])),
        "LongName": long_name(rng, name),
        "Name": name,
        "PlayerNum": seat,
        "PreFlopRaisePercent": percent(rng),
        "SittingOut": rng.random() < 0.05,
        "StartStackAmt": amount(rng),
        "VPIPPercent": percent(rng),
        "WentToShowDownPercent": rng.random() * 100,
    }


def _exported_event(rng: Random, start: datetime) -> dict[str, Any]:
    kind = rng.choice(_EVENT_TYPES)
    at = start + timedelta(microseconds=rng.randrange(10**9))
    return {
        "BetAmt": amount(rng) if kind in ("BET", "CALL", "ALL IN") else 0,
        "BoardCards": cards(rng, 1)[0].lower() if kind == "BOARD CARD" else None,
        "BoardNum": 0,
        "DateTimeUTC": at.isoformat() if rng.random() < 0.8 else None,
        "EventType": kind,
        "NumCardsDrawn": 0,
        "PlayerNum": rng.randint(0, 10),
        "Pot": amount(rng),
    }
