"""Errors → problem details (RFC 9457). In: what was raised. Out: status, headers and an application/problem+json body.

Nothing of a request's body and nothing of a dependency's own words goes into an answer: what was sent may be a secret,
and an address is nobody's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from pipeline.errors import (
    EventError,
    InvalidPayload,
    OutboxFull,
    PayloadTooLarge,
    PipelineError,
    RowRejected,
    StoreUnavailable,
    UndecodableBody,
    UnknownEventType,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 2  # seconds: what a client is told to wait for a database, or an outbox that is full
FAULTS_SHOWN = 20
LONGEST_DETAIL = 500  # characters of a text that repeats what was sent
CLOSE = {"connection": "close"}  # for a request that was not read to its end


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a request: `path` is dotted, "(whole)" for all; `index` counts a batch's events from 0."""

    path: str
    message: str
    index: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For the answer."""
        return {"path": self.path, "message": self.message} | ({} if self.index is None else {"index": self.index})


@dataclass(frozen=True, slots=True)
class Problem:
    """What goes wrong with a request. `code` names the kind for programs; `more` are further members of the body."""

    status: int
    code: str
    detail: str
    faults: Sequence[Fault] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> bytes:
        """The body of the answer."""
        said: dict[str, Any] = {
            "type": f"urn:pipeline:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **self.more,
        }
        if self.faults:
            said["errors"] = [fault.as_json() for fault in self.faults[:FAULTS_SHOWN]]
        return to_json(said)

    def response(self) -> Response:
        """The whole answer."""
        return Response(self.body(), self.status, self.headers, MEDIA_TYPE)


class Refused(PipelineError):
    """A request that is answered with `problem`."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def refused(status: int, code: str, detail: str, faults: Sequence[Fault] = (), **headers: str) -> Refused:
    """To raise; `retry_after="2"` becomes a header."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Refused(Problem(status, code, detail, faults, named))


def later(code: str, detail: str, seconds: int = RETRY_AFTER) -> Problem:
    """503: nobody's fault but ours, and worth another try."""
    return Problem(503, code, detail, headers={"retry-after": str(seconds)})


def faults_of(error: EventError, index: int | None = None) -> list[Fault]:
    """What is wrong with an event, with the path of each fault where it is known."""
    if isinstance(error, InvalidPayload) and error.faults:
        return [Fault(path, message, index) for path, message in error.faults]
    if isinstance(error, UnknownEventType):
        return [Fault("type", str(error)[:LONGEST_DETAIL], index)]
    return [Fault("(whole)", str(error)[:LONGEST_DETAIL], index)]


def problem_of(error: PipelineError) -> Problem:
    """The answer for an error of this library."""
    match error:
        case Refused():
            return error.problem
        case UnknownEventType():
            return Problem(404, "unknown-event-type", str(error)[:LONGEST_DETAIL])
        case PayloadTooLarge():
            return Problem(413, "too-large", str(error))
        case UndecodableBody():
            return Problem(400, "undecodable-body", str(error)[:LONGEST_DETAIL])
        case EventError():
            return Problem(400, "invalid-event", "the event is not as its type declares", faults_of(error))
        case OutboxFull():
            return later("outbox-full", "too many events wait for the broker; this one was not taken", 5)
        case RowRejected():
            return Problem(400, "invalid-event", "it holds text that a database can't keep")
        case StoreUnavailable():
            return later("database-away", "a database does not answer; nothing was changed or is known to be")
        case _:
            return Problem(500, "internal", "something went wrong here; the log of the gateway says what")
