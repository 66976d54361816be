"""A dead letter as a value. In: `reading` makes it of a message. Out: everything a person or a filter asks of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PastFailure:
    """One entry of the history. `attempt` is 0 and `at` None when the message doesn't say."""

    attempt: int
    at: datetime | None
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message of a dead-letter queue. Text comes from the message as it is: escape it before printing.

    `reason` is the word for why it is here (exhausted, rejected, delivery_limit, ...), `error` the kind of its last
    failure (an exception's qualified name, or the reason). `attempts` is 0 when nobody counted. Times are aware, UTC.
    `size` is the body's in bytes. `fingerprint` is the same for the same message as long as it lies in its queue. What
    stands behind it is there only in a letter that was read whole; in `headers` and `attributes` secrets are masked.
    """

    id: str
    type: str
    subscription: str
    reason: str
    error: str
    message: str
    attempts: int
    first_failure: datetime | None
    last_failure: datetime | None
    redrives: int
    size: int
    exchange: str  # where it was first published to
    routing_key: str
    fingerprint: bytes
    forced: bool = False  # of a forced replay: the event itself may be processed
    traceback: str = ""
    history: tuple[PastFailure, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)  # of CloudEvents, without their prefix
    headers: Mapping[str, Any] = field(default_factory=dict)  # all others that are not this library's
    content_type: str = ""
    content_encoding: str = ""
    body: bytes = b""

    @property
    def order(self) -> tuple[datetime, str]:
        """Sort key: oldest first, by the time it became a dead letter, then by id."""
        return self.last_failure or _NEVER, self.id
