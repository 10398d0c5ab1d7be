"""Everything is called what the guidelines call it, and all of it derives from the flows."""

from __future__ import annotations

import pytest

from ftstream.flows import (
    FLOWS,
    GFX,
    OVERRIDES,
    RENDER_QUEUE,
    WSOP,
    Conflict,
    Flow,
    Names,
    Site,
    flow_named,
)


def test_names_of_the_guidelines() -> None:
    """Guidelines 3.1."""
    names = Names(GFX)
    assert names.topics(Site.SUPABASE) == (
        "gfx.gfx_sessions",
        "gfx.gfx_hands",
        "gfx.gfx_hand_players",
        "gfx.gfx_players",
    )
    assert names.connector == "gfx-postgres-connector"
    assert names.slot == "gfx_slot"
    assert names.publication == "gfx_publication"
    assert names.capture_prefix == "gfx_cdc"


def test_topics_of_a_flow_written_on_both_sites_name_the_site() -> None:
    names = Names(OVERRIDES)
    assert names.topics(Site.SUPABASE) == ("external.player_overrides", "external.profile_images")
    assert names.topics(Site.EXTERNAL) == ("supabase.player_overrides", "supabase.profile_images")


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_namespace_keeps_every_name_apart(flow: Flow) -> None:
    def all_names(names: Names) -> set[str]:
        topics = {topic for target in flow.targets for topic in names.topics(target)}
        return topics | {
            names.heartbeat_topic,
            names.signal_topic,
            names.notification_topic,
            names.capture_prefix,
            names.keepalive_topic,
            names.connector,
            names.slot,
            names.publication,
        }

    plain, rehearsal = all_names(Names(flow)), all_names(Names(flow, "rehearsal"))
    assert len(plain) == len(rehearsal)
    assert not plain & rehearsal
    assert all("rehearsal" in name for name in rehearsal)


def test_slots_and_publications_are_names_that_postgresql_accepts() -> None:
    for flow in FLOWS:
        names = Names(flow, "x" * 20)
        for name in (names.slot, names.publication):
            assert name.replace("_", "").isalnum()
            assert name == name.lower()
            assert len(name) < 64


def test_no_topic_belongs_to_two_flows() -> None:
    topics = [
        topic for flow in FLOWS for target in flow.targets for topic in Names(flow).topics(target)
    ]
    assert len(topics) == len(set(topics))


def test_no_table_belongs_to_two_flows() -> None:
    tables = [table.qualified for flow in FLOWS for table in flow.tables]
    assert len(tables) == len(set(tables))


def test_owner_and_guard_follow_from_the_conflict_rule() -> None:
    assert (WSOP.owner, WSOP.guarded) == (Site.EXTERNAL, Site.SUPABASE)
    assert (RENDER_QUEUE.owner, RENDER_QUEUE.guarded) == (Site.SUPABASE, Site.EXTERNAL)
    for flow in FLOWS:
        assert (flow.owner is None) == (flow.conflict is Conflict.LAST_WRITE_WINS)
        assert flow.guarded is None or flow.targets == (flow.guarded,)


def test_unknown_flow_is_answered_with_those_there_are() -> None:
    assert flow_named("gfx") is GFX
    with pytest.raises(KeyError, match="gfx, wsop, overrides, cue_sheets, render_queue"):
        flow_named("poker")
