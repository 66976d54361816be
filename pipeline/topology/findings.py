"""Where things stand in the files, and what was found wrong. In: places and complaints. Out: sorted `Problem`s.

A path is a tuple of keys and list indexes from the top of the merged files: ("subscriptions", "payments", "retry").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches

from pipeline.errors import Problem

Path = tuple[str | int, ...]
_LISTED = 8  # so many choices are named in a hint; more would bury the message


@dataclass(frozen=True, slots=True)
class Place:
    """A spot in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(slots=True)
class Findings:
    """Collects every problem of a load, and knows the place of every key and value by its path."""

    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _exact: set[Path] = field(default_factory=set)
    _broken: set[Path] = field(default_factory=set)
    _binding_starts: list[int] = field(default_factory=list)

    def error(self, path: Path, message: str, hint: str = "", *, at: Place | None = None, key: bool = False) -> None:
        """Note an error at the value of `path` (or at its key, or at `at`)."""
        self._note(path, message, hint, at or self.place(path, key=key), warning=False)
        self._exact.add(path)
        self._broken.update(path[:length] for length in range(len(path) + 1))

    def warn(self, path: Path, message: str, hint: str = "") -> None:
        """Note a warning at the key of `path`."""
        self._note(path, message, hint, self.place(path, key=True), warning=True)

    def absorb(self, other: Findings, bindings: int) -> None:
        """Add what was found in one file; its bindings come after `bindings` ones of the files before."""

        def moved(path: Path) -> Path:
            if len(path) > 1 and path[0] == "bindings" and isinstance(path[1], int):
                return ("bindings", path[1] + bindings, *path[2:])
            return path

        self._binding_starts.append(bindings)
        self.problems += other.problems
        self._exact.update(moved(path) for path in other._exact)
        self._broken.update(moved(path) for path in other._broken)
        for path, place in other.keys.items():
            self.keys.setdefault(moved(path), place)
        for path, place in other.values.items():
            self.values.setdefault(moved(path), place)

    def clash(self, path: Path, second: Place) -> None:
        """Note that another file has the key at `path` too."""
        self.error(path, "is declared twice", f"first at {self.place(path, key=True)}", at=second)

    def broken(self, path: Path) -> bool:
        """Whether an error was noted at or under `path`: what stands there is not fit for further checks."""
        return path in self._broken

    def wrong(self, path: Path) -> bool:
        """Whether an error was noted at just `path`."""
        return path in self._exact

    def place(self, path: Path, *, key: bool = False) -> Place:
        """The place of the value (or key) at `path`, else of the nearest thing around it."""
        first, second = (self.keys, self.values) if key else (self.values, self.keys)
        around = (path[:length] for length in range(len(path), -1, -1))
        found = (first.get(part) or second.get(part) for part in around)
        return next((place for place in found if place), Place("", 0, 0))

    @property
    def errors(self) -> list[Problem]:
        """All problems but the warnings, in file order."""
        return [problem for problem in self.sorted() if not problem.warning]

    @property
    def warnings(self) -> list[Problem]:
        """The warnings, in file order."""
        return [problem for problem in self.sorted() if problem.warning]

    def sorted(self) -> list[Problem]:
        """All problems by file, line and column."""
        return sorted(self.problems, key=lambda problem: (problem.file, problem.line, problem.column))

    def _note(self, path: Path, message: str, hint: str, place: Place, *, warning: bool) -> None:
        if len(path) > 1 and path[0] == "bindings" and isinstance(path[1], int):
            # The reader of a message counts from the start of the file.
            own = path[1] - max((start for start in self._binding_starts if start <= path[1]), default=0)
            path = ("bindings", own, *path[2:])
        label = path_text(path)
        self.problems.append(Problem(message, place.file, place.line, place.column, label, hint, warning))


def path_text(path: Path) -> str:
    """`subscriptions.payments.retry.delays[2]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if part and part.isprintable() else repr(part)
            text += f".{shown}" if text else shown
    return text


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A hint: the choice nearest to `word`, else the choices when they are few."""
    options = list(dict.fromkeys(choices))
    near = get_close_matches(word, options, n=1, cutoff=0.6)
    folded = {option.casefold(): option for option in options}
    if not near:
        near = [folded[match] for match in get_close_matches(word.casefold(), list(folded), n=1, cutoff=0.6)]
    if near:
        return f"did you mean {near[0]}?"
    if not options:
        return "none is declared"
    return f"one of: {', '.join(options[:_LISTED])}{', …' if len(options) > _LISTED else ''}"
