"""Every way an apply can fail has one policy, and what a person must fix has a hint."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from ftstream.failures import FENCED, ROW_MISSING, Failure, FlowHalted, Policy, classify

KNOWN = sorted(
    value.sqlstate
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, psycopg.Error) and value.sqlstate
)
"""Every SQLSTATE that PostgreSQL documents."""


@pytest.mark.parametrize("sqlstate", KNOWN)
def test_every_error_of_postgresql_has_a_policy_and_those_for_people_a_hint(sqlstate: str) -> None:
    failure = classify(sqlstate, "message")
    assert failure.policy is not Policy.FENCED  # that one is ftstream's own
    assert failure.hint


@pytest.mark.parametrize(
    "sqlstate",
    [
        *("08006", "08P01", "25006", "40001", "40P01", "53000", "53100", "53200", "53300"),
        *("53400", "57P01", "57P02", "57P03", "57P05", "58000", "58030"),
    ],
)
def test_faults_of_the_world_are_retried(sqlstate: str) -> None:
    assert classify(sqlstate, "").policy is Policy.RETRY


@pytest.mark.parametrize("sqlstate", ["22003", "22P02", "23502", "23503", "23514"])
def test_values_that_do_not_fit_are_parked(sqlstate: str) -> None:
    assert classify(sqlstate, "").policy is Policy.PARK


def test_rows_that_others_hold_wait_and_a_batch_that_takes_too_long_is_divided() -> None:
    assert classify("55P03", "").policy is Policy.WAIT
    assert classify("57014", "").policy is Policy.DIVIDE


@pytest.mark.parametrize("sqlstate", ["42501", "42P01", "42703"])
def test_what_only_a_person_can_mend_halts(sqlstate: str) -> None:
    assert classify(sqlstate, "").policy is Policy.HALT


def test_unique_values_and_missing_rows_are_read_again_from_their_owner() -> None:
    assert classify("23505", "").policy is Policy.REREAD
    assert classify(ROW_MISSING, "").policy is Policy.REREAD
    assert Policy.REREAD.later is Policy.PARK


def test_another_worker_fences() -> None:
    assert classify(FENCED, "").policy is Policy.FENCED
    assert Policy.FENCED.later is Policy.FENCED


def test_error_without_a_state_is_a_lost_connection() -> None:
    failure = classify(None, "server closed the connection unexpectedly\n\tThis probably means")
    assert failure.policy is Policy.RETRY
    assert failure.connection
    assert failure.message == "server closed the connection unexpectedly This probably means"


@pytest.mark.parametrize(
    "words",
    [
        'connection failed: FATAL:  password authentication failed for user "x"',
        'connection failed: FATAL:  role "x" does not exist',
        'connection failed: FATAL:  role "x" is not permitted to log in',
    ],
)
def test_refused_login_is_retried_and_names_the_setting(words: str) -> None:
    failure = classify(None, words)
    assert failure.policy is Policy.RETRY
    assert "check dsn (user, password)" in failure.hint


def test_unknown_state_halts() -> None:
    failure = classify("XYZ99", "odd")
    assert failure.policy is Policy.HALT
    assert failure.hint


def test_halted_flow_names_itself_the_failure_and_the_mend() -> None:
    failure = Failure(Policy.HALT, "42P01", 'relation "x" does not exist', "create it")
    assert str(FlowHalted("gfx", failure)) == (
        'flow gfx halted: relation "x" does not exist (create it)'
    )
