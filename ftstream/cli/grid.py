"""How commands print tables: no name is cut, however narrow the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection

from rich import box
from rich.console import Console
from rich.table import Table

_WIDTH_OF_FILES = 200
"""Columns of what is written to a file or a pipe, where nobody folds lines for a screen."""


def grid(*columns: str, whole: Collection[str] = (), title: str | None = None) -> Table:
    """Return a table whose cells go on in the next line where they do not fit.

    Columns in `whole` stay in one line: what is copied from there is copied at once.
    """
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name in whole)
    return table


def output(*, stderr: bool = False) -> Console:
    """Return where to print rows and values: they are printed as they are, never read as markup."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if terminal or "COLUMNS" in os.environ else _WIDTH_OF_FILES
    return Console(markup=False, highlight=False, stderr=stderr, width=width)
