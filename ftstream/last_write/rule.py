"""The last-writer-wins register (guidelines 5.1): of two writes of an entity, the greater one stays.

Stamps compare as (version, site), a version being microseconds: the later write is the greater one, and of
two in one microsecond Supabase's, since "supabase" comes after "external", as in the enum ftstream.site.
Whatever order writes arrive in, repeated or late, both sites end with the greatest one. The database decides,
in advance.sql; tests compare it with a model of the rule.
"""

from __future__ import annotations

from collections.abc import Iterable

from ftstream.messages.change import Change, Entity


def newest(changes: Iterable[Change]) -> dict[Entity, Change]:
    """The greatest write of each entity."""
    result: dict[Entity, Change] = {}
    for change in changes:
        entity = change.entity
        other = result.get(entity)
        if other is None or change.stamp >= other.stamp:
            result[entity] = change
    return result
