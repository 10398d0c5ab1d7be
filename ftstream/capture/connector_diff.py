"""What differs between the configuration a connector should have and the one it has."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ftstream.connect.masking import masked


class SettingChange(enum.StrEnum):
    """What applying would do to one setting."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class SettingDifference:
    """One setting that differs; values are masked where they hold a secret, None where absent."""

    key: str
    kind: SettingChange
    deployed: str | None
    wanted: str | None


def differences(
    wanted: Mapping[str, str], deployed: Mapping[str, str] | None
) -> tuple[SettingDifference, ...]:
    """By key; a connector that does not exist (None) lacks everything."""
    return tuple(_compare(wanted, deployed or {}))


def added_tables(wanted: Mapping[str, str], deployed: Mapping[str, str] | None) -> tuple[str, ...]:
    """Qualified tables that an existing connector did not capture: no snapshot will read them.

    A connector that is new snapshots all its tables by itself, so it has none.
    """
    if deployed is None:
        return ()
    before = _tables(deployed)
    return tuple(table for table in _tables(wanted) if table not in before)


def _tables(config: Mapping[str, str]) -> tuple[str, ...]:
    listed = config.get("table.include.list", "")
    return tuple(name.strip() for name in listed.split(",") if name.strip())


def _compare(wanted: Mapping[str, str], deployed: Mapping[str, str]) -> Iterator[SettingDifference]:
    # Connect adds the name to what it returns.
    keys = sorted((wanted.keys() | deployed.keys()) - {"name"})
    for key in keys:
        match wanted.get(key), deployed.get(key):
            case None, str(old):
                yield SettingDifference(key, SettingChange.REMOVED, masked(key, old), None)
            case str(new), None:
                yield SettingDifference(key, SettingChange.ADDED, None, masked(key, new))
            case str(new), str(old) if new != old:
                yield SettingDifference(
                    key, SettingChange.CHANGED, masked(key, old), masked(key, new)
                )
            case _:
                pass
