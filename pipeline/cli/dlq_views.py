"""Dead letters on the terminal. In: letters, summaries, reports. Out: tables and text, every foreign word made safe."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.dead_letters import DeadLetter, Report, Summary
from pipeline.dead_letters.as_json import brief_json, summary_json, whole_json
from pipeline.dead_letters.payload_text import payload_text
from pipeline.dead_letters.printable import block, json_able, one_line

TOP_ERRORS = 3
CELL = 80  # characters of a foreign text in a table
PIPE_WIDTH = 4000  # columns where there is no terminal: nothing may be wrapped or cut off for a program that reads
NARROW = 120  # columns; a table of letters needs more
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """One subscription's line: its figures, or the problem that kept them away."""

    name: str
    summary: Summary | None
    problem: str = ""
    exit_code: int = 0


def counted(letters: int) -> str:
    """`1 dead letter`, `2 dead letters`."""
    return f"{letters} dead letter{'s' if letters != 1 else ''}"


def show_summaries(rows: Sequence[Row], as_json: bool) -> None:
    """What `dlq list` found."""
    if as_json:
        _print_json([_row_json(row) for row in rows])
        return
    table = _table("subscription", "dead letters", "oldest (UTC)", "top errors")
    table.columns[1].justify = "right"
    for row in rows:
        if row.summary is None:
            table.add_row(_cell(row.name), "?", "", Text(one_line(row.problem)))
            continue
        found = row.summary
        top = ", ".join(f"{one_line(error, CELL)} ({count})" for error, count in found.errors[:TOP_ERRORS])
        if len(found.errors) > TOP_ERRORS:
            top += f" and {len(found.errors) - TOP_ERRORS} more"
        table.add_row(_cell(row.name), str(found.count), _time(found.oldest) if found.count else "", Text(top))
    _console().print(table)


def show_letters(
    letters: Sequence[DeadLetter], in_all: int, name: str, whole: bool = False, as_json: bool = False
) -> None:
    """Letters in a table, or each with everything when they were read `whole`."""
    if as_json:
        _print_json([whole_json(letter) if whole else brief_json(letter) for letter in letters])
        return
    out = _console()
    if whole:
        for letter in letters:
            _print_whole(out, letter)
        return
    if not letters:
        out.print(f"no dead letters of {name}" + ("" if not in_all else " are shown"))
        return
    if out.width < NARROW:
        _print_narrow(out, letters)
    else:
        _print_table(out, letters)
    if len(letters) < in_all:
        out.print(f"{len(letters)} of {in_all} shown")


def show_report(report: Report, name: str, done_word: str, as_json: bool) -> None:
    """How a redrive or discard ended."""
    if as_json:
        found = {"chosen": report.chosen, "done": report.done, "left": report.left, "missing": list(report.missing)}
        _print_json({"subscription": name, "dry_run": report.dry_run, **found})
        return
    if report.dry_run:
        show_letters(report.first, report.chosen, name)
        _console().print(f"{counted(report.chosen)} of {name} would be {done_word}; nothing was changed")
    else:
        _console().print(f"{counted(report.done)} of {name} {done_word}; {report.left} left")
    show_missing(report.missing, name)


def show_missing(ids: Sequence[str], name: str) -> None:
    """The ids that were asked for and are not there."""
    for missing in ids:
        typer.echo(f"no dead letter of {name} has the id {one_line(missing)}", err=True)


def _print_table(out: Console, letters: Sequence[DeadLetter]) -> None:
    table = _table("id", "type", "reason", "error", "message", "attempts", "first failure (UTC)", "last failure (UTC)")
    table.columns[0].no_wrap = True  # to be copied
    for letter in letters:
        table.add_row(
            _cell(letter.id or "(no id)"),
            _cell(letter.type or NOTHING),
            _cell(letter.reason),
            _cell(letter.error),
            _cell(letter.message),
            str(letter.attempts or NOTHING),
            _time(letter.first_failure),
            _time(letter.last_failure),
        )
    out.print(table)


def _print_narrow(out: Console, letters: Sequence[DeadLetter]) -> None:
    """Three lines a letter, where a table would be all folds."""
    for letter in letters:
        times = f"{_time(letter.first_failure)} to {_time(letter.last_failure)} UTC"
        attempts = f", {letter.attempts} attempts" if letter.attempts else ""
        out.print(f"{one_line(letter.id or '(no id)')}  {one_line(letter.type, CELL)}", soft_wrap=True)
        out.print(f"    {one_line(letter.error, CELL)}: {one_line(letter.message, CELL)}", soft_wrap=True)
        out.print(f"    {one_line(letter.reason, CELL)}{attempts}, {times}", soft_wrap=True)


def _print_whole(out: Console, letter: DeadLetter) -> None:
    facts = {
        "id": letter.id or "(no id)",
        "type": letter.type or NOTHING,
        "subscription": letter.subscription,
        "reason": letter.reason,
        "error": letter.error,
        "message": letter.message or NOTHING,
        "attempts": str(letter.attempts or NOTHING),
        "first failure": _time(letter.first_failure),
        "last failure": _time(letter.last_failure),
        "redriven": str(letter.redrives or "never"),
        "published to": f"{letter.exchange or '(default exchange)'} with key {letter.routing_key or '(none)'}",
        "content type": letter.content_type or NOTHING,
    }
    for name, value in facts.items():
        out.print(f"{name:<14}{one_line(value)}", soft_wrap=True)
    for title, entries in (("attributes", letter.attributes), ("headers", json_able(letter.headers))):
        if entries:
            out.print(f"\n{title}")
        for name, value in entries.items():
            out.print(f"  {one_line(name)}: {one_line(str(value))}", soft_wrap=True)
    if letter.history:
        out.print("\nhistory")
    for past in letter.history:
        attempt = f"attempt {past.attempt}" if past.attempt else NOTHING
        words = f"{past.error}: {past.message}" if past.message else past.error
        out.print(f"  {_time(past.at)}  {attempt:<11} {one_line(words)}", soft_wrap=True)
    if letter.traceback:
        out.print(f"\n{block(letter.traceback).rstrip()}", soft_wrap=True)
    kind, text = payload_text(letter)
    out.print(f"\npayload ({kind})\n{text}", soft_wrap=True)


def _row_json(row: Row) -> dict[str, Any]:
    if row.summary is None:
        return {"subscription": row.name, "problem": row.problem}
    return {"subscription": row.name, **summary_json(row.summary)}


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))  # ASCII only: no foreign control character reaches a terminal


def _console() -> Console:
    """For results; no word of a message is taken for markup."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _cell(text: str) -> Text:
    return Text(one_line(text, CELL))


def _time(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S") if moment else NOTHING
