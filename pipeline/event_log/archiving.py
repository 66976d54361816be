"""The archiver: the event log into a folder of files by day. In: a stream. Out: parts, each event in just one.

It goes on where the archive ends. Retention of the stream is no matter as long as it runs often enough; what was
dropped before it came is said, and skipped only when asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from pipeline.amqp.stream import PATIENCE, offset_of, read_from
from pipeline.errors import LogTruncated
from pipeline.event_log.archive import Archive
from pipeline.event_log.choosing import event_log
from pipeline.event_log.entry import Entry
from pipeline.event_log.parts import FORMATS
from pipeline.event_log.records import Record, record_of
from pipeline.message import Delivery
from pipeline.settings import Settings
from pipeline.topology.model import Topology

PART_EVENTS = 100_000  # events a part, at most
PART_BYTES = 64 * 1024 * 1024  # bytes of data a part, about
FLUSH = 300.0  # seconds between parts while following
FOR_EVER = 365 * 86_400.0  # seconds: while following, the broker may be away
FORM = next(iter(FORMATS))

Watcher = Callable[[int], None]  # events that came into the archive


async def archive(
    settings: Settings,
    topology: Topology,
    folder: Path,
    form: str = FORM,
    *,
    follow: bool = False,
    every: float = FLUSH,
    from_earliest: bool = False,
    watch: Watcher = lambda events: None,
) -> Archive:
    """Bring the archive in `folder` up to the log's last event; with `follow` go on, a part every so many seconds.

    Raises: ConfigurationError, NoEventLog, LogTruncated when events that are not in the archive yet were dropped from
        the stream, BrokerError.
    """
    log = event_log(topology)
    found = Archive.open_or_begin(folder, log.name, form)
    with found.held():
        if from_earliest:
            found.next = 0 if found.last is None else found.last + 1
        writer = _Writer(found, settings.max_body, watch)
        batches = read_from(
            settings,
            log.name,
            found.next,
            follow=follow,
            truncated_ok=from_earliest,
            patience=FOR_EVER if follow else PATIENCE,
        )
        try:
            await _through(batches, writer, every if follow else None)
        except LogTruncated as error:
            writer.flush()
            raise LogTruncated(
                f"{error}; they are not in {folder}. With --from-earliest the archive goes on with what is left",
                error.wanted,
                error.first,
            ) from None
        finally:
            writer.flush()
        return found


class _Writer:
    """Gathers records until they are worth a part."""

    def __init__(self, archive: Archive, max_body: int, watch: Watcher) -> None:
        self._archive = archive
        self._max_body = max_body
        self._watch = watch
        self._records: list[Record] = []
        self._bytes = 0
        self._next = archive.next
        self.since = time.monotonic()

    def add(self, batch: list[Delivery]) -> None:
        """Take these in; a part is written when it is full."""
        for delivery in batch:
            record = record_of(Entry(delivery, self._max_body))
            self._records.append(record)
            self._bytes += len(record.data or record.raw)
        self._next = offset_of(batch[-1]) + 1
        if len(self._records) >= PART_EVENTS or self._bytes >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is gathered. Raises: ConfigurationError."""
        records, self._records, self._bytes = self._records, [], 0
        self.since = time.monotonic()
        if records:
            self._archive.add(records, self._next)
            self._watch(len(records))


async def _through(batches: AsyncIterator[list[Delivery]], writer: _Writer, every: float | None) -> None:
    """Write every batch; with `every`, what is gathered for longer than that too, though nothing new comes."""
    if every is None:
        async for batch in batches:
            writer.add(batch)
        return
    waiting: asyncio.Task[list[Delivery]] | None = None
    try:
        while True:
            if waiting is None:
                waiting = asyncio.ensure_future(_next(batches))
            left = max(0.0, writer.since + every - time.monotonic())
            await asyncio.wait([waiting], timeout=left)
            if waiting.done():
                done, waiting = waiting, None
                writer.add(done.result())
            if time.monotonic() - writer.since >= every:
                writer.flush()
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.wait([waiting])


async def _next(batches: AsyncIterator[list[Delivery]]) -> list[Delivery]:
    return await anext(batches)
