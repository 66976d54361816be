"""Which rows of the library's tables may go when they are old. In: what is meant, a moment. Out: rules, or why not.

Never what is still needed: follow-up and accepted events that are not published, notes of events that are tried again,
what a parked key waits for, who may commit for a partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, and_, exists, not_

from pipeline.errors import ConfigurationError
from pipeline.event import utc_now
from pipeline.store.ordered.lines import MARKER_TYPE
from pipeline.store.ordered.store import REMEMBERED
from pipeline.store.producer_tables import EVENT
from pipeline.store.revisions import PRODUCER, WORKER, Family
from pipeline.store.tables import CONSUMER, FAILURE, INBOX, LINE, RESULT, SUBSCRIPTION
from pipeline.store.times import as_text

SHORTEST = 3600.0  # seconds; what is younger may still be in a queue, a second time
RESULTS = "results"


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """Rows of one table that go together with `what`. `old` says which, given a moment.

    The table is walked in the order of `position`, which has an index (behind the subscription, where there is one);
    `within` says how far, when that is not to its end.
    """

    what: str
    family: Family
    table: Table
    position: Column[Any]
    old: Callable[[datetime], ColumnElement[bool]]
    within: Callable[[datetime], ColumnElement[bool]] | None = None

    def scope(self, subscription: str, before: datetime) -> list[ColumnElement[bool]]:
        """The part of the table that is to be walked."""
        scope = [self.table.c.subscription == subscription] if "subscription" in self.table.c else []
        return [*scope, self.within(before)] if self.within else scope


def _done(failure: Table) -> ColumnElement[bool]:
    """Whether the event of a note is in the inbox."""
    ours = (INBOX.c.subscription == failure.c.subscription, INBOX.c.event_id == failure.c.event_id)
    return exists().where(*ours)


def _known(before: datetime) -> ColumnElement[bool]:
    """Whether the process that a row of `SUBSCRIPTION` is about was heard of since."""
    ours = (CONSUMER.c.subscription == SUBSCRIPTION.c.subscription, CONSUMER.c.id == SUBSCRIPTION.c.consumer)
    return exists().where(*ours, CONSUMER.c.last_seen >= as_text(before))


def _buried(before: datetime) -> ColumnElement[bool]:
    """Whether a failed event of an ordered subscription holds nobody up, and can't come again."""
    at = min(before, utc_now() - REMEMBERED)
    return and_(LINE.c.state == "dead", LINE.c.place == 0, LINE.c.at < as_text(at))


# In this order. A note that was left behind goes before its inbox row: without that it would say that the event still
# fails.
RULES = (
    Rule(
        "notes",
        WORKER,
        FAILURE,
        FAILURE.c.event_id,
        lambda before: and_(FAILURE.c.state != "retrying", FAILURE.c.at < as_text(before), not_(_done(FAILURE))),
    ),
    Rule(
        "inbox",
        WORKER,
        FAILURE,
        FAILURE.c.event_id,
        lambda before: and_(FAILURE.c.at < as_text(before), _done(FAILURE)),
    ),
    Rule(
        "inbox",
        WORKER,
        INBOX,
        INBOX.c.event_id,
        # A worker waits until the markers of all partitions are there.
        lambda before: and_(INBOX.c.processed_at < as_text(before), INBOX.c.event_type != MARKER_TYPE),
    ),
    Rule(RESULTS, WORKER, RESULT, RESULT.c.event_id, lambda before: RESULT.c.created_at < as_text(before)),
    Rule("order", WORKER, LINE, LINE.c.event_id, _buried),
    Rule("consumers", WORKER, SUBSCRIPTION, SUBSCRIPTION.c.consumer, lambda before: not_(_known(before))),
    Rule("consumers", WORKER, CONSUMER, CONSUMER.c.id, lambda before: CONSUMER.c.last_seen < as_text(before)),
    Rule(
        "events",
        PRODUCER,
        EVENT,
        EVENT.c.accepted_at,
        lambda before: EVENT.c.published_at < as_text(before),  # not while it is NULL
        lambda before: EVENT.c.accepted_at < as_text(before),
    ),
)
WHAT = tuple(dict.fromkeys(rule.what for rule in RULES))
USUAL = tuple(what for what in WHAT if what != RESULTS)  # results are what handlers returned: their users' data


def what_of(texts: Iterable[str]) -> tuple[str, ...]:
    """What is meant by `--what inbox,notes`; the usual when nothing is. Raises: ConfigurationError."""
    named = [word.strip() for text in texts for word in text.split(",") if word.strip()]
    if wrong := [word for word in named if word not in WHAT]:
        raise ConfigurationError(f"--what {wrong[0]!r} is nothing that can be removed; there are {', '.join(WHAT)}")
    return tuple(what for what in WHAT if what in named) if named else USUAL


def check_age(older_than: float, what: Sequence[str], log_max_age: float | None) -> None:
    """Refuse what would have events processed twice. Both ages in seconds; None without an event log.

    Raises: ConfigurationError.
    """
    if older_than < SHORTEST:
        raise ConfigurationError(
            f"what is younger than 1 hour may still be in use: a retry, a second copy, a worker that was cut off;"
            f" --older-than {older_than:g}s needs --force"
        )
    if "inbox" in what and log_max_age is not None and log_max_age > older_than:
        raise ConfigurationError(
            f"the event log keeps events for {log_max_age / 86_400:g} d (max_age), and inbox rows older than"
            f" {older_than / 86_400:g} d would go: an event whose inbox row is gone is processed again by a replay."
            " Give a longer --older-than, leave inbox out of --what, or add --force"
        )
