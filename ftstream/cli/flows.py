"""Flows as arguments of commands."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ftstream.flows import FLOWS, Capture, CaptureNames, Flow, Table, log_captures
from ftstream.settings import Settings


def log_flows() -> tuple[Flow, ...]:
    """The flows whose tables a connector reads and that are ready."""
    return tuple(flow for flow in FLOWS if flow.capture is Capture.LOG)


def connected_flows() -> tuple[Flow, ...]:
    """The flows that a connector captures, from their tables or from the outbox, and that are ready."""
    return tuple(flow for capture in log_captures(FLOWS) for flow in capture.flows)


def captures_for(settings: Settings, flows: Sequence[Flow]) -> list[CaptureNames]:
    """The connectors of these flows, or of all; one that others share is named with any of them."""
    chosen = flows or FLOWS
    return [
        CaptureNames(capture, settings.namespace)
        for capture in log_captures(FLOWS)
        if any(flow in chosen for flow in capture.flows)
    ]


class FlowType(click.ParamType):
    """A flow that has a connector, by its name."""

    name = "flow"

    def convert(
        self, value: str | Flow, param: click.Parameter | None, context: click.Context | None
    ) -> Flow:
        if isinstance(value, Flow):
            return value
        for flow in connected_flows():
            if flow.name == value:
                return flow
        names = ", ".join(flow.name for flow in connected_flows())
        return self.fail(
            f"{value!r} is no flow with a connector; there are: {names}", param, context
        )


class TableType(click.ParamType):
    """A table of a flow that is ready, by its name."""

    name = "table"

    def convert(
        self,
        value: str | tuple[Flow, Table],
        param: click.Parameter | None,
        context: click.Context | None,
    ) -> tuple[Flow, Table]:
        if isinstance(value, tuple):
            return value
        known = {table.name: (flow, table) for flow in FLOWS for table in flow.tables}
        for flow, table in known.values():
            if value in (table.name, table.qualified):
                return flow, table
        return self.fail(f"{value!r} is no synced table; there are: {', '.join(known)}")
