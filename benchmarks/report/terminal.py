"""Outcomes → a table on the terminal. In: outcomes. Out: text."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from benchmarks.results import Outcome, Row

HEAD = ("", "what", "target", "measured")
GREEN, RED, END = ("\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


def verdict(row: Row) -> str:
    """In a word."""
    return "" if row.passed is None else "pass" if row.passed else "LOST"


def summary(outcomes: Iterable[Outcome]) -> str:
    """The rows that have a target."""
    rows = [row for outcome in outcomes for row in outcome.rows]
    cells = [HEAD, *((verdict(row), row.what, row.target, row.measured) for row in rows)]
    lines = aligned(cells)
    colored = [lines[0], "─" * max(map(len, lines))]
    for row, line in zip(rows, lines[1:], strict=True):
        colored.append(f"{GREEN if row.passed else RED}{line}{END}" if row.passed is not None else line)
    return "\n".join(colored)


def details(outcome: Outcome) -> str:
    """The tables of one outcome."""
    parts = []
    for table in outcome.tables:
        parts.append(f"\n  {table.title}")
        parts += [f"    {line}" for line in aligned([table.columns, *table.rows])]
    return "\n".join(parts)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the columns under each other."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
