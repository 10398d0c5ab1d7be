"""What nobody of ftstream's would send, or call so: it is neither believed nor in anybody's way."""

from __future__ import annotations

import pytest
from psycopg import sql

from ftstream.apply.statements import _SPELLINGS
from ftstream.failures import KEY_SPELT_OTHERWISE, Policy, Severity, classify
from ftstream.notification import Notification
from ftstream.setup.provision import identifier

UUID = "00000000-0000-0000-0000-0000000abcde"


@pytest.mark.parametrize(
    ("kind", "key", "so"),
    [
        ("uuid", UUID, True),
        ("uuid", UUID.upper(), False),
        ("uuid", "{" + UUID + "}", False),
        ("uuid", UUID.replace("-", ""), False),
        ("int8", "7", True),
        ("int8", "-7", True),
        ("int4", "007", False),
        ("int2", "+7", False),
        ("int2", " 7", False),
        ("int8", "-0", False),
    ],
)
def test_a_key_is_believed_only_as_postgresql_spells_it(kind: str, key: str, so: bool) -> None:
    """Another spelling would be another entity of the same row, and pass last write wins by."""
    assert (_SPELLINGS[kind].fullmatch(key) is not None) is so
    assert classify(KEY_SPELT_OTHERWISE, "").policy is Policy.PARK


def test_a_notification_can_be_kept_whatever_it_quotes() -> None:
    told = Notification("k", Severity.INFO, "a\0b", "c\0", {"table": "\0", "rows": 3}).storable
    assert (told.title, told.message) == ("a\\x00b", "c\\x00")
    assert told.metadata == {"table": "\\x00", "rows": 3}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("public.gfx_hands", ("public", "gfx_hands")),
        ('hack."x TO PUBLIC; --"', ("hack", "x TO PUBLIC; --")),
        ('"My Schema"."a.b""c"', ("My Schema", 'a.b"c')),
    ],
)
def test_names_as_postgresql_quotes_them_are_one_identifier(
    name: str, parts: tuple[str, ...]
) -> None:
    assert identifier(name) == sql.Identifier(*parts)
