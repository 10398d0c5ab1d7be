"""Many changes of a row become one, and what they come to does not depend on where batches are cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ftstream.apply.merge import (
    Batch,
    Delete,
    Effect,
    FromLog,
    Patch,
    Read,
    Reread,
    Span,
    Upsert,
    effects,
    fold,
    log_rows,
)
from ftstream.apply.parked import ParkedRecord, malformed
from ftstream.failures import classify
from ftstream.kafka.partition import Partition
from ftstream.messages import toast
from ftstream.messages.change import Change, Entity, Operation
from ftstream.outcomes import Outcome

Row = dict[str, object]

LARGE = ("a", "b", "c")
"""Columns that a change leaves out of the log unless it changes them."""
HOLE = toast.PLACEHOLDER.decode()


@dataclass
class Source:
    """The owner of some rows, and the log of what happened to them."""

    rows: dict[str, Row] = field(default_factory=dict)
    log: list[Change] = field(default_factory=list)

    def put(self, key: str, values: Row) -> None:
        """Insert the row, or update these columns of it: the log lacks the large ones left alone."""
        if key not in self.rows:
            self.rows[key] = dict.fromkeys(("id", "n", *LARGE)) | {"id": key} | values
            self._log(key, Operation.INSERT, self.rows[key])
        else:
            self.rows[key] = self.rows[key] | values
            holes = {name: HOLE for name in LARGE if name not in values}
            self._log(key, Operation.UPDATE, self.rows[key] | holes)

    def rename(self, key: str, new: str) -> None:
        """Change the row's key: a delete, and an insert that lacks all large values."""
        if key in self.rows and new not in self.rows:
            row = self.rows.pop(key) | {"id": new}
            self._log(key, Operation.DELETE, None)
            self.rows[new] = row
            self._log(new, Operation.INSERT, row | dict.fromkeys(LARGE, HOLE))

    def delete(self, key: str) -> None:
        if self.rows.pop(key, None) is not None:
            self._log(key, Operation.DELETE, None)

    def _log(self, key: str, operation: Operation, row: Row | None) -> None:
        self.log.append(change(len(self.log), key, operation, row))


def change(offset: int, key: str, operation: Operation, row: Row | None) -> Change:
    image = None if row is None else msgspec.json.encode(row)
    partial = image is not None and toast.may_be_partial(image)
    return Change("t", key, operation, image, partial, "topic", 0, offset, offset, offset)


def apply(target: dict[str, Row], changes: Sequence[Change], source: Source) -> None:
    """What the applier does with a batch; a row that must be read is read as it is by now."""
    for (_, key), effect in effects(changes).items():
        row = row_after(target.get(key), effect, source.rows.get(key))
        if row is None:
            target.pop(key, None)
        else:
            target[key] = row


def row_after(row: Row | None, effect: Effect, owned: Row | None) -> Row | None:
    match effect:
        case Upsert(image):
            return msgspec.json.decode(image, type=Row)
        case Patch(columns, missing) if row is not None:
            assert not columns.keys() & missing
            return row | {name: msgspec.json.decode(raw) for name, raw in columns.items()}
        case Delete():
            return None
        case _:
            return owned


keys = st.sampled_from("xyz")
row_values = st.dictionaries(st.sampled_from(("n", *LARGE)), st.none() | st.integers(0, 9))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, row_values),
        st.tuples(st.just("delete"), keys),
        st.tuples(st.just("rename"), keys, keys),
    ),
    max_size=30,
)


def history(played: Sequence[tuple[object, ...]]) -> Source:
    source = Source()
    for name, *arguments in played:
        getattr(source, str(name))(*arguments)
    return source


def batches(log: Sequence[Change], cuts: set[int]) -> list[Sequence[Change]]:
    bounds = [0, *sorted(cut for cut in cuts if cut < len(log)), len(log)]
    return [log[start:end] for start, end in itertools.pairwise(bounds)]


@given(steps, st.sets(st.integers(0, 40)))
def test_wherever_batches_are_cut_the_target_ends_as_its_owner(
    played: list[tuple[object, ...]], cuts: set[int]
) -> None:
    source = history(played)
    target: dict[str, Row] = {}
    for batch in batches(source.log, cuts):
        apply(target, batch, source)
    assert target == source.rows


@given(steps, st.sets(st.integers(0, 40)), st.integers(0, 40), keys)
def test_a_row_lost_at_the_target_comes_back_whole_with_its_next_change(
    played: list[tuple[object, ...]], cuts: set[int], lost_before: int, key: str
) -> None:
    source = history(played)
    target: dict[str, Row] = {}
    touched = True
    for number, batch in enumerate(batches(source.log, cuts)):
        if number == lost_before:
            touched = target.pop(key, None) is None
        touched = touched or any(c.entity_id == key for c in batch)
        apply(target, batch, source)
    assert touched is False or target == source.rows


@given(steps, st.data())
def test_changes_that_come_again_end_the_same(
    played: list[tuple[object, ...]], data: st.DataObject
) -> None:
    source = history(played)
    back = data.draw(st.integers(0, len(source.log)))
    target: dict[str, Row] = {}
    apply(target, source.log, source)
    apply(target, source.log[back:], source)
    assert target == source.rows


@given(steps)
def test_every_change_is_logged_once_and_the_last_of_each_row_as_applied(
    played: list[tuple[object, ...]],
) -> None:
    log = history(played).log
    result: dict[Entity, Effect] = effects(log)
    rows = log_rows(log, result)
    assert [row.offset for row in rows] == [c.offset for c in log]
    applied = [(row.table, row.id) for row in rows if row.outcome is not Outcome.MERGED]
    assert sorted(applied) == sorted(result)


def test_an_older_value_fills_what_a_later_change_lacks() -> None:
    source = history(
        [("put", "x", {"a": 1, "b": 1}), ("put", "x", {"b": 2}), ("put", "x", {"n": 3})]
    )
    effect = effects(source.log)[("t", "x")]
    assert isinstance(effect, Upsert)
    assert msgspec.json.decode(effect.image) == {"id": "x", "n": 3, "a": 1, "b": 2, "c": None}


def test_values_that_change_in_turns_leave_nothing_missing() -> None:
    updates = [{"a": 1}, {"b": 2}, {"a": 3}, {"c": 4}]
    source = history([("put", "x", {}), *(("put", "x", values) for values in updates)])
    effect = effects(source.log[1:])[("t", "x")]
    assert isinstance(effect, Patch)
    assert effect.missing == frozenset()
    assert {name: bytes(effect.columns[name]) for name in LARGE} == {
        "a": b"3",
        "b": b"2",
        "c": b"4",
    }


def test_a_value_from_before_a_delete_fills_nothing() -> None:
    source = history([("put", "x", {"a": 1}), ("rename", "x", "y"), ("rename", "y", "x")])
    assert effects(source.log) == {("t", "x"): Reread(), ("t", "y"): Delete()}


def test_a_row_read_from_its_owner_is_read_again_for_a_partial_change() -> None:
    partial = change(1, "x", Operation.UPDATE, {"id": "x", "a": HOLE})
    assert fold(Read("{}"), partial) == Reread()


def test_a_truncate_changes_no_row_and_is_recorded() -> None:
    truncate = change(0, "", Operation.TRUNCATE, None)
    assert effects([truncate]) == {}
    assert [row.outcome for row in log_rows([truncate], {})] == [Outcome.RECORDED]


# -- batches that are divided


@st.composite
def mixed_batches(draw: st.DrawFn) -> Batch:
    """Records of up to three partitions: changes, malformed ones, and tombstones, which are neither."""
    kinds = draw(st.lists(st.lists(st.sampled_from("cmt"), max_size=6), min_size=1, max_size=3))
    changes: list[Change] = []
    parked: list[ParkedRecord] = []
    spans: list[Span] = []
    for number, records in enumerate(kinds):
        first = draw(st.integers(0, 5))
        at = Partition("topic", number)
        for offset, kind in enumerate(records, first):
            if kind == "c":
                changes.append(
                    msgspec.structs.replace(
                        change(offset, f"{number}:{offset % 2}", Operation.INSERT, {"id": "x"}),
                        partition=number,
                    )
                )
            elif kind == "m":
                parked.append(malformed("t", at, offset, b"k", b"v", "odd"))
        if records:
            spans.append(Span(at, first, first + len(records), None, 7))
    order = draw(st.permutations(changes))
    in_order = sorted(order, key=lambda c: c.offset)  # of each partition, however they are mixed
    return Batch(tuple(in_order), FromLog(tuple(spans)), parked=tuple(parked))


def singles(batch: Batch) -> list[Batch]:
    if len(batch.changes) < 2:
        return [batch]
    return [single for half in batch.halves() for single in singles(half)]


@given(mixed_batches())
def test_divided_batch_moves_every_offset_once_and_holds_every_record_once(batch: Batch) -> None:
    at = {span.partition: span.expected for span in batch.spans}
    changes: list[Change] = []
    parked: list[ParkedRecord] = []
    for part in singles(batch):
        for span in part.spans:
            assert span.expected == at[span.partition]
            assert span.next > span.expected
            at[span.partition] = span.next
        held = [(c.at, c.offset) for c in part.changes] + [(a.at, a.offset) for a in part.parked]
        for partition, offset in held:
            (span,) = (span for span in part.spans if span.partition == partition)
            assert span.expected <= offset < span.next
        changes += part.changes
        parked += part.parked
    assert at == {span.partition: span.next for span in batch.spans}
    assert changes == list(batch.changes)
    assert sorted(parked, key=lambda a: (a.at, a.offset)) == sorted(
        batch.parked, key=lambda a: (a.at, a.offset)
    )


@given(mixed_batches(), st.data())
def test_parked_row_keeps_all_its_changes_in_order(batch: Batch, data: st.DataObject) -> None:
    rows = sorted(batch.entities)
    entities = data.draw(st.sets(st.sampled_from(rows))) if rows else set()
    rest = batch.parking(dict.fromkeys(entities, classify("55P03", "locked")))
    assert rest.entities == batch.entities - entities
    assert rest.spans == batch.spans
    moved = [a for a in rest.parked if a not in batch.parked]
    assert [(a.at, a.offset) for a in moved] == [
        (c.at, c.offset) for c in batch.changes if (c.table, c.entity_id) in entities
    ]


@given(mixed_batches(), st.data())
def test_what_is_left_after_another_worker_begins_where_that_one_ended(
    batch: Batch, data: st.DataObject
) -> None:
    applied = {
        span.partition: data.draw(st.integers(span.expected, span.next)) for span in batch.spans
    }
    left = batch.after(applied)
    assert all(change.offset >= applied[change.at] for change in left.changes)
    assert all(each.offset >= applied[each.at] for each in left.parked)
    assert {s.partition: s.expected for s in left.spans} == {
        s.partition: applied[s.partition] for s in batch.spans if applied[s.partition] < s.next
    }
