"""What the producer's store takes and gives, as plain values. In: the gateway's events. Out: what became of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from pipeline.errors import RowRejected
from pipeline.message import Message
from pipeline.store.transaction import unstorable

LONGEST_ID = 1024  # bytes; PostgreSQL can't index a key of more than about 2,700


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to accept. `payload` is its data as JSON text (UTF-8), `message` what will travel; `time` is aware."""

    id: str
    type: str
    source: str
    subject: str | None
    time: datetime
    payload: bytes
    message: Message

    @property
    def fingerprint(self) -> bytes:
        """Equal for the same type and payload, byte by byte."""
        return hashlib.sha256(self.type.encode() + b"\0" + self.payload).digest()


class Acceptance(Enum):
    """What `ProducerStore.accept` did with an event."""

    ACCEPTED = "accepted"  # it is new, and will be published
    REPEATED = "repeated"  # the same event was accepted before; nothing was written
    CONFLICT = "conflict"  # another event was accepted under this id; nothing was written


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it was accepted, and whether it is published: `status` is "accepted" or "published"."""

    id: str
    type: str
    source: str
    subject: str | None
    time: datetime
    payload: bytes
    status: str
    accepted_at: datetime
    published_at: datetime | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """An accepted event that is still to be published. `seq` ascends in the order of acceptance."""

    seq: int
    event_id: str
    message: Message


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """How many events are kept (`accepted`), `published`, and `waiting` to be, the first of them since `oldest`."""

    waiting: int
    oldest: datetime | None
    accepted: int
    published: int


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key to the gateway: `hash` is of its secret, which nobody keeps. Revoked for good once `revoked_at` is set."""

    id: str
    name: str
    hash: str
    scopes: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None = None


def check(events: Sequence[NewEvent]) -> None:
    """Raises: RowRejected when some database could not keep one of these as it is."""
    for event in events:
        message = event.message
        texts = (event.id, event.type, event.source, event.subject or "", message.exchange, message.routing_key)
        if unstorable(texts) or not _is_utf8(event.payload):
            raise RowRejected(
                f"event {event.id!r} holds text that a database can't keep: NUL, half a surrogate pair, or a payload"
                " that is not UTF-8"
            )
        if len(event.id.encode()) > LONGEST_ID:
            raise RowRejected(f"the event id {event.id[:40]!r}… is too long: at most {LONGEST_ID} bytes can be kept")


def _is_utf8(payload: bytes) -> bool:
    try:
        return b"\0" not in payload and (payload.isascii() or bool(payload.decode()))
    except UnicodeDecodeError:
        return False
