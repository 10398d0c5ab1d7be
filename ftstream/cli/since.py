"""A time in the past, as people write it: 2026-11-24T10:00, or 10m."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import click

_AGO = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse(text: str, now: datetime) -> datetime:
    """An aware time; without a zone it is of this machine's. Raises ValueError, which says what is wrong."""
    try:
        at = _before(text, now) or datetime.fromisoformat(text).astimezone()
    except OverflowError:
        raise ValueError(f"{text} lies too far back") from None
    except ValueError:
        raise ValueError(
            f"{text!r} is no time: give an ISO time (2026-11-24T10:00, +09:00 at its end names a zone)"
            " or how long ago (90s, 10m, 2h, 1d)"
        ) from None
    if at > now:
        raise ValueError(f"{text} lies in the future: here it is {now:%Y-%m-%d %H:%M:%S %z}")
    return at


def span(text: str) -> timedelta | None:
    """How long 90s, 10m, 2h, 1d or 1w are; None for anything else."""
    found = _AGO.fullmatch(text)
    return found and timedelta(**{_UNITS[found[2]]: int(found[1])})


def _before(text: str, now: datetime) -> datetime | None:
    ago = span(text)
    return None if ago is None else now - ago


class SinceType(click.ParamType):
    """See parse."""

    name = "time"

    def convert(
        self,
        value: str | datetime,
        param: click.Parameter | None,
        context: click.Context | None,
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return parse(value, datetime.now().astimezone())
        except ValueError as error:
            self.fail(str(error), param, context)
