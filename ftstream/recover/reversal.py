"""What taking edits back would do to each row, and what became of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from ftstream.messages.change import Stamp
from ftstream.recover.history import RowState

TOUCHED = "updated_at"
"""Production's triggers set it at every update: a row that differs in it alone is as it was."""


class Action(enum.StrEnum):
    """What is done to a row."""

    INSERT = "inserted"
    UPDATE = "changed"
    DELETE = "deleted"
    NOTHING = "unchanged"


@dataclass(frozen=True, slots=True)
class Live:
    """A row as it is, and its last write, where it will be written."""

    present: bool
    seen: Stamp | None


@dataclass(frozen=True, slots=True)
class Intent:
    """A row that is to be as it was; `columns`: what differs, as PostgreSQL's text, now and then."""

    entity_id: str
    state: RowState
    live: Live
    columns: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)

    @property
    def action(self) -> Action:
        match self.live.present, self.state.image is not None:
            case True, True:
                return Action.UPDATE if self.columns.keys() - {TOUCHED} else Action.NOTHING
            case True, False:
                return Action.DELETE
            case False, True:
                return Action.INSERT
            case _:
                return Action.NOTHING


@dataclass(frozen=True, slots=True)
class Impossible:
    """An entity that stays as it is, and why."""

    entity_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReversalPlan:
    """All that was asked for; `untouched`: asked for by id, and nothing has happened to them.

    `reaches`: by site, since when its log is whole (microseconds).
    """

    intents: tuple[Intent, ...] = ()
    impossible: tuple[Impossible, ...] = ()
    untouched: tuple[str, ...] = ()
    reaches: Mapping[str, int] = field(default_factory=dict)

    @property
    def writes(self) -> tuple[Intent, ...]:
        return tuple(intent for intent in self.intents if intent.action is not Action.NOTHING)


@dataclass(frozen=True, slots=True)
class Written:
    """A row is as it was again."""

    intent: Intent


@dataclass(frozen=True, slots=True)
class Left:
    """A row was left as it is."""

    intent: Intent
    reason: str


Result = Written | Left
