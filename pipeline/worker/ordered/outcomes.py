"""What others are told of ends and failures. In: committed steps, dead letters. Out: tally, notes, cache, relay."""

from __future__ import annotations

from pipeline.cache import AfterCommit
from pipeline.retry import RetryLater
from pipeline.worker.notes import FailureNotes
from pipeline.worker.ordered.step import Step
from pipeline.worker.outgoing import OutgoingRelay
from pipeline.worker.report import Tally, report
from pipeline.worker.settle import Settlement


class Outcomes:
    """Tells those who want to know; `tally` counts."""

    def __init__(
        self, subscription: str, outgoing: OutgoingRelay, notes: FailureNotes, cache: AfterCommit | None
    ) -> None:
        self.tally = Tally()
        self._subscription = subscription
        self._outgoing = outgoing
        self._notes = notes
        self._cache = cache

    def committed(self, step: Step, fresh: bool) -> None:
        """The step is in the database; `fresh` when its effects were not there before."""
        effects = step.entry.effects
        if effects is None:
            if step.failed is not None and step.then == "retry":
                self.failed(Settlement(step.failed, RetryLater(step.wait, step.wait), None))
            return
        if step.item.marker:
            return
        if not fresh:
            self.tally.duplicates += 1
            return
        self.tally.processed += 1
        if effects.outgoing:
            self._outgoing.add(list(effects.outgoing))
        if step.entry.had_line:
            self._notes.processed([step.item.work.event.id if step.item.work else step.item.event_id])
        if self._cache is not None and effects.result is not None:
            self._cache.add({effects.result_id or effects.event_id: effects.result})

    def failed(self, settlement: Settlement) -> None:
        """An attempt has failed, and what becomes of the event is settled."""
        report(self._subscription, settlement, self.tally)
        self._notes.failed(settlement)
