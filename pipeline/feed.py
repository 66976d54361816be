"""A file of events → the broker, and on from where it broke off. In: JSON Lines. Out: confirmed events, a report.

A line is the data of an event, or a whole CloudEvent (an object with `specversion`). Ids are stable: a line's own, or
one derived from the run and the line's number, so that a resumed run publishes the same events and none twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from pydantic_core import from_json, to_json

from pipeline.amqp.publisher import Publisher
from pipeline.errors import ConfigurationError, EventError, InvalidPayload, PublishError
from pipeline.event import Event, new_id, utc_now
from pipeline.message import Message

LINES = 500  # lines a publish
IN_FLIGHT = 4  # publishes at once
STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no event."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(slots=True)
class FeedReport:
    """How it went. `resumed_at` is the line before which everything had been confirmed by an earlier run."""

    confirmed: int = 0
    bad: list[BadLine] = field(default_factory=list)
    unconfirmed: int = 0
    resumed_at: int = 0
    error: PublishError | None = None


class ResumePoint:
    """What is remembered of a file's publishing: the run's id and the lines confirmed so far. Kept in `folder`."""

    def __init__(self, folder: Path, file: Path) -> None:
        name = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:24]
        self._path = folder / f"{name}.json"
        self._file = str(file.resolve())
        self.run = new_id()
        self.lines = 0

    def load(self) -> None:
        """Go on with the run that broke off. Raises: ConfigurationError when there is none."""
        try:
            saved = json.loads(self._path.read_text())
            self.run, self.lines = str(saved["run"]), int(saved["lines"])
        except (OSError, ValueError, KeyError) as error:
            raise ConfigurationError(
                f"nothing to resume for {self._file}: no earlier `pipeline publish --file` of it broke off"
            ) from error

    def save(self) -> None:
        """Remember. Atomic: a crash leaves the old state or the new one."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_text(json.dumps({"file": self._file, "run": self.run, "lines": self.lines}))
        scratch.replace(self._path)

    def forget(self) -> None:
        """All of the file is confirmed."""
        self._path.unlink(missing_ok=True)


class Feed:
    """Publishes the lines of `source`, called `name` in messages. `event_type` "" when every line is a CloudEvent.

    With `due` all of them arrive at that time.
    """

    def __init__(
        self,
        publisher: Publisher,
        source: IO[bytes],
        name: str,
        event_type: str,
        point: ResumePoint | None,
        due: datetime | None = None,
    ) -> None:
        self._publisher = publisher
        self._lines = source
        self._name = name
        self._type = event_type
        self._point = point
        self._due = due
        self._run = point.run if point is not None else new_id()

    async def run(self, report: FeedReport, progress: Callable[[int], None]) -> None:
        """Publish until the end or the first event that is not confirmed. `report` is kept up as it goes.

        `progress` is called with the number of lines dealt with.
        """
        under_way: deque[tuple[int, list[Message], asyncio.Task[dict[int, PublishError]]]] = deque()
        try:
            for upto, messages in self._chunks(report):
                under_way.append((upto, messages, asyncio.create_task(self._publisher.send(messages))))
                if len(under_way) >= IN_FLIGHT:
                    await self._finish(under_way.popleft(), report, progress)
                    if report.error is not None:
                        break
                await asyncio.sleep(0)
            while under_way:
                await self._finish(under_way.popleft(), report, progress)
        finally:
            for _, _, task in under_way:
                task.cancel()
            if self._point is not None:
                self._point.save()
        if self._point is not None and report.error is None:
            self._point.forget()

    async def _finish(
        self,
        chunk: tuple[int, list[Message], asyncio.Task[dict[int, PublishError]]],
        report: FeedReport,
        progress: Callable[[int], None],
    ) -> None:
        upto, messages, task = chunk
        errors = await task
        report.confirmed += len(messages) - len(errors)
        report.unconfirmed += len(errors)
        if errors and report.error is None:
            report.error = next(iter(errors.values()))
        if report.error is None and self._point is not None:
            self._point.lines = upto
            self._point.save()
        progress(len(messages))

    def _chunks(self, report: FeedReport) -> Iterator[tuple[int, list[Message]]]:
        """(number of the last line, messages) of every `LINES` lines."""
        skip = self._point.lines if self._point is not None else 0
        report.resumed_at = skip
        messages: list[Message] = []
        number = 0
        for number, line in enumerate(self._lines, 1):
            if number > skip and (text := line.strip()):
                try:
                    messages.append(self._message(text, number))
                except EventError as error:
                    report.bad.append(BadLine(self._name, number, str(error)))
            if number % LINES == 0 and number > skip:
                yield number, messages
                messages = []
        if number % LINES:
            yield number, messages

    def _message(self, text: bytes, number: int) -> Message:
        derived = f"{self._run[:20]}{number:012d}"
        if self._type and b'"specversion"' not in text:
            return self._encoded(Event(self._type, text, derived, self._publisher.source, utc_now()))
        try:
            whole: Any = from_json(text, allow_inf_nan=False)
        except ValueError as error:
            raise InvalidPayload(f"not JSON: {error}") from error
        if not isinstance(whole, dict) or "specversion" not in whole:
            if self._type:
                return self._encoded(Event(self._type, text, derived, self._publisher.source, utc_now()))
            raise InvalidPayload(
                "not a CloudEvent (an object with specversion, type, data), and no event type was given"
            )
        return self._encoded(self._cloud_event(whole, derived))

    def _encoded(self, event: Event[bytes]) -> Message:
        return self._publisher.codec.encode_raw(event, self._due)

    def _cloud_event(self, whole: dict[str, Any], derived: str) -> Event[bytes]:
        core = ("specversion", "id", "type", "source", "time", "subject", "dataschema", "datacontenttype", "data")
        try:
            time = datetime.fromisoformat(whole["time"]) if whole.get("time") else utc_now()
        except (ValueError, TypeError):
            raise InvalidPayload(f"time: {str(whole['time'])[:40]!r} is no ISO 8601 time") from None
        kind = whole.get("type") or self._type
        if not isinstance(kind, str) or not kind:
            raise InvalidPayload("type: missing")
        if "data" not in whole:
            raise InvalidPayload("data: missing")
        return Event(
            kind,
            to_json(whole["data"]),
            str(whole.get("id") or derived),
            str(whole.get("source") or self._publisher.source),
            time if time.tzinfo else time.astimezone(),
            whole.get("subject"),
            whole.get("dataschema"),
            extensions={name: str(value) for name, value in whole.items() if name not in core},
        )
