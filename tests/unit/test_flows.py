"""Everything is called what the guidelines call it, and all of it derives from the flows."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from ftstream.cli import main
from ftstream.flows import (
    CUE_SHEETS,
    FLOWS,
    GFX,
    OVERRIDES,
    RENDER_QUEUE,
    WSOP,
    CaptureNames,
    Conflict,
    Flow,
    Names,
    Site,
    captures_of,
    log_captures,
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
    (capture,) = log_captures([GFX])
    captured = CaptureNames(capture)
    assert captured.connector == "gfx-postgres-connector"
    assert captured.slot == "gfx_slot"
    assert captured.publication == "gfx_publication"
    assert captured.prefix == "gfx_cdc"


def test_topics_of_a_flow_written_on_both_sites_name_the_site() -> None:
    names = Names(OVERRIDES)
    assert names.topics(Site.SUPABASE) == ("external.player_overrides", "external.profile_images")
    assert names.topics(Site.EXTERNAL) == ("supabase.player_overrides", "supabase.profile_images")


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_namespace_keeps_every_name_apart(flow: Flow) -> None:
    def all_names(namespace: str) -> set[str]:
        names = Names(flow, namespace)
        found = {topic for target in flow.targets for topic in names.topics(target)}
        for each in (CaptureNames(capture, namespace) for capture in log_captures([flow])):
            found |= {each.heartbeat_topic, each.signal_topic, each.notification_topic}
            found |= {each.keepalive_topic, each.prefix}
            found |= {each.connector, each.slot, each.publication}
        return found

    plain, rehearsal = all_names(""), all_names("rehearsal")
    assert len(plain) == len(rehearsal)
    assert not plain & rehearsal
    assert all("rehearsal" in name for name in rehearsal)


def test_slots_and_publications_are_names_that_postgresql_accepts() -> None:
    for capture in log_captures(FLOWS):
        names = CaptureNames(capture, "x" * 20)
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


def test_flows_captured_by_outbox_share_a_connector_until_the_last_of_them_goes() -> None:
    assert [capture.name for capture in log_captures(FLOWS)] == ["gfx", "outbox"]
    assert captures_of([OVERRIDES], staying=[CUE_SHEETS, GFX]) == ()
    assert [c.name for c in captures_of([OVERRIDES, CUE_SHEETS], staying=[GFX])] == ["outbox"]
    # What only Supabase writes leaves by no connector.
    assert log_captures([RENDER_QUEUE]) == ()


@pytest.mark.parametrize(
    ("command", "flows"),
    [
        (["wait"], FLOWS),
        (["verify"], FLOWS),
        (["remove"], FLOWS),
        (["accept-loss"], FLOWS),
        (["dead", "list", "--flow"], FLOWS),
        (["connectors", "apply"], (GFX, OVERRIDES, CUE_SHEETS)),
    ],
)
def test_unknown_flow_is_answered_with_those_there_are(
    command: list[str], flows: tuple[Flow, ...]
) -> None:
    result = CliRunner().invoke(main, [*command, "poker"])
    assert result.exit_code == 2
    assert f"there are: {', '.join(flow.name for flow in flows)}" in result.output
