"""What is told of a connector that is not as it was made."""

from __future__ import annotations

from pydantic import SecretStr

from ftstream.capture.connectors import connector_config
from ftstream.connect.client import ConnectorStatus, Part
from ftstream.flows import GFX, CaptureNames, log_captures
from ftstream.settings import Database, Settings
from ftstream.setup.faults import Fault
from ftstream.setup.outside_faults import connector_faults

SETTINGS = Settings(
    external=Database(dsn=SecretStr("postgresql://ftstream_apply@db.crew/gfx")),
    supabase=Database(dsn=SecretStr("postgresql://ftstream_apply@other/postgres")),
)
(CAPTURE,) = log_captures([GFX])
NAMES = CaptureNames(CAPTURE, "")
AS_MADE = connector_config(NAMES, SETTINGS, first_snapshot=True)


def running(state: str = "RUNNING", *tasks: Part) -> ConnectorStatus:
    return ConnectorStatus(
        NAMES.connector, Part(None, state, ""), tasks or (Part(0, "RUNNING", ""),)
    )


AS_IT_RUNS = running()


def faults(
    config: dict[str, str] | None = AS_MADE, status: ConnectorStatus | None = AS_IT_RUNS
) -> list[Fault]:
    return list(connector_faults(NAMES, SETTINGS, config, status))


def test_a_connector_that_is_as_it_was_made_has_no_fault() -> None:
    assert faults() == []


def test_an_address_by_other_words_is_no_difference() -> None:
    """A worker in a container reaches Kafka and External elsewhere than whoever applied the connector."""
    elsewhere = {
        "database.hostname": "host.docker.internal",
        "database.port": "15432",
        "signal.kafka.bootstrap.servers": "kafka:19092",
    }
    assert elsewhere.keys() <= AS_MADE.keys()
    assert faults(AS_MADE | elsewhere) == []


def test_a_table_that_was_taken_out_is_named_with_what_is_lost() -> None:
    changed = AS_MADE | {"table.include.list": "public.gfx_sessions", "database.port": "1"}
    (fault,) = faults(changed)
    assert "table.include.list" in fault.what
    assert "database.port" not in fault.what
    assert fault.tables


def test_a_connector_that_is_gone_or_does_not_run_is_told_with_the_way_on() -> None:
    told = [
        *faults(None, None),
        *faults(status=running("PAUSED")),
        *faults(
            status=running("RUNNING", Part(0, "FAILED", "", "Caused by: java.io.IOException: x"))
        ),
        *faults(status=ConnectorStatus(NAMES.connector, Part(None, "RUNNING", ""), ())),
    ]
    whats = [fault.what.removeprefix(f"connector {NAMES.connector} ") for fault in told]
    assert whats == ["does not exist", "is paused", "has failed", "has no running task"]
    assert {fault.command for fault in told} == {"ftstream connectors apply gfx"}
    assert told[2].detail == "java.io.IOException: x"
