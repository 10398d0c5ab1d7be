"""Flows and tables as arguments of commands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

import click
from click.shell_completion import CompletionItem

from ftstream.cli.nearest import did_you_mean
from ftstream.flows import FLOWS, Capture, CaptureNames, Flow, Table, log_captures
from ftstream.settings import Settings


def log_flows() -> tuple[Flow, ...]:
    """The flows whose tables a connector reads."""
    return tuple(flow for flow in FLOWS if flow.capture is Capture.LOG)


def connected_flows() -> tuple[Flow, ...]:
    """The flows that a connector captures, from their tables or from the outbox."""
    return tuple(flow for capture in log_captures(FLOWS) for flow in capture.flows)


def captures_for(settings: Settings, flows: Sequence[Flow]) -> list[CaptureNames]:
    """The connectors of these flows, or of all; one that others share is named with any of them."""
    chosen = flows or FLOWS
    return [
        CaptureNames(capture, settings.namespace)
        for capture in log_captures(FLOWS)
        if any(flow in chosen for flow in capture.flows)
    ]


def spellings(entity_id: str) -> list[str]:
    """Return the id as given, and as PostgreSQL spells it if it is a UUID."""
    try:
        return [*dict.fromkeys((entity_id, str(UUID(entity_id))))]
    except ValueError:
        return [entity_id]


def every_flow() -> tuple[Flow, ...]:
    return FLOWS


class FlowType(click.ParamType):
    """A flow by its name, of those that a command is for."""

    name = "flow"

    def __init__(
        self, among: Callable[[], Sequence[Flow]] = every_flow, what: str = "no flow"
    ) -> None:
        """`what` is said of anything else."""
        self._among, self._what = among, what

    def convert(
        self, value: str | Flow, param: click.Parameter | None, context: click.Context | None
    ) -> Flow:
        if isinstance(value, Flow):
            return value
        known = {flow.name: flow for flow in self._among()}
        if value in known:
            return known[value]
        return self.fail(_unknown(value, self._what, known), param, context)

    def shell_complete(
        self, context: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return complete(incomplete, (flow.name for flow in self._among()))


class TableType(click.ParamType):
    """A table of the flows that a command is for, by its name."""

    name = "table"

    def __init__(
        self, among: Callable[[], Sequence[Flow]] = every_flow, what: str = "no synced table"
    ) -> None:
        self._among, self._what = among, what

    def convert(
        self,
        value: str | tuple[Flow, Table],
        param: click.Parameter | None,
        context: click.Context | None,
    ) -> tuple[Flow, Table]:
        if isinstance(value, tuple):
            return value
        known = {table.name: (flow, table) for flow in self._among() for table in flow.tables}
        for flow, table in known.values():
            if value in (table.name, table.qualified):
                return flow, table
        return self.fail(_unknown(value, self._what, known), param, context)

    def shell_complete(
        self, context: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return complete(incomplete, (t.name for flow in self._among() for t in flow.tables))


def complete(incomplete: str, words: Iterable[str]) -> list[CompletionItem]:
    """Return the words that begin so, for the shell."""
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def complete_tables(among: Callable[[], Sequence[Flow]] = every_flow) -> Any:
    """Return what completes tables in an argument that is text."""

    def items(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return complete(incomplete, (t.name for flow in among() for t in flow.tables))

    return items


def _unknown(value: str, what: str, known: Collection[str]) -> str:
    return f"{value!r} is {what}{did_you_mean(value, known)}; there are: {', '.join(known)}"
