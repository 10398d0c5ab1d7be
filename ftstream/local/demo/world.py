"""What the play remembers of the rows it wrote, bounded however long it runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final, TypeVar

from ftstream.local.demo import poker
from ftstream.local.demo.operations import HandRow, PlayerRow, SeatRow, SessionRow

T = TypeVar("T")

SESSIONS_KEPT: Final = 12
HANDS_KEPT: Final = 40
PLAYERS_KEPT: Final = 300
_START: Final = datetime(2026, 1, 5, 18, 30, tzinfo=UTC)
_FIRST_SESSION_ID: Final = 638_000_000_000_000_000  # .NET ticks, as PokerGFX numbers sessions
_SMALL_EXPORTS: Final = (0, 4_000, 20_000, 60_000)


@dataclass(slots=True)
class Hand:
    row: HandRow
    seats: list[SeatRow]


@dataclass(slots=True)
class Session:
    session_id: int
    row: SessionRow | None = None  # None while only its hands have come
    exported: list[bytes] = field(default_factory=list)
    hands: list[Hand] = field(default_factory=list)
    last_hand_num: int = 0


class World:
    """Sessions, hands and players that later operations may still touch; the latest ones."""

    def __init__(self, seed: int, *, large_every: int, largest: int) -> None:
        self.rng = Random(seed)
        self.now = _START
        self.largest = largest
        self.sessions: list[Session] = []
        self.players: dict[str, PlayerRow] = {}
        self._large_every = large_every
        self._exports = 0

    def pass_time(self) -> None:
        self.now += timedelta(microseconds=self.rng.randrange(1, 60_000_000))

    def open_session(self) -> Session:
        """Begin a session under a new number, forgetting the oldest beyond the bound."""
        session = Session(_FIRST_SESSION_ID + self.rng.randrange(10**16))
        self.sessions.append(session)
        del self.sessions[:-SESSIONS_KEPT]
        return session

    def imported_sessions(self) -> list[Session]:
        return [session for session in self.sessions if session.row is not None]

    def any_hand(self) -> tuple[Session, Hand] | None:
        hands = [(session, hand) for session in self.sessions for hand in session.hands]
        return self.rng.choice(hands) if hands else None

    def keep_hand(self, session: Session, hand: Hand) -> None:
        session.hands.append(hand)
        del session.hands[:-HANDS_KEPT]

    def keep_player(self, player: PlayerRow) -> None:
        self.players[player.player_hash] = player
        if len(self.players) > PLAYERS_KEPT:
            del self.players[self.pick(tuple(self.players))]

    def pick(self, among: Sequence[T]) -> T:
        return self.rng.choice(among)

    def export_hands(self) -> list[bytes]:
        """Return the hands of a new export; one export in `large_every` is a large one."""
        self._exports += 1
        if self._exports % self._large_every:
            return self.more_hands([], self.pick(_SMALL_EXPORTS))
        quarter = self.largest // 4
        return self.more_hands(
            [], self.pick((self.rng.randrange(quarter, 4 * quarter), 4 * quarter))
        )

    def more_hands(self, hands: list[bytes], room: int) -> list[bytes]:
        """Return the hands with more after them, up to `room` bytes in all."""
        grown = list(hands)
        size = sum(map(len, grown)) + 1_000  # what an export holds besides its hands
        while True:
            hand = poker.exported_hand(self.rng, len(grown) + 1, self.now)
            size += len(hand) + 1
            if size > room:
                return grown
            grown.append(hand)
