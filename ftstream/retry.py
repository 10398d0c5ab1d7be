"""Tries again what the world keeps from being done, for as long as it takes, and says once what is wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from logging import Logger
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_fixed

T = TypeVar("T")


class Trouble:
    """What keeps some work from being done: said when it begins, and not again until it is over."""

    def __init__(self, log: Logger, work: str) -> None:
        self._log, self._work = log, work
        self._said = False

    def met(self, error: BaseException) -> None:
        if not self._said:
            self._log.warning("%s: %s", self._work, " ".join(str(error).split()) or repr(error))
        self._said = True

    def over(self) -> None:
        self._said = False


async def until_done(
    attempt: Callable[[], Awaitable[T]],
    trouble: Trouble,
    *errors: type[Exception],
    seconds: float = 1.0,
) -> T:
    """Make the attempt until none of these errors comes of it, with a pause before each other one."""

    def say(state: RetryCallState) -> None:
        if state.outcome is not None and (error := state.outcome.exception()) is not None:
            trouble.met(error)

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(errors), wait=wait_fixed(seconds), before_sleep=say
    )
    result: T = await retrying(attempt)
    trouble.over()
    return result
