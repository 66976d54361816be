"""The one error tree. In: nothing. Out: every exception this library raises on purpose.

    PipelineError                          exit code of the CLI
    ├── ConfigurationError                 2   settings, arguments or files are wrong
    │   ├── TopologyError                  2   the topology files; carries every problem found
    │   ├── HandlerError                   2   a handler module or function is missing or unusable
    │   ├── NoDelayLadder                  2   a delay was asked for, and the topology declares none
    │   ├── NoEventLog                     2   the log was asked for, and the topology declares none
    │   └── BadExpression                  2   a `--where` can't be read, or asks for more than the event
    ├── BrokerError                        4   RabbitMQ can't be used
    │   ├── BrokerUnavailable              4   nobody answers, or the connection was lost
    │   ├── AuthenticationFailed           4   the broker refused user or password
    │   ├── VirtualHostMissing             4   the virtual host does not exist or is closed to the user
    │   ├── AccessRefused                  4   the user may not do this
    │   ├── ObjectMissing                  4   a queue or exchange is not there
    │   ├── ObjectLocked                   4   somebody else holds it exclusively
    │   ├── ProtocolViolation              4   bytes that are not AMQP 0-9-1
    │   ├── LogTruncated                   4   the event log no longer holds what was to be read next
    │   └── TopologyDrift                  3   broker and topology files differ
    ├── StoreError                         5   a database can't be used
    │   ├── StoreUnavailable               5   it does not answer now; nobody's event is at fault
    │   ├── OutboxFull                     5   more events wait to be published than may
    │   └── RowRejected                    5   it refused one event's rows
    ├── PublishError                       6   an event is not known to be in the broker
    │   ├── Unroutable                     6   no queue would have taken it
    │   ├── Nacked                         6   the broker refused it
    │   ├── PublishTimeout                 6   no confirm before the deadline
    │   └── PublishInterrupted             6   the connection went away first: it may or may not be there
    └── EventError                         2   the event itself is at fault; retrying can't help
        ├── UnknownEventType                   no such event in the topology
        ├── InvalidPayload                     the payload does not fit its model
        ├── UndecodableBody                    the body is not what its content type says
        ├── MissingId                          no event id
        ├── InvalidDelay                       `after` or `at` can't be used
        └── PayloadTooLarge                    over the limit

Exit codes beside these: 0 all well; 1 the command ran but its result is not good (accounting does not add up, some
lines refused); 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class PipelineError(Exception):
    """Base of everything raised on purpose; `str()` is fit for a user's eyes and holds no secret."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(PipelineError):
    """Settings, arguments or files are wrong."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong (or, with `warning`, doubtful) in a topology file.

    `line` and `column` count from 1; `path` is the dotted key path, `hint` what would be right.
    """

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    path: str = ""
    hint: str = ""
    warning: bool = False

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: " if self.line else (f"{self.file}: " if self.file else "")
        path = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{'warning: ' if self.warning else ''}{path}{self.message}{hint}"


class TopologyError(ConfigurationError):
    """The topology files are wrong; `problems` holds all of them at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class HandlerError(ConfigurationError):
    """A handler module or function is missing or can't be used."""


class NoDelayLadder(ConfigurationError):
    """A delay was asked for, and the topology declares no delay ladder."""


class NoEventLog(ConfigurationError):
    """The event log was asked for, and the topology declares none."""


class BadExpression(ConfigurationError):
    """An expression over events can't be read, or asks for something other than the event."""


class BrokerError(PipelineError):
    """RabbitMQ can't be used."""

    exit_code = 4


class BrokerUnavailable(BrokerError):
    """Nobody answers at the address, or the connection was lost."""


class AuthenticationFailed(BrokerError):
    """The broker refused the user or the password."""


class VirtualHostMissing(BrokerError):
    """The virtual host does not exist, or the user may not enter it."""


class AccessRefused(BrokerError):
    """The user's permissions do not allow this."""


class ObjectMissing(BrokerError):
    """A queue or exchange that is needed is not on the broker."""


class ObjectLocked(BrokerError):
    """Another connection holds the queue exclusively."""


class ProtocolViolation(BrokerError):
    """The peer sent bytes that are not AMQP 0-9-1; the connection is closed."""


class LogTruncated(BrokerError):
    """The event log begins at offset `first` now; what was `wanted` next is dropped for its age or size."""

    def __init__(self, message: str, wanted: int, first: int) -> None:
        super().__init__(message)
        self.wanted = wanted
        self.first = first


class TopologyDrift(BrokerError):
    """Broker and topology files differ."""

    exit_code = 3


class StoreError(PipelineError):
    """A database can't be used."""

    exit_code = 5


class StoreUnavailable(StoreError):
    """The database does not answer now; worth waiting for, and no event's fault."""


class RowRejected(StoreError):
    """The database refused the rows of one event (constraint, type, missing table)."""


class OutboxFull(StoreError):
    """More accepted events wait to be published than may: `waiting`, as far as it is known, and the `bound`."""

    def __init__(self, waiting: int, bound: int) -> None:
        super().__init__(
            f"{waiting:,} accepted events wait to be published, and {bound:,} may; nothing was accepted. See"
            " `pipeline outbox status`: is the broker reachable, does a relay run?"
        )
        self.waiting = waiting
        self.bound = bound


class PublishError(PipelineError):
    """An event is not known to be in the broker; `event_id` names it ("" when several)."""

    exit_code = 6

    def __init__(self, message: str, event_id: str = "") -> None:
        super().__init__(message)
        self.event_id = event_id


class Unroutable(PublishError):
    """No queue is bound that would have taken it; the broker returned it."""


class Nacked(PublishError):
    """The broker refused it (basic.nack): a queue is full or not available."""


class PublishTimeout(PublishError):
    """No confirm arrived before the deadline; it may or may not be in the broker."""


class PublishInterrupted(PublishError):
    """The connection was lost before the confirm; it may or may not be in the broker."""


class EventError(PipelineError):
    """The event itself is at fault: retrying can't help."""

    exit_code = 2


class UnknownEventType(EventError):
    """The topology declares no such event type."""


class InvalidPayload(EventError):
    """The payload does not fit the model or schema of its event type; `faults` holds (path, what is wrong) of each."""

    def __init__(self, message: str, faults: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


class UndecodableBody(EventError):
    """The body is not what its content type or content encoding says."""


class MissingId(EventError):
    """The message carries no event id, so it can't be processed just once."""


class InvalidDelay(EventError):
    """The delay can't be: negative, longer than the topology's longest, or a time without a time zone."""


class PayloadTooLarge(EventError):
    """The body, or what it decompresses to, is over the limit."""
