"""Two sites that give each other their writes, late and again, and refuse what cannot stand: a model.

Rows have two unique columns and may refer to each other. last_write/refusal.py and last_write/rule.py decide;
here is what surrounds them: people who write, channels that delay each row by itself and repeat themselves,
changes that are parked and tried again, alone or with those that they wait for.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec

from ftstream.last_write.refusal import InTheWay, Refuse, Wait, decide
from ftstream.messages.change import Change, Operation, Refusal, Stamp
from tests.register import LastWrite, prevails, refused, written

SITES = ("external", "supabase")
TABLE = "sheets"
MOST_STEPS = 5_000


class Row(NamedTuple):
    """A row: two unique values, and the row that it refers to."""

    a: int
    b: int
    parent: int | None = None


@dataclass
class Place:
    """One site."""

    name: str
    rows: dict[int, Row]
    last: dict[int, LastWrite]
    parked: dict[int, Change] = field(default_factory=dict)
    inbox: dict[int, deque[Change]] = field(default_factory=lambda: defaultdict(deque))
    asked: set[tuple[int, Stamp]] = field(default_factory=set)
    edited: dict[int, int] = field(default_factory=dict)
    """When a person wrote the row last, in steps of the world."""

    def check(self) -> None:
        """As the database does."""
        for column in (0, 1):
            values = [row[column] for row in self.rows.values()]
            assert len(set(values)) == len(values), "a unique value twice"
        assert all(r.parent is None or r.parent in self.rows for r in self.rows.values())


class World:
    """Both sites, and what happens to them by a seed."""

    def __init__(self, seed: int, mode: str, skew: int = 0, *, rows: int = 6, values: int = 9):
        """`mode`: who writes what, `one` site, each its own (`disjoint`), or `both` everything."""
        self.chance = random.Random(f"{seed} {mode} {skew} {rows} {values}")
        self.mode, self.skew, self.most, self.values = mode, skew, rows + 4, values
        self.clock = 10_000
        self.counts: Counter[str] = Counter()
        start = {number: Row(number, number) for number in range(rows)}
        old = {number: LastWrite(Stamp(0, SITES[0]), Operation.INSERT) for number in start}
        self.places = tuple(Place(name, dict(start), dict(old)) for name in SITES)
        self.images: dict[int, set[Row | None]] = {n: {row} for n, row in start.items()}
        self.writers: dict[int, set[str]] = defaultdict(set)
        self.left: dict[int, Row | None] = {}
        self.numbers = iter(range(10**9))
        self.made_at: dict[tuple[int, Stamp], int] = {}

    # -- what people do

    def act(self) -> None:
        place = self.places[0 if self.mode == "one" else self.chance.randrange(2)]
        here = {number: row for number, row in place.rows.items() if self._own(place, number)}
        new = [n for n in range(self.most) if self._own(place, n) and n not in place.rows]
        column = self.chance.choice(("a", "b"))
        free = {c: self._free(place, c) for c in ("a", "b")}
        known = sorted(here)
        kind = self.chance.choices(
            ("delete", "swap", "cycle", "move", "insert", "take over", "refer"),
            (2, 4, 2, 3, 4, 2, 3),
        )[0]
        match kind:
            case "delete":
                parents = {row.parent for row in place.rows.values()}
                if gone := [number for number in known if number not in parents]:
                    self.write(place, {self.chance.choice(gone): None})
            case "swap" | "cycle" if len(known) >= 3:
                ring = self.chance.sample(known, 2 if kind == "swap" else 3)
                values = [getattr(here[number], column) for number in ring]
                moved = zip(ring, values[1:] + values[:1], strict=True)
                self.write(place, {n: here[n]._replace(**{column: v}) for n, v in moved})
            case "move" if known and free[column]:
                number = self.chance.choice(known)
                value = self.chance.choice(free[column])
                self.write(place, {number: here[number]._replace(**{column: value})})
            case "insert" if new and free["a"] and free["b"]:
                parent = self.chance.choice(known) if known and self.chance.random() < 0.4 else None
                row = Row(self.chance.choice(free["a"]), self.chance.choice(free["b"]), parent)
                self.write(place, {self.chance.choice(new): row})
            case "take over" if new and known and free["a"] and free["b"]:
                # A new row takes the place of one that moves, and refers to it.
                comer, mover = self.chance.choice(new), self.chance.choice(known)
                row = Row(here[mover].a, self.chance.choice(free["b"]))
                moved_to = here[mover]._replace(a=self.chance.choice(free["a"]), parent=comer)
                self.write(place, {comer: row, mover: moved_to})
            case "refer" if known:
                child = self.chance.choice(known)
                others = [n for n in known if n != child and here[n].parent != child]
                parent = self.chance.choice([*others, None])
                self.write(place, {child: here[child]._replace(parent=parent)})

    def _own(self, place: Place, number: int) -> bool:
        return self.mode != "disjoint" or number % 2 == SITES.index(place.name)

    def _free(self, place: Place, column: str) -> list[int]:
        taken = {getattr(row, column) for row in place.rows.values()}
        return [v for v in range(self.values) if self._own(place, v) and v not in taken]

    def write(self, place: Place, rows: dict[int, Row | None]) -> None:
        """One transaction of a person."""
        self.clock += 1
        ahead = self.skew if place.name == SITES[1] else 0
        for number, row in rows.items():
            operation = _operation(place.rows.get(number), row)
            _put(place, number, row)
            last = written(place.last.get(number), operation, self.clock + ahead, place.name)
            place.last[number] = last
            place.edited[number] = self.clock
            self.images.setdefault(number, set()).add(row)
            self.writers[number].add(place.name)
            self.left[number] = row
            self.send(place, self.change(number, last.stamp, row))
        place.check()

    # -- what travels

    def change(
        self,
        number: int,
        stamp: Stamp,
        row: Row | None,
        *,
        yields: bool = False,
        refusal: Refusal | None = None,
    ) -> Change:
        return Change(
            TABLE,
            str(number),
            Operation.DELETE if row is None else Operation.UPDATE,
            None if row is None else msgspec.json.encode(row),
            False,
            "",
            0,
            next(self.numbers),
            None,
            self.clock,
            version=stamp.version,
            site=stamp.site,
            yields=yields,
            refusal=refusal,
        )

    def send(self, place: Place, change: Change) -> None:
        queue = self._other(place).inbox[int(change.entity_id)]
        queue.append(change)
        if self.chance.random() < 0.1:  # Connect was killed, and sends once more what it had sent
            queue.extend([*queue][-self.chance.randrange(1, 4) :])

    def _other(self, place: Place) -> Place:
        return self.places[1 - SITES.index(place.name)]

    # -- how it is applied

    def step(self, place: Place) -> None:
        """Try what is parked, and take in one change."""
        for number in list(place.parked):
            if number in place.parked:
                self.attempt(place, place.parked[number])
        if waiting := [number for number, queue in place.inbox.items() if queue]:
            change = place.inbox[self.chance.choice(waiting)].popleft()
            parked = place.parked.get(int(change.entity_id))
            if parked is None or parked.stamp <= change.stamp:
                place.parked[int(change.entity_id)] = change
            self.attempt(place, place.parked[int(change.entity_id)])

    def attempt(self, place: Place, change: Change) -> None:
        number = int(change.entity_id)
        if not self._prevails(place, change):
            del place.parked[number]
            return
        group = {number: change}
        while in_the_way := _in_the_way(place, group):
            more = {n for rows in in_the_way.values() for n, _ in rows} - group.keys()
            fit = {n: place.parked[n] for n in more if n in place.parked}
            fit = {n: each for n, each in fit.items() if self._prevails(place, each)}
            if not fit:
                self.judge(place, change)
                return
            group |= fit
        self.apply(place, group)

    def _prevails(self, place: Place, change: Change) -> bool:
        return prevails(place.last.get(int(change.entity_id)), change)

    def apply(self, place: Place, group: dict[int, Change]) -> None:
        for number, change in group.items():
            stamp = change.stamp
            # One that a site took back never undoes what a person wrote since.
            if (number, stamp) in self.made_at:
                assert place.edited.get(number, 0) <= self.made_at[number, stamp], "an edit is lost"
            last = place.last.get(number) or LastWrite(stamp, change.operation)
            place.last[number] = replace(last, stamp=stamp, operation=change.operation)
            row = _row(change)
            if change.refusal is not None:
                self.counts["rows taken back"] += 1
                self.counts["rows let go"] += row is None and number in place.rows
                self.send(place, self.change(number, stamp, row))
            _put(place, number, row)
            place.parked.pop(number, None)
        place.check()

    def judge(self, place: Place, change: Change) -> None:
        number = int(change.entity_id)
        found = _in_the_way(place, {number: change})[number]
        rows = [_told(place, other) for other, _ in found]
        there = self._other(place).name
        match decide(change, rows, here=place.name, there=there):
            case Wait(ask):
                for entity in ask:
                    self._ask(place, int(entity[1]))
            case Refuse(over, stamp):
                self.counts["refused"] += 1
                self.counts["turned round"] += change.refusal is not None
                self.counts["yielded"] += change.yields
                before = place.last.get(number)
                place.last[number] = refused(before, over, stamp, place.name)
                theirs = place.last[number].stamp
                row = place.rows.get(number)
                if change.refusal is None and all(missing for _, missing in found):
                    wanted = _row(change)
                    row = wanted and wanted._replace(parent=None)
                self.made_at[number, stamp] = self.clock
                refusal = Refusal(over, theirs, "")
                self.send(place, self.change(number, stamp, row, refusal=refusal))
                del place.parked[number]

    def _ask(self, place: Place, number: int) -> None:
        stamp = place.last[number].stamp
        if (number, stamp) not in place.asked:
            place.asked.add((number, stamp))
            self.counts["asked"] += 1
            self.send(place, self.change(number, stamp, place.rows.get(number), yields=True))

    # -- the whole of it

    def run(self, writes: int = 60) -> None:
        lag = self.chance.random()
        for _ in range(writes):
            self.act()
            if self.chance.random() > lag:
                for _ in range(self.chance.randrange(4)):
                    self.step(self.chance.choice(self.places))
        calm = 0
        for _ in range(MOST_STEPS):
            busy = any(queue for place in self.places for queue in place.inbox.values())
            calm = 0 if busy else calm + 1
            if calm > 60:
                return
            for place in self.places:
                self.step(place)
        raise AssertionError("it goes on for ever")

    def contested(self) -> set[int]:
        """Rows that both sites wrote, and those that have had a value or a reference in common with them."""
        linked: dict[object, set[int]] = defaultdict(set)
        for number, images in self.images.items():
            linked["row", number].add(number)
            for image in filter(None, images):
                linked["a", image.a].add(number)
                linked["b", image.b].add(number)
                if image.parent is not None:
                    linked["row", image.parent].add(number)
        groups = [{number} for number in self.images]
        for rows in linked.values():
            touched = [group for group in groups if group & rows]
            groups = [group for group in groups if not group & rows]
            groups.append(set().union(*touched))
        by_both = [g for g in groups if len(set().union(*(self.writers[n] for n in g))) > 1]
        return set().union(*by_both) if by_both else set()


def _put(place: Place, number: int, row: Row | None) -> None:
    if row is None:
        place.rows.pop(number, None)
    else:
        place.rows[number] = row


def _row(change: Change) -> Row | None:
    return None if change.image is None else Row(*msgspec.json.decode(change.image))


def _operation(before: Row | None, after: Row | None) -> Operation:
    if after is None:
        return Operation.DELETE
    return Operation.INSERT if before is None else Operation.UPDATE


def _told(place: Place, number: int) -> InTheWay:
    last = place.last.get(number)
    if last is None:
        return InTheWay((TABLE, str(number)))
    return InTheWay((TABLE, str(number)), last.stamp, last.reserved)


def _in_the_way(place: Place, group: dict[int, Change]) -> dict[int, set[tuple[int, bool]]]:
    """For each change the rows that are in its way if all are applied at once, and which are missing."""
    rows = dict(place.rows)
    for number, change in group.items():
        rows.pop(number, None)
        if (row := _row(change)) is not None:
            rows[number] = row
    found: dict[int, set[tuple[int, bool]]] = {}
    for number in group:
        row = rows.get(number)
        if row is None:
            bad = {(n, False) for n, each in rows.items() if each.parent == number}
        else:
            bad = {
                (n, False)
                for n, each in rows.items()
                if n != number and (each.a == row.a or each.b == row.b)
            }
            if row.parent is not None and row.parent not in rows:
                bad.add((row.parent, True))
        if bad:
            found[number] = bad
    return found
