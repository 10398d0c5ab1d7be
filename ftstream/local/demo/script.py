"""The seeded play that the traffic performs: which operation comes next. Pure and endless.

The same seed gives the same operations: what earlier ones wrote is remembered in the world,
never read from a database.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ftstream.local.demo import plays, poker
from ftstream.local.demo.operations import Kind, Operation, Step
from ftstream.local.demo.world import World


@dataclass(frozen=True, slots=True)
class Card:
    """How often a play stands in each deck, and what it does."""

    count: int
    play: Callable[[World], list[Step] | None]


# Every kind is in every deck, so each of them comes round however the deck is shuffled.
DECK: Final[Mapping[Kind, Card]] = MappingProxyType(
    {
        Kind.SESSION_IMPORTED: Card(4, plays.import_session),
        Kind.SESSION_GREW: Card(4, plays.grow_session),
        Kind.SESSION_REIMPORTED: Card(2, plays.reimport_session),
        Kind.SESSION_REKEYED: Card(1, plays.rekey_session),
        Kind.SESSION_CORRECTED: Card(3, plays.correct_session),
        Kind.SESSION_DELETED: Card(1, plays.delete_session),
        Kind.TOTALS_RECOMPUTED: Card(8, plays.recompute_totals),
        Kind.FILE_HASHES_SWAPPED: Card(1, plays.swap_file_hashes),
        Kind.HAND_IMPORTED: Card(50, plays.import_hand),
        Kind.HAND_BEFORE_SESSION: Card(1, plays.import_hand_before_session),
        Kind.HAND_OVERWRITTEN: Card(2, plays.overwrite_hand),
        Kind.HAND_CORRECTED: Card(6, plays.correct_hand),
        Kind.HAND_DELETED: Card(2, plays.delete_hand),
        Kind.HAND_NUM_REUSED: Card(2, plays.reuse_hand_num),
        Kind.HANDS_RENUMBERED: Card(2, plays.renumber_hands),
        Kind.SEAT_CORRECTED: Card(4, plays.correct_seat),
        Kind.SEATS_SWAPPED_BY_FREE_SEAT: Card(2, plays.swap_seats_by_free_seat),
        Kind.SEATS_SWAPPED_BY_REINSERT: Card(2, plays.swap_seats_by_reinsert),
        Kind.PLAYER_RENAMED: Card(2, plays.rename_player),
        Kind.PLAYER_DELETED: Card(1, plays.delete_player),
        Kind.PLAYER_HASHES_SWAPPED: Card(1, plays.swap_player_hashes),
    }
)
DECK_SIZE: Final = sum(card.count for card in DECK.values())


class Script(Iterator[Operation]):
    """The operations of one seed, in order.

    large_every: one new export in so many is large: from a quarter of `largest` to all of it.
    largest: the size, in bytes of compact JSON, that no raw_json exceeds.
    """

    def __init__(
        self, seed: int, *, large_every: int = 20, largest: int = poker.LARGEST_EXPORT
    ) -> None:
        self._world = World(seed, large_every=large_every, largest=largest)
        self._deck: list[Kind] = []

    def __next__(self) -> Operation:
        """Play the top card; while it lacks what it needs it waits, and imports come first."""
        self._world.pass_time()
        if not self._deck:
            self._deck = self._shuffled()
        operation = self._try(self._deck[-1])
        if operation:
            self._deck.pop()
            return operation
        filler = Kind.SESSION_IMPORTED if self._world.rng.random() < 0.3 else Kind.HAND_IMPORTED
        return self._try(filler) or Operation(
            Kind.SESSION_IMPORTED, tuple(plays.import_session(self._world))
        )

    def _shuffled(self) -> list[Kind]:
        deck = [kind for kind, card in DECK.items() for _ in range(card.count)]
        self._world.rng.shuffle(deck)
        return deck

    def _try(self, kind: Kind) -> Operation | None:
        steps = DECK[kind].play(self._world)
        return Operation(kind, tuple(steps)) if steps else None
