"""How far a command has come, and how it ended. Plain values for whoever shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.dead_letters.letter import DeadLetter


@dataclass(frozen=True, slots=True)
class Progress:
    """`seen` of `total` dead letters have been looked at; `done` were chosen and are dealt with."""

    seen: int
    total: int
    done: int


Watcher = Callable[[Progress], None]


def nobody(progress: Progress) -> None:
    """Watch nothing."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a command did. `done` of the `chosen` letters were dealt with (0 in a dry run); `left` lay there before and
    still do. `missing` are asked-for ids that are not in the queue; `first` shows some of the chosen, briefly.
    """

    chosen: int
    done: int
    left: int
    missing: tuple[str, ...] = ()
    first: tuple[DeadLetter, ...] = ()
    dry_run: bool = False
