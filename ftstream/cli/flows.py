"""Flows as arguments of commands."""

from __future__ import annotations

import click

from ftstream.flows import READY, Capture, Flow


def log_flows() -> tuple[Flow, ...]:
    """The flows that a connector captures and that are ready."""
    return tuple(flow for flow in READY if flow.capture is Capture.LOG)


class FlowType(click.ParamType):
    """A flow that has a connector, by its name."""

    name = "flow"

    def convert(
        self, value: str | Flow, param: click.Parameter | None, context: click.Context | None
    ) -> Flow:
        if isinstance(value, Flow):
            return value
        for flow in log_flows():
            if flow.name == value:
                return flow
        names = ", ".join(flow.name for flow in log_flows())
        return self.fail(
            f"{value!r} is no flow with a connector; there are: {names}", param, context
        )
