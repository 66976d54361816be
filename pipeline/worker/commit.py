"""Handled work → one transaction a batch. In: `Handled`. Out: what is committed, what was there before, what failed.

A database that does not answer is nobody's failure: the commit waits and tries again for as long as it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.message import Delivery
from pipeline.retry import failure_of
from pipeline.store.patience import patiently
from pipeline.store.store import Store
from pipeline.store.writes import Outgoing
from pipeline.worker.work import Failed, Handled


@dataclass(slots=True)
class Committed:
    """How one batch ended: deliveries to ack, failures to settle, follow-up events to publish."""

    processed: int = 0
    duplicates: int = 0
    ack: list[Delivery] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    outgoing: list[Outgoing] = field(default_factory=list)
    failed_before: list[str] = field(default_factory=list)  # ids of events that took more than one attempt, or delivery
    results: dict[str, bytes] = field(default_factory=dict)  # of what is committed now, when they are asked for


async def commit(store: Store, subscription: str, batch: Sequence[Handled], keep_results: bool = False) -> Committed:
    """Results, inbox rows and follow-up events of `batch` in one transaction."""
    effects = [each.effects for each in batch]
    report = await patiently(subscription, lambda: store.commit(effects))
    ended = Committed()
    fresh = set(report.processed)
    for handled in batch:
        event_id = handled.effects.event_id
        work = handled.work
        error = report.rejected.get(event_id)
        if error is not None:
            failed = Failed(work.delivery, failure_of(error), work.attempt, work.event.id, work.event.type)
            ended.failed.append(failed)
            continue
        ended.ack.append(work.delivery)
        if work.attempt > 1 or work.delivery.redelivered:
            ended.failed_before.append(work.event.id)
        if event_id in fresh:
            fresh.discard(event_id)  # the same id again in this batch is a duplicate: its effects were dropped
            ended.outgoing.extend(handled.effects.outgoing)
            if keep_results and handled.effects.result is not None:
                ended.results[work.event.id] = handled.effects.result
    ended.processed = len(report.processed)
    ended.duplicates = len(ended.ack) - ended.processed
    return ended
