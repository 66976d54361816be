"""What was measured, as values. In: numbers of each repetition. Out: `Outcome`s, and `results.json` to keep them.

`results.json` keeps the last outcome of every measure, so that a part can be measured again by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """The same figure, measured several times."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.values)

    def text(self, form: str = "{:,.0f}", unit: str = "") -> str:
        """`43,300/s (41,200 to 44,000)`: median, least and most."""
        middle = form.format(self.median) + unit
        if len(self.values) < 2:
            return middle
        return f"{middle} ({form.format(min(self.values))} to {form.format(max(self.values))})"


def spread(values: Iterable[float]) -> Spread:
    """Of at least one value."""
    return Spread(tuple(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Round by round, as what was measured side by side is what can be compared."""
    return spread(mine / other for mine, other in zip(ours, theirs, strict=True))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the summary; `passed` is None where nothing was promised."""

    what: str
    target: str
    measured: str
    passed: bool | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Figures behind the summary."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class Bar:
    """A throughput for the picture: median, least and most, in events a second."""

    group: str
    label: str
    value: float
    low: float
    high: float
    ours: bool


@dataclass(frozen=True, slots=True)
class Curve:
    """A latency distribution for the picture: (percentile, milliseconds) pairs."""

    label: str
    points: list[tuple[float, float]]


@dataclass(slots=True)
class Outcome:
    """All that came of one measure. `about` says what was done; `notes` what a reader must know."""

    measure: str
    about: str = ""
    rows: list[Row] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    taken: dict[str, str] = field(default_factory=dict)  # when, on what


def bar(group: str, label: str, rates: Spread, ours: bool = True) -> Bar:
    """The bar of some rates."""
    return Bar(group, label, rates.median, min(rates.values), max(rates.values), ours)


def load(path: Path) -> dict[str, Outcome]:
    """The outcomes kept at `path`, by measure; none when there is no such file."""
    if not path.exists():
        return {}
    kept: dict[str, Any] = json.loads(path.read_text())
    return {name: _outcome(data) for name, data in kept.items()}


def save(path: Path, outcomes: dict[str, Outcome]) -> None:
    """Keep the outcomes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: asdict(outcome) for name, outcome in outcomes.items()}
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def _outcome(data: dict[str, Any]) -> Outcome:
    return Outcome(
        data["measure"],
        data["about"],
        [Row(**row) for row in data["rows"]],
        [Table(**table) for table in data["tables"]],
        data["notes"],
        [Bar(**each) for each in data["bars"]],
        [Curve(each["label"], [(at, value) for at, value in each["points"]]) for each in data["curves"]],
        data["taken"],
    )
