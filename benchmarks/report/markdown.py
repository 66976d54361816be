"""Outcomes → results.md. In: outcomes of all measures. Out: Markdown; the pictures lie beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.report.terminal import verdict
from benchmarks.results import Outcome

THROUGHPUT, LATENCY = "throughput.svg", "latency.svg"

_HEAD = """\
# Results

Written by `make bench`; [benchmarks/](.) has the programs. Figures move between machines; ratios of one run hold. Every
figure is the median of the rounds, with the least and the most in brackets; what is compared was measured side by
side in the same round. Everywhere: 250-byte JSON bodies unless it says otherwise, persistent messages, durable quorum
queues, publisher confirms, manual acks, each publisher and each consumer a process of its own.
"""


def results(outcomes: Mapping[str, Outcome]) -> str:
    """The whole page."""
    parts = [_HEAD, _summary(outcomes.values()), _pictures(outcomes.values()), _taken(outcomes)]
    parts += [_measure(outcome) for outcome in outcomes.values()]
    return "\n".join(part for part in parts if part)


def _summary(outcomes: Iterable[Outcome]) -> str:
    rows = [[verdict(row), row.what, row.target, row.measured] for outcome in outcomes for row in outcome.rows]
    return table(["", "what", "target", "measured"], rows)


def _pictures(outcomes: Iterable[Outcome]) -> str:
    outcomes = list(outcomes)
    found = []
    if any(outcome.bars for outcome in outcomes):
        found.append(f"![Throughput, events a second]({THROUGHPUT})\n")
    if any(outcome.curves for outcome in outcomes):
        found.append(f"![Latency from publish to commit, by percentile]({LATENCY})\n")
    return "\n".join(found)


def _taken(outcomes: Mapping[str, Outcome]) -> str:
    """Once when all were measured on the same; what differs is said at each measure."""
    shared = _shared(outcomes)
    return "## Measured on\n\n" + table(["", ""], [[name, value] for name, value in shared.items() if value])


def _shared(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    takes = [outcome.taken for outcome in outcomes.values()]
    first = takes[0] if takes else {}
    return {name: value for name, value in first.items() if all(take.get(name) == value for take in takes)}


def _measure(outcome: Outcome) -> str:
    parts = [f"## {outcome.measure}\n\n{outcome.about}\n"]
    parts += [f"**{each.title}**\n\n{table(each.columns, each.rows)}" for each in outcome.tables]
    if outcome.notes:
        parts.append("\n".join(f"- {note}" for note in outcome.notes) + "\n")
    taken = {name: outcome.taken[name] for name in ("date", "load before") if name in outcome.taken}
    parts.append("*" + ", ".join(f"{name} {value}" for name, value in taken.items()) + "*\n")
    return "\n".join(parts)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines) + "\n"
