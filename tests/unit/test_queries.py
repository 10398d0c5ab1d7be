"""The loader of named statements."""

import pytest

from ftstream.postgres.queries import Queries, QueryFileError, UnknownQueryError

TWO = """\
-- What this file is for.

-- name: read_one
-- Read one row.
select *
from t
-- by its key
where id = %(id)s

-- name: count_all
-- Count the rows.
select count(*) from t;
"""


def parse(text: str) -> Queries:
    return Queries.parse(text, source="test.sql")


def test_a_file_is_a_mapping_from_names_to_statements() -> None:
    queries = parse(TWO)
    assert list(queries) == ["read_one", "count_all"]
    assert queries["count_all"] == "select count(*) from t;"
    assert len(queries) == 2


def test_comments_inside_a_statement_stay_and_the_description_goes() -> None:
    assert parse(TWO)["read_one"] == "select *\nfrom t\n-- by its key\nwhere id = %(id)s"


def test_windows_line_ends_make_no_difference() -> None:
    assert parse(TWO.replace("\n", "\r\n"))["count_all"] == "select count(*) from t;"


def test_reading_an_unknown_name_says_which_names_there_are() -> None:
    queries = parse(TWO)
    assert "nothing" not in queries
    with pytest.raises(UnknownQueryError, match=r"^test.sql .*'nothing'.*count_all, read_one"):
        queries["nothing"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWO + TWO.partition("\n")[2], "two statements are named 'read_one'"),
        ("select 1;\n" + TWO, "before the first '-- name:' line"),
        ("select 1;", "before the first '-- name:' line"),
        ("-- name:\n-- Nameless.\nselect 1", "snake_case, not ''"),
        ("-- name: ReadOne\n-- Read.\nselect 1", "snake_case, not 'ReadOne'"),
        ("-- name: one\nselect 1", "one has no line of description"),
        ("-- name: one\n-- Nothing follows.\n", "one has no statement"),
        ("-- name: one\n-- Only words.\n-- follow.\n", "one has no statement"),
    ],
)
def test_a_malformed_file_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(QueryFileError, match=message):
        parse(text)


def test_an_empty_file_has_no_statements() -> None:
    assert dict(parse("\n-- nothing yet\n")) == {}


def test_load_reads_a_file_of_a_package() -> None:
    assert "upsert_hand" in Queries.load("ftstream.local.demo", "traffic.sql")
