"""Named SQL statements, read from .sql files that lie beside the code that uses them.

A file is a row of blocks, each a name, one line that says what the statement does, and the
statement itself:

    -- name: delete_hand
    -- Delete one hand and, by cascade, its seats.
    delete from gfx_hands where id = %(id)s
"""

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Self

from psycopg.sql import SQL, Identifier, Literal

_HEADING = re.compile(r"^--[ \t]*name:(.*)$", re.MULTILINE)
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class QueryFileError(ValueError):
    """A file of statements is not in the form this module reads."""


class UnknownQueryError(KeyError):
    """No statement has this name."""

    def __str__(self) -> str:
        return str(self.args[0])


class Queries(Mapping[str, str]):
    """The statements of one file by name; reading one that is not there says which are."""

    def __init__(self, source: str, statements: Mapping[str, str]) -> None:
        self._source = source
        self._statements = dict(statements)

    @classmethod
    def load(cls, package: str, filename: str) -> Self:
        """Read a file of an installed package; raises QueryFileError if it cannot be parsed."""
        text = files(package).joinpath(filename).read_text(encoding="utf-8")
        return cls.parse(text, source=filename)

    @classmethod
    def parse(cls, text: str, *, source: str) -> Self:
        """Read blocks from text; `source` is named in errors."""
        statements: dict[str, str] = {}
        for name, body in _blocks(text, source):
            if name in statements:
                raise QueryFileError(f"{source}: two statements are named {name!r}")
            statements[name] = _statement(name, body, source)
        return cls(source, statements)

    def __getitem__(self, name: str) -> str:
        try:
            return self._statements[name]
        except KeyError:
            known = ", ".join(sorted(self._statements)) or "none"
            raise UnknownQueryError(
                f"{self._source} has no statement named {name!r}; it has: {known}"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._statements

    def __iter__(self) -> Iterator[str]:
        return iter(self._statements)

    def __len__(self) -> int:
        return len(self._statements)


def _blocks(text: str, source: str) -> Iterator[tuple[str, str]]:
    """Yield each name with the lines that follow it."""
    headings = list(_HEADING.finditer(text))
    preamble = text[: headings[0].start()] if headings else text
    if any(not line.startswith("--") for line in preamble.splitlines() if line.strip()):
        raise QueryFileError(f"{source}: a statement stands before the first '-- name:' line")
    bounds = [*(heading.start() for heading in headings), len(text)]
    for heading, end in zip(headings, bounds[1:], strict=True):
        name = heading.group(1).strip()
        if not _NAME.fullmatch(name):
            raise QueryFileError(f"{source}: a name must be snake_case, not {name!r}")
        yield name, text[heading.end() : end]


def _statement(name: str, body: str, source: str) -> str:
    """Return the statement of a block without its line of description."""
    first, _, rest = body.strip().partition("\n")
    if not first.startswith("--"):
        raise QueryFileError(f"{source}: {name} has no line of description under its name")
    statement = rest.strip()
    if all(line.startswith("--") for line in statement.splitlines()):
        raise QueryFileError(f"{source}: {name} has no statement")
    return statement


def statement(text: str) -> SQL:
    """A statement from a file of the package, as psycopg takes it."""
    return SQL(text)


def identifier(*names: str) -> Identifier:
    """A name for a statement that takes parameters: psycopg would take a % in it for one."""
    return Identifier(*(name.replace("%", "%%") for name in names))


def literal(text: str) -> Literal:
    """A text for a statement that takes parameters: psycopg would take a % in it for one."""
    return Literal(text.replace("%", "%%"))
