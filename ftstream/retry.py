"""Tries again what the world keeps from being done, for as long as it takes, and says once what is wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from logging import WARNING, Logger
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_fixed

T = TypeVar("T")


class Trouble:
    """What keeps some work from being done: said when it begins, and not again until it is over."""

    def __init__(self, log: Logger, work: str, over: str = "", level: int = WARNING) -> None:
        """`over`: what is said when it is over, if anything is."""
        self._log, self._work, self._over, self._level = log, work, over, level
        self._said = False

    def met(self, error: BaseException) -> None:
        if not self._said:
            self._log.log(self._level, "%s: %s", self._work, _reason(error))
        self._said = True

    def over(self) -> None:
        if self._said and self._over:
            self._log.log(self._level, self._over)
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


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return " ".join(str(error).split()) or repr(error)
