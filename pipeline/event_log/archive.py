"""The archive of an event log: a folder of parts by day, and a manifest that says which count. In and out: its events.

    orders/archive.json                                      how far it has come, which parts there are
    orders/2026-11-21.00000000000000012345.jsonl.zst          a day, and the offset of the part's first event

A part is written beside the manifest, and counts once the manifest names it: killed at any moment, the archive holds
each event once. What a killed archiver left is removed by the next.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigurationError
from pipeline.event_log.checkpoint import sync_folder, write_whole
from pipeline.event_log.parts import FORMATS, read_part, write_part
from pipeline.event_log.records import Record, delivery_of
from pipeline.message import Delivery

MANIFEST = "archive.json"
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Part:
    """One file: events with offsets from `first` to `last`, of one day (UTC) by their own time."""

    file: str
    day: str
    first: int
    last: int
    count: int


class Archive:
    """An archive's manifest. `next` is the offset of the first event that is not in it."""

    def __init__(self, folder: Path, stream: str, form: str, next_: int, parts: Sequence[Part]) -> None:
        self.folder = folder
        self.stream = stream
        self.form = form
        self.next = next_
        self.parts = list(parts)

    @classmethod
    def open(cls, folder: Path) -> Archive:
        """The archive in a folder. Raises: ConfigurationError when there is none, or it can't be read."""
        path = folder / MANIFEST
        try:
            found = json.loads(path.read_text())
            parts = [Part(**each) for each in found["parts"]]
            return cls(folder, found["stream"], found["format"], found["next"], parts)
        except FileNotFoundError:
            raise ConfigurationError(f"{folder} holds no archive; `pipeline events archive` makes one") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{path} can't be read: {error}") from None

    @classmethod
    def open_or_begin(cls, folder: Path, stream: str, form: str) -> Archive:
        """The archive in a folder, or a new one. Raises: ConfigurationError when it is another stream's or format's."""
        if form not in FORMATS:
            raise ConfigurationError(f"there is no format {form}; there are {', '.join(FORMATS)}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{folder} can't be made: {error.strerror or error}") from None
        if not (folder / MANIFEST).exists():
            return cls(folder, stream, form, 0, ())
        found = cls.open(folder)
        if (found.stream, found.form) != (stream, form):
            raise ConfigurationError(
                f"{folder} holds an archive of {found.stream} as {found.form}, not of {stream} as {form};"
                " take another folder"
            )
        return found

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other archivers out, and clears what a killed one left. Raises: ConfigurationError when one is in."""
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigurationError(f"another archiver writes to {self.folder}; let it end") from None
            self._clear()
            yield
        finally:
            os.close(descriptor)

    @property
    def last(self) -> int | None:
        """The offset of the last event in it."""
        return max((part.last for part in self.parts), default=None)

    def add(self, records: Sequence[Record], next_: int) -> None:
        """Take these in, and note that everything before offset `next_` is. All of it, or nothing.

        Raises: ConfigurationError when the disk takes no more.
        """
        days: dict[str, list[Record]] = {}
        for record in records:
            days.setdefault(record.day, []).append(record)
        parts = list(self.parts)
        for day, inside in days.items():
            name = f"{day}.{inside[0].offset:020}.{FORMATS[self.form]}"
            try:
                write_part(self.folder / name, self.form, inside)
            except OSError as error:
                raise ConfigurationError(f"{self.folder / name} can't be written: {error.strerror or error}") from None
            parts.append(Part(name, day, inside[0].offset, inside[-1].offset, len(inside)))
        sync_folder(self.folder)
        content = {"stream": self.stream, "format": self.form, "next": next_, "parts": [asdict(each) for each in parts]}
        write_whole(self.folder / MANIFEST, json.dumps(content, indent=1).encode())
        self.parts, self.next = parts, next_

    def read(self, start: int | datetime, end: int | None) -> Iterator[list[Delivery]]:
        """The events from an offset or a day on, as deliveries of the stream, by their offsets.

        Raises: ConfigurationError when a part can't be read.
        """
        chosen = [part for part in self.parts if end is None or part.first <= end]
        if isinstance(start, datetime):
            day = start.astimezone(UTC).date().isoformat()
            chosen = [part for part in chosen if part.day >= day]
        else:
            chosen = [part for part in chosen if part.last >= start]
        for group in _overlapping(chosen):
            batch: list[Delivery] = []
            for record in self._in_order(group):
                if (isinstance(start, datetime) or record.offset >= start) and (end is None or record.offset <= end):
                    batch.append(delivery_of(record))
                if len(batch) >= BATCH:
                    yield batch
                    batch = []
            if batch:
                yield batch

    def _in_order(self, parts: Sequence[Part]) -> Iterator[Record]:
        """The records of parts that were written together, merged by offset."""
        from heapq import merge

        yield from merge(*(self._records(part) for part in parts), key=lambda record: record.offset)

    def _records(self, part: Part) -> Iterator[Record]:
        path = self.folder / part.file
        count = 0
        try:
            for record in read_part(path, self.form):
                count += 1
                yield record
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{path} can't be read: {error}") from None
        if count != part.count:
            raise ConfigurationError(f"{path} holds {count} events; {MANIFEST} says {part.count}")

    def _clear(self) -> None:
        named = {part.file for part in self.parts}
        for path in self.folder.iterdir():
            if path.name not in named and (path.name.endswith((".tmp", *FORMATS.values()))):
                path.unlink()


def _overlapping(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Parts in the order of their offsets; those that overlap (a batch that spans days) together."""
    group: list[Part] = []
    last = -1
    for part in sorted(parts, key=lambda part: part.first):
        if group and part.first > last:
            yield group
            group = []
        group.append(part)
        last = max(last, part.last)
    if group:
        yield group


def summary(archive: Archive) -> dict[str, Any]:
    """The archive for people and scripts."""
    return {
        "folder": str(archive.folder),
        "stream": archive.stream,
        "format": archive.form,
        "next": archive.next,
        "events": sum(part.count for part in archive.parts),
        "files": len(archive.parts),
    }
