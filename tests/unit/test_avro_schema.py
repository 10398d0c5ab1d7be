"""Schemas by columns, their files, and what is compatible with what."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import avro.schema
import fastavro
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from hypothesis import given
from hypothesis import strategies as st

from ftstream.flows import FLOWS, WSOP, Capture, Flow, Table
from ftstream.messages import kept_schemas
from ftstream.messages.avro import Value, encode
from ftstream.messages.avro_compatibility import differences, unaccepted
from ftstream.messages.avro_schema import (
    AvroKind,
    Field,
    SchemaFileError,
    TableSchema,
    avro_name,
    by_fingerprint,
    parse,
    plain_name,
)
from ftstream.messages.change import Operation
from ftstream.messages.kept_schemas import PACKAGED, KeptSchemas, NoFolder

ROOT = Path(__file__).parents[2]
BATCH = [flow for flow in FLOWS if flow.capture is Capture.BATCH]
Checker: Any = ReaderWriterCompatibilityChecker  # it has no types
CHIPS = Table("wsop_chip_counts")

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
fields = st.lists(
    st.builds(Field, names, st.sampled_from(AvroKind)), unique_by=lambda field: field.column
).map(tuple)


def schema(**columns: AvroKind) -> TableSchema:
    fields = tuple(Field(name, kind) for name, kind in columns.items())
    return TableSchema("wsop", CHIPS.name, (Field("id", AvroKind.STRING), *fields))


def broken(schema: TableSchema, *breaks: str) -> TableSchema:
    return TableSchema(schema.flow, schema.table, schema.fields, breaks)


@given(st.one_of(names, st.text("_u0123456789abcdefxA-", min_size=1)))
def test_any_name_becomes_one_that_avro_takes_and_comes_back(name: str) -> None:
    fields = [{"name": avro_name(name), "type": "null"}]
    avro.schema.parse(json.dumps({"type": "record", "name": "table", "fields": fields}))
    assert plain_name(avro_name(name)) == name


@pytest.mark.parametrize("name", ["chip_count", "last_updated", "_uuid", "Name1", "a_u"])
def test_plain_names_stay_as_they_are(name: str) -> None:
    assert avro_name(name) == name


@given(names, fields, st.lists(names).map(tuple))
def test_a_file_holds_all_of_a_schema(
    table: str, fields: tuple[Field, ...], breaks: tuple[str, ...]
) -> None:
    written = TableSchema("wsop", table, fields, breaks)
    assert parse(written.text) == written
    assert json.loads(written.text) == written.document


@given(names, fields)
def test_avro_itself_sees_the_same_schema(table: str, fields: tuple[Field, ...]) -> None:
    ours = TableSchema("wsop", table, fields)
    theirs = avro.schema.parse(ours.text)
    assert theirs.fingerprint("CRC-64-AVRO") == ours.fingerprint


def test_the_order_of_columns_does_not_matter() -> None:
    one, other = schema(a=AvroKind.INT, b=AvroKind.LONG), schema(b=AvroKind.LONG, a=AvroKind.INT)
    assert one == other
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not a schema of a table"),
        ("{}", "not a schema of a table"),
        ('{"fields": [1]}', "not a schema of a table"),
        ('{"type": "record", "name": "x", "fields": []}', "not a schema of a table"),
        (schema(a=AvroKind.INT).text.replace('"null", "int"', '"null", "float"'), "'float' is not"),
        (schema(a=AvroKind.INT).text.replace('"null", "int"', '"int", "null"'), "'null' is not"),
        (schema(a=AvroKind.INT).text.replace('"update"', '"upsert"'), "was it edited"),
        (schema(a=AvroKind.INT).text.replace('"a"', '"_u61_"'), "was it edited"),
        (schema(a=AvroKind.INT, b=AvroKind.INT).text.replace('"b"', '"a"'), "was it edited"),
        (schema(a=AvroKind.INT).text.replace('"a"', '"_u110000_"'), "not a schema of a table"),
    ],
)
def test_a_file_that_ftstream_did_not_write_is_refused(text: str, reason: str) -> None:
    with pytest.raises(SchemaFileError, match=reason):
        parse(text)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (schema(), schema(), []),
        (schema(), schema(notes=AvroKind.STRING), ["notes: new (string)"]),
        (schema(rank=AvroKind.INT), schema(), ["rank: removed (was int)"]),
    ],
)
def test_columns_that_come_and_go_are_compatible(
    before: TableSchema, after: TableSchema, said: list[str]
) -> None:
    found = differences(before, after)
    assert [str(each) for each in found] == said
    assert all(each.compatible for each in found)


@pytest.mark.parametrize("was", AvroKind)
@pytest.mark.parametrize("now", AvroKind)
def test_a_column_that_travels_as_another_type_is_not(was: AvroKind, now: AvroKind) -> None:
    """int to long among them: a reader with the old schema cannot read a long. And text to bytea, which
    Avro takes for the same."""
    found = differences(schema(a=was, b=AvroKind.INT), schema(a=now, b=AvroKind.INT))
    if was == now:
        assert found == ()
    else:
        (difference,) = found
        assert str(difference) == f"a: {was} became {now}"
        assert not difference.compatible


few = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(AvroKind), max_size=4)


@given(few, few)
def test_the_whole_is_compatible_if_each_column_is(
    old: dict[str, AvroKind], new: dict[str, AvroKind]
) -> None:
    """As Avro's checker sees it, to which bytes and string are one, and as a reader finds it."""
    before, after = schema(**old), schema(**new)
    compatible = all(
        each.compatible or {each.was, each.now} == {AvroKind.BYTES, AvroKind.STRING}
        for each in differences(before, after)
    )
    one, other = avro.schema.parse(before.text), avro.schema.parse(after.text)
    checked = [
        Checker().get_compatibility(*pair).compatibility for pair in ((one, other), (other, one))
    ]
    assert compatible == all(each is SchemaCompatibilityType.compatible for each in checked)
    if all(each.compatible for each in differences(before, after)):
        for writer, reader in ((before, after), (after, before)):
            message = encode(writer, Operation.INSERT, "1", 0, row_of(writer))
            body = io.BytesIO(message[10:])
            record: Any = fastavro.schemaless_reader(body, writer.parsed, reader.parsed)
            written = {field.column for field in writer.fields}
            assert record["row"] == {
                column: value if column in written else None
                for column, value in row_of(reader).items()
            }


def row_of(schema: TableSchema) -> dict[str, Value]:
    values: dict[AvroKind, Value] = {
        AvroKind.BOOLEAN: True,
        AvroKind.INT: -1,
        AvroKind.LONG: 2**62,
        AvroKind.DOUBLE: 0.5,
        AvroKind.BYTES: b"x",
        AvroKind.STRING: "y",
    }
    return {field.column: values[field.kind] for field in schema.fields}


def test_schemas_of_two_tables_are_not_compared() -> None:
    with pytest.raises(ValueError, match="two tables"):
        differences(schema(), TableSchema("wsop", "wsop_events", ()))


def test_a_break_counts_as_accepted_only_in_the_version_that_breaks() -> None:
    first = schema(chip_count=AvroKind.LONG)
    second = schema(chip_count=AvroKind.STRING)
    words = "chip_count: long became string"
    assert unaccepted([first, second]) == [words]
    assert unaccepted([first, broken(second, "rank: int became long")]) == [words]
    assert unaccepted([first, broken(second, words)]) == []
    assert unaccepted([first, broken(second, words), schema(chip_count=AvroKind.LONG)]) == [
        "chip_count: string became long"
    ]
    assert unaccepted([]) == []


@pytest.mark.parametrize("flow", BATCH, ids=lambda flow: flow.name)
def test_the_repository_keeps_the_schemas_of_every_table(flow: Flow) -> None:
    kept = KeptSchemas(flow, [PACKAGED])
    for table in flow.tables:
        versions = kept.versions(table)
        assert [version.number for version in versions] == list(range(1, len(versions) + 1))
        assert versions, f"no schema of {table.name}: `ftstream schemas accept`"
        assert kept.unaccepted(table) == []


def test_no_two_kept_schemas_have_one_fingerprint() -> None:
    prints = [
        version.schema.fingerprint
        for flow in BATCH
        for table in flow.tables
        for version in KeptSchemas(flow, [PACKAGED]).versions(table)
    ]
    assert len(set(prints)) == len(prints) >= 3


def test_schemas_are_where_connectors_are() -> None:
    assert (ROOT / "connectors" / "schemas").resolve() == PACKAGED.resolve()
    assert not {path.name for path in PACKAGED.iterdir()} - {flow.name for flow in BATCH}


def test_a_schema_that_came_back_is_no_fault() -> None:
    words = "a: int became long"
    found = by_fingerprint([schema(a=AvroKind.INT), broken(schema(a=AvroKind.INT), words)])
    assert len(found) == 1


def test_new_versions_go_into_the_folder_of_ones_own(tmp_path: Path) -> None:
    kept = KeptSchemas(WSOP, [PACKAGED, tmp_path])
    assert kept.newest(CHIPS) == KeptSchemas(WSOP, [PACKAGED]).newest(CHIPS)
    path = kept.keep(CHIPS, schema(a=AvroKind.INT))
    assert path == tmp_path / "wsop" / CHIPS.name / "002.avsc"
    newest = kept.newest(CHIPS)
    assert newest is not None
    assert (newest.number, newest.schema) == (2, schema(a=AvroKind.INT))
    assert len(kept.by_fingerprint()) == len(WSOP.tables) + 1


def test_an_upgrade_that_brings_the_same_number_leaves_both_readable(tmp_path: Path) -> None:
    brought, own = tmp_path / "brought", tmp_path / "own"
    ours, theirs = schema(a=AvroKind.INT), schema(b=AvroKind.INT)
    KeptSchemas(WSOP, [own]).keep(CHIPS, ours)
    KeptSchemas(WSOP, [brought]).keep(CHIPS, theirs)
    kept = KeptSchemas(WSOP, [brought, own])
    assert [version.schema for version in kept.versions(CHIPS)] == [theirs, ours]
    assert set(kept.by_fingerprint()) == {ours.fingerprint, theirs.fingerprint}
    assert kept.next_path(CHIPS).name == "002.avsc"


def test_without_a_checkout_nothing_is_written_into_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        kept_schemas, "PACKAGED", tmp_path / "site-packages" / "ftstream" / "schemas"
    )
    with pytest.raises(NoFolder, match=r"set schemas\.folder"):
        KeptSchemas(WSOP, [kept_schemas.PACKAGED]).keep(CHIPS, schema())


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("2.avsc", schema().text, "named by its number"),
        ("readme.txt", "", "named by its number"),
        ("001.avsc", "{", "not JSON"),
        ("001.avsc", TableSchema("wsop", "wsop_events", ()).text, "the schema of wsop_events"),
    ],
)
def test_a_strange_file_is_named(tmp_path: Path, name: str, text: str, reason: str) -> None:
    path = tmp_path / "wsop" / CHIPS.name / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(SchemaFileError, match=reason) as refusal:
        KeptSchemas(WSOP, [tmp_path]).versions(CHIPS)
    assert str(path) in str(refusal.value)
