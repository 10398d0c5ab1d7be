"""What the readings of the catalogs find, while nothing is applied."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from ftstream.apply import agent as change_agent
from ftstream.apply.agent import ChangeAgent
from ftstream.apply.sites import ApplyFailed, Sites
from ftstream.failures import UNSUPPORTED, Halted, Policy, classify
from ftstream.flows import GFX, Site
from ftstream.settings import Database, Settings


class Unlogged:
    """An applier whose source no longer logs a key; at first the source does not answer."""

    def __init__(self) -> None:
        self.readings = 0

    async def prepare(self, sites: Sites) -> bool:
        self.readings += 1
        assert self.readings < 3, "the flow goes on"
        state = "08006" if self.readings == 1 else UNSUPPORTED
        raise ApplyFailed(classify(state, "the log does not tell which row of t is deleted"))


async def test_reason_to_halt_that_shows_between_changes_halts_the_flow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else it is at the next change that a delete could be lost, or take another row."""
    assert classify(UNSUPPORTED, "").policy is Policy.HALT
    halted: list[Halted] = []

    async def halt(reason: Halted) -> None:
        halted.append(reason)

    agent, applier = ChangeAgent.__new__(ChangeAgent), Unlogged()
    database = Database(
        dsn=SecretStr("postgresql://h/db"), admin_dsn=SecretStr("postgresql://h/db")
    )
    monkeypatch.setattr(change_agent, "SCHEMA_SECONDS", 0)
    agent.flow, agent.target = GFX, Site.SUPABASE
    monkeypatch.setattr(
        agent, "_settings", Settings(external=database, supabase=database), raising=False
    )
    monkeypatch.setattr(agent, "_applier", applier, raising=False)
    monkeypatch.setattr(agent, "halt", halt)
    await agent._watch_schema()
    assert applier.readings == 2
    assert ["which row of t is deleted" in str(each) for each in halted] == [True]
