"""What the commands share: running coroutines, logging, printing errors, progress."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import typer

from pipeline.errors import ConfigurationError, PipelineError, Problem, TopologyError

T = TypeVar("T")

PLAIN_EVERY = 2.0  # seconds between plain progress lines


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end, on uvloop where it exists."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(coroutine)
    return uvloop.run(coroutine)


def guarded(command: Callable[[], Any]) -> None:
    """Run a command line; what is foreseeable ends in a sentence and an exit code."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # models and handlers are found from where the command runs, as with `python -m`
    try:
        command()
    except PipelineError as error:
        print_error(error, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output (`| head`) has gone; Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def run_command(function: Callable[..., Any]) -> None:
    """Run one command function as a program of its own."""
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(function)
    guarded(app)


@contextmanager
def extra_needed(name: str) -> Iterator[None]:
    """Around imports of what only `pip install 'event-pipeline[name]'` brings. Raises: ConfigurationError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pipeline"):
            raise
        raise ConfigurationError(
            f"{error.name} is not installed, which this needs: pip install 'event-pipeline[{name}]'"
        ) from error


def start_logging(level: str = "warning", as_json: bool | None = None) -> None:
    """Logs to standard error. Raises: typer.BadParameter for an unknown level."""
    from pipeline.log import configure

    if level.lower() not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter(f"{level!r} is no log level; there are debug, info, warning, error")
    configure(level, as_json)


def print_error(error: PipelineError, as_json: bool = False) -> None:
    """The error for a user, on standard error: no traceback."""
    if as_json:
        typer.echo(json.dumps(error_as_json(error)), err=True)
    elif isinstance(error, TopologyError):
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        wrong = sum(not problem.warning for problem in error.problems)
        typer.echo(f"{wrong} error{'s' if wrong != 1 else ''} in the topology", err=True)
    else:
        typer.echo(f"error: {error}", err=True)


def error_as_json(error: PipelineError) -> dict[str, Any]:
    """The error for a script."""
    found: dict[str, Any] = {"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
    if isinstance(error, TopologyError):
        found["problems"] = [problem_as_json(problem) for problem in error.problems]
    return found


def problem_as_json(problem: Problem) -> dict[str, Any]:
    """One problem for a script."""
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "path": problem.path,
        "message": problem.message,
        "hint": problem.hint,
        "warning": problem.warning,
    }


class Progress:
    """Progress with rate and time left: a bar on a terminal, plain lines elsewhere, nothing when `quiet`.

    `total` None when it is not known.
    """

    def __init__(self, what: str, total: int | None, quiet: bool = False) -> None:
        self._what = what
        self._total = total
        self._quiet = quiet
        self._done = 0
        self._began = self._said = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]:,.0f}/s"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total, rate=0.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def expect(self, total: int | None) -> None:
        """So many there will be: known only after the beginning."""
        if total != self._total:
            self._total = total
            if self._bar is not None:
                self._bar.update(self._task, total=total)

    def advance(self, n: int) -> None:
        """`n` more are done."""
        self._done += n
        now = time.monotonic()
        rate = self._done / max(now - self._began, 0.001)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=rate)
        elif not self._quiet and now - self._said >= PLAIN_EVERY:
            self._said = now
            left = f", {(self._total - self._done) / rate:,.0f} s left" if self._total and rate else ""
            of = f" of {self._total:,}" if self._total else ""
            typer.echo(f"{self._what}: {self._done:,}{of}, {rate:,.0f}/s{left}", err=True)
