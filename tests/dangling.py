"""Looks for rows that refer to what is not there: no foreign key is looked after while ftstream applies."""

from __future__ import annotations

from typing import Final, LiteralString

CHECKS: Final[LiteralString] = """
    select format('select %L, count(*) from %s c where %s and not exists'
                  ' (select from %s p where (%s) = (%s))',
                  f.name, f.child::regclass, f.present, f.parent::regclass, f.parent_columns, f.child_columns)
    from ftstream.foreign_keys f where f.child::regclass::text !~ '^ftstream'
"""
"""A query for each foreign key, which tells its name, and how many of its rows dangle."""
