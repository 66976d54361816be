"""Tables on the terminal. In: rows of text, however foreign. Out: standard output, nothing cut off for a program."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.dead_letters.printable import one_line

CELL = 80  # characters of a text in a table
PIPE_WIDTH = 4000  # columns where there is no terminal: nothing may be wrapped for a program that reads


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """The rows under their columns; the first column is never wrapped, for it is there to be copied."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=not number)
    for first, *others in rows:
        table.add_row(Text(one_line(first)), *[Text(one_line(cell, CELL)) for cell in others])
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False, emoji=False).print(table)
