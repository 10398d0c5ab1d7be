"""The seeded play that the traffic performs: which operation comes next. Pure and endless.

The same seed gives the same operations: what earlier ones wrote is remembered in the world,
never read from a database.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ftstream.local.demo import plays, poker
from ftstream.local.demo.operations import PlayKind, PlayStatement, PlayTransaction
from ftstream.local.demo.world import World


@dataclass(frozen=True, slots=True)
class Card:
    """How often a play stands in each deck, and what it does."""

    count: int
    play: Callable[[World], list[PlayStatement] | None]


# Every kind is in every deck, so each of them comes round however the deck is shuffled.
DECK: Final[Mapping[PlayKind, Card]] = MappingProxyType(
    {
        PlayKind.SESSION_IMPORTED: Card(4, plays.import_session),
        PlayKind.SESSION_GREW: Card(4, plays.grow_session),
        PlayKind.SESSION_REIMPORTED: Card(2, plays.reimport_session),
        PlayKind.SESSION_REKEYED: Card(1, plays.rekey_session),
        PlayKind.SESSION_CORRECTED: Card(3, plays.correct_session),
        PlayKind.SESSION_DELETED: Card(1, plays.delete_session),
        PlayKind.TOTALS_RECOMPUTED: Card(8, plays.recompute_totals),
        PlayKind.FILE_HASHES_SWAPPED: Card(1, plays.swap_file_hashes),
        PlayKind.HAND_IMPORTED: Card(50, plays.import_hand),
        PlayKind.HAND_BEFORE_SESSION: Card(1, plays.import_hand_before_session),
        PlayKind.HAND_OVERWRITTEN: Card(2, plays.overwrite_hand),
        PlayKind.HAND_CORRECTED: Card(6, plays.correct_hand),
        PlayKind.HAND_DELETED: Card(2, plays.delete_hand),
        PlayKind.HAND_NUM_REUSED: Card(2, plays.reuse_hand_num),
        PlayKind.HANDS_RENUMBERED: Card(2, plays.renumber_hands),
        PlayKind.SEAT_CORRECTED: Card(4, plays.correct_seat),
        PlayKind.SEATS_SWAPPED_BY_FREE_SEAT: Card(2, plays.swap_seats_by_free_seat),
        PlayKind.SEATS_SWAPPED_BY_REINSERT: Card(2, plays.swap_seats_by_reinsert),
        PlayKind.PLAYER_RENAMED: Card(2, plays.rename_player),
        PlayKind.PLAYER_DELETED: Card(1, plays.delete_player),
        PlayKind.PLAYER_HASHES_SWAPPED: Card(1, plays.swap_player_hashes),
    }
)
DECK_SIZE: Final = sum(card.count for card in DECK.values())


class Script(Iterator[PlayTransaction]):
    """The operations of one seed, in order.

    large_every: one new export in so many is large: from a quarter of `largest` to all of it.
    largest: the size, in bytes of compact JSON, that no raw_json exceeds.
    """

    def __init__(
        self, seed: int, *, large_every: int = 20, largest: int = poker.LARGEST_EXPORT
    ) -> None:
        self._world = World(seed, large_every=large_every, largest=largest)
        self._deck: list[PlayKind] = []

    def __next__(self) -> PlayTransaction:
        """Play the top card; while it lacks what it needs it waits, and imports come first."""
        self._world.pass_time()
        if not self._deck:
            self._deck = self._shuffled()
        operation = self._try(self._deck[-1])
        if operation:
            self._deck.pop()
            return operation
        filler = (
            PlayKind.SESSION_IMPORTED if self._world.rng.random() < 0.3 else PlayKind.HAND_IMPORTED
        )
        return self._try(filler) or PlayTransaction(
            PlayKind.SESSION_IMPORTED, tuple(plays.import_session(self._world))
        )

    def _shuffled(self) -> list[PlayKind]:
        deck = [kind for kind, card in DECK.items() for _ in range(card.count)]
        self._world.rng.shuffle(deck)
        return deck

    def _try(self, kind: PlayKind) -> PlayTransaction | None:
        steps = DECK[kind].play(self._world)
        return PlayTransaction(kind, tuple(steps)) if steps else None
