"""What fails for a while is tried until it is done, and said once."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import pytest

from ftstream.retry import Trouble, until_done

LOG = logging.getLogger("ftstream.test")


def failing(times: int) -> Callable[[], Awaitable[int]]:
    tries = 0

    async def attempt() -> int:
        nonlocal tries
        tries += 1
        if tries <= times:
            raise OSError("no answer\n  at all")
        return tries

    return attempt


async def test_trouble_is_said_once_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    trouble = Trouble(LOG, "reading")
    for _ in range(2):
        assert await until_done(failing(3), trouble, OSError, seconds=0) == 4
    assert [record.message for record in caplog.records] == ["reading: no answer at all"] * 2


async def test_other_errors_are_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OSError, match="no answer"):
        await until_done(failing(1), Trouble(LOG, "reading"), ValueError, seconds=0)
    assert caplog.records == []
