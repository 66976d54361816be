"""Many dead letters in a few figures. Pure. In: letters. Out: `Summary`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pipeline.dead_letters.letter import DeadLetter


@dataclass(frozen=True, slots=True)
class Summary:
    """What lies in a dead-letter queue. `errors` and `types`: (name, how many), the most frequent first.

    `oldest` and `newest` are when letters became dead letters, None when none says. `size` is bytes of bodies.
    """

    count: int
    size: int
    oldest: datetime | None
    newest: datetime | None
    errors: tuple[tuple[str, int], ...]
    types: tuple[tuple[str, int], ...]


class Tally:
    """Counts letters one by one, so that nobody need keep them all."""

    def __init__(self) -> None:
        self._count = self._size = 0
        self._oldest: datetime | None = None
        self._newest: datetime | None = None
        self._errors: Counter[str] = Counter()
        self._types: Counter[str] = Counter()

    def add(self, letter: DeadLetter) -> None:
        """Count one."""
        self._count += 1
        self._size += letter.size
        self._errors[letter.error] += 1
        self._types[letter.type] += 1
        if (at := letter.last_failure) is not None:
            self._oldest = at if self._oldest is None else min(at, self._oldest)
            self._newest = at if self._newest is None else max(at, self._newest)

    def summary(self) -> Summary:
        """The figures so far."""
        return Summary(self._count, self._size, self._oldest, self._newest, _ranked(self._errors), _ranked(self._types))


def summarise(letters: Iterable[DeadLetter]) -> Summary:
    """The figures of `letters`."""
    tally = Tally()
    for letter in letters:
        tally.add(letter)
    return tally.summary()


def _ranked(counts: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
