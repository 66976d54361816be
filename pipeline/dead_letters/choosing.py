"""The book of one acting command: which letters were chosen, which are done. In: letters. Out: `Report`."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.dead_letters.letter import DeadLetter
from pipeline.dead_letters.progress import Progress, Report, Watcher
from pipeline.dead_letters.reading import read_dead_letter
from pipeline.dead_letters.selection import Selection
from pipeline.message import Delivery
from pipeline.topology.model import Subscription

SHOWN = 20  # letters a report holds as examples


class Choice:
    """Sorts deliveries by a selection and keeps count."""

    def __init__(self, subscription: Subscription, selection: Selection, total: int, watch: Watcher) -> None:
        self._subscription = subscription
        self._selection = selection
        self._total = total
        self._watch = watch
        self._found: set[str] = set()
        self._first: list[DeadLetter] = []
        self.seen = 0
        self.chosen = 0
        self.done = 0

    def among(self, batch: Sequence[Delivery]) -> list[Delivery]:
        """Those of `batch` that are meant."""
        chosen = []
        for delivery in batch:
            letter = read_dead_letter(delivery, self._subscription, whole=False)
            if self._selection.matches(letter):
                chosen.append(delivery)
                if letter.id in self._selection.ids:
                    self._found.add(letter.id)
                if len(self._first) < SHOWN:
                    self._first.append(letter)
        return chosen

    def count(self, seen: int = 0, chosen: int = 0, done: int = 0) -> None:
        """Add to the figures and tell the watcher."""
        self.seen += seen
        self.chosen += chosen
        self.done += done
        self._watch(Progress(self.seen, self._total, self.done))

    def report(self, dry_run: bool = False) -> Report:
        """How it ended."""
        missing = tuple(sorted(self._selection.ids - self._found))
        return Report(self.chosen, self.done, self._total - self.done, missing, tuple(self._first), dry_run)
