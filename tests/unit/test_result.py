"""Each error of applying a batch has one result, by its policy, its rows and what the batch holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ftstream.apply.merge import Batch, FromLog
from ftstream.apply.result import (
    Blocked,
    Fenced,
    Halt,
    Rejected,
    Result,
    Retry,
    TooLarge,
    result_of,
)
from ftstream.apply.sites import ApplyFailed
from ftstream.failures import Failure, Policy
from ftstream.messages.change import Change, Operation

ONE, TWO = ("notes", "1"), ("notes", "2")


def batch(*entities: tuple[str, str]) -> Batch:
    return Batch(
        tuple(
            Change(table, key, Operation.UPDATE, b"{}", False, "notes", 0, offset, None, None)
            for offset, (table, key) in enumerate(entities)
        ),
        FromLog(),
    )


def failed(policy: Policy) -> Failure:
    return Failure(policy, "state", "message", "hint")


@pytest.mark.parametrize(
    ("policy", "changes", "expected"),
    [
        (Policy.FENCED, (ONE, TWO), Fenced()),
        (Policy.DIVIDE, (ONE, TWO), TooLarge()),
        (Policy.DIVIDE, (ONE,), Rejected({ONE: failed(Policy.DIVIDE)})),
        (Policy.DIVIDE, (), Retry(failed(Policy.DIVIDE))),
        (Policy.PARK, (ONE, TWO), TooLarge()),  # halves tell which
        (Policy.PARK, (ONE,), Rejected({ONE: failed(Policy.PARK)})),
        (Policy.PARK, (), Halt(failed(Policy.PARK))),  # nothing there to park
        (Policy.WAIT, (ONE, TWO), Retry(failed(Policy.WAIT))),  # for a whole table
        (Policy.RETRY, (ONE,), Retry(failed(Policy.RETRY))),
        (Policy.REREAD, (ONE,), Retry(failed(Policy.REREAD))),
        (Policy.HALT, (ONE, TWO), Halt(failed(Policy.HALT))),
    ],
)
def test_error_without_rows_is_of_the_batch(
    policy: Policy, changes: tuple[tuple[str, str], ...], expected: Result
) -> None:
    assert result_of(ApplyFailed(failed(policy)), batch(*changes)) == expected


@pytest.mark.parametrize("policy", list(Policy))
def test_error_with_rows_is_of_them_alone_but_for_a_halt(policy: Policy) -> None:
    other = replace(failed(policy), message="of its own")
    error = ApplyFailed(failed(policy), [ONE, TWO], causes={TWO: other})
    rows = {ONE: failed(policy), TWO: other}
    match policy:
        case Policy.HALT:
            expected: Result = Halt(failed(policy))
        case Policy.PARK | Policy.DIVIDE:
            expected = Rejected(rows)
        case _:
            expected = Blocked(rows)
    assert result_of(error, batch(ONE, TWO)) == expected
