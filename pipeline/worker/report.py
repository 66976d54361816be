"""What a worker process tells of its events, to its log. In: settled failures. Out: log lines, counts."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.log import get_logger
from pipeline.retry import RetryLater
from pipeline.worker.settle import Settlement

log = get_logger("worker")


@dataclass(slots=True)
class Tally:
    """What this process did, for its log. Accounting counts from broker and database instead."""

    processed: int = 0
    duplicates: int = 0
    retried: int = 0
    dead_lettered: int = 0


def report(subscription: str, settlement: Settlement, tally: Tally) -> None:
    """Count and log one settled failure."""
    failed = settlement.failed
    fields = {
        "subscription": subscription,
        "event_id": failed.event_id,
        "type": failed.event_type,
        "attempt": failed.attempt,
        "error": failed.failure.kind,
        "message": failed.failure.message,
    }
    if isinstance(settlement.decision, RetryLater):
        tally.retried += 1
        log.info("retrying", **fields, wait=settlement.decision.wait)
    elif settlement.copy is None:
        log.error("dropped, as dead_letter is off", **fields, reason=settlement.decision.reason)
    else:
        tally.dead_lettered += 1
        log.warning("dead-lettered", **fields, reason=settlement.decision.reason)
