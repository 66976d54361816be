"""Replay: events of the log once more to one subscription. In: a selection. Out: `Report`; copies in its queue.

read ─► choose ─► copy to the subscription's own queue ─► confirmed ─► checkpoint

A checkpoint is behind what was confirmed, never before. Interrupted at any moment and started again with the same
arguments, a replay goes on there under the same id; what is then copied twice is one event to the inbox.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from pipeline.addresses import cluster_of
from pipeline.amqp.publisher import Publisher
from pipeline.amqp.stream import ends_of, offset_of, patient, read_from
from pipeline.errors import ConfigurationError, LogTruncated
from pipeline.event import new_id, utc_now
from pipeline.event_log.archive import Archive
from pipeline.event_log.checkpoint import Checkpoint, CheckpointFile
from pipeline.event_log.choosing import Range, Selection, check_types, chooser, event_log, resolved
from pipeline.event_log.copying import replay_copy
from pipeline.event_log.entry import Entry
from pipeline.event_log.routes import takes
from pipeline.event_log.sending import Sender
from pipeline.message import Delivery
from pipeline.settings import Settings
from pipeline.topology.findings import did_you_mean
from pipeline.topology.model import Subscription, Topology

SAVE_EVERY = 0.2  # seconds between two checkpoints: so much may be copied twice by an interruption
SHOWN = 5  # events of a dry run

Watcher = Callable[[int, int | None, int], None]  # offsets dealt with, of how many, copies


@dataclass(frozen=True, slots=True)
class Report:
    """What a replay did. `resumed` tells how many had been copied before; `first` shows some of a dry run."""

    id: str
    subscription: str
    seen: int
    copied: int
    resumed: int
    dry_run: bool
    first: tuple[tuple[str, str, datetime], ...] = ()  # (id, type, time)
    log_begins: datetime | None = None  # when `since` is before it: what is older is not there any more


@dataclass(frozen=True, slots=True)
class Replay:
    """The arguments: those that make it the same replay, and how to go about it."""

    subscription: str
    selection: Selection
    force: bool = False
    archive: Path | None = None
    rate: float | None = None
    dry_run: bool = False
    from_earliest: bool = False


def _nobody(done: int, total: int | None, copied: int) -> None:
    """Watch nothing."""


async def replay(settings: Settings, topology: Topology, asked: Replay, watch: Watcher = _nobody) -> Report:
    """Copy the chosen events that `asked.subscription` takes to its queue, and to no other.

    Raises: ConfigurationError and its kinds for arguments; LogTruncated when events to be read next are gone;
        ObjectMissing, Nacked, PublishError, BrokerError. Whatever is raised, started again it goes on.
    """
    subscription = _subscription(topology, asked.subscription)
    if asked.rate is not None and not asked.rate > 0:
        raise ConfigurationError(f"the rate is {asked.rate:g}; it must be above 0 (events per second)")
    check_types(asked.selection.types, topology)
    log = event_log(topology)
    bounds = resolved(asked.selection, utc_now())
    chooser(asked.selection, bounds)  # a wrong expression is said before anything is done
    archive = Archive.open(asked.archive) if asked.archive is not None else None
    file = CheckpointFile(settings.state_dir, subscription.name, _identity(settings, log.name, asked))
    with file.held():
        checkpoint = None if asked.dry_run else file.read()
        if checkpoint is None:
            end = await _end(settings, log.name, bounds, archive)
            checkpoint = Checkpoint(new_id(), asdict(asked.selection), *_as_json(bounds), end)
        run = _Run(settings, topology, subscription, asked, checkpoint, file, watch)
        if checkpoint.end is None:
            return run.report()
        async with Publisher(topology, settings) as publisher:
            await run.through(_batches(settings, log.name, checkpoint, asked, archive), publisher)
        return run.report()


class _Run:
    """One run of a replay, from its checkpoint on."""

    def __init__(
        self,
        settings: Settings,
        topology: Topology,
        subscription: Subscription,
        asked: Replay,
        checkpoint: Checkpoint,
        file: CheckpointFile,
        watch: Watcher,
    ) -> None:
        self._max_body = settings.max_body
        self._subscription = subscription
        self._asked = asked
        self._checkpoint = checkpoint
        self._file = file
        self._watch = watch
        self._bounds = Range(checkpoint.bound("since"), checkpoint.bound("until"))
        self._chosen = chooser(asked.selection, self._bounds)
        self._takes = takes(topology, subscription.name)
        self._resumed = checkpoint.copied
        self._first: list[Entry] = []
        self._begins: datetime | None = None
        self._saved = 0.0

    async def through(self, batches: AsyncIterator[list[Delivery]], publisher: Publisher) -> None:
        """Copy what is chosen of these."""
        sender = Sender(publisher, self._subscription.name, self._asked.rate)
        start, looked = self._checkpoint.next if self._checkpoint.began else None, False
        try:
            if not self._asked.dry_run:
                self._save(at_once=True)
            async for batch in batches:
                if start is None:
                    start = offset_of(batch[0])
                if not looked and not self._resumed:
                    self._note_begin(Entry(batch[0], self._max_body))
                looked = True
                await self._copy(batch, sender, start)
        except BaseException:
            if not self._asked.dry_run:
                self._save(at_once=True)
            raise
        if not self._asked.dry_run:
            self._file.remove()

    async def _copy(self, batch: Sequence[Delivery], sender: Sender, start: int) -> None:
        entries = [Entry(each, self._max_body) for each in batch]
        chosen = [entry for entry in entries if self._takes(entry) and self._chosen(entry)]
        self._first += chosen[: SHOWN - len(self._first)]
        for at in range(0, len(chosen), sender.step):
            part = chosen[at : at + sender.step]
            if not self._asked.dry_run:
                copies = [
                    replay_copy(each, self._subscription, self._checkpoint.id, self._asked.force, sender.limit)
                    for each in part
                ]
                await sender.send(copies)
            self._advance(part[-1].offset, 0, len(part), start)
        self._advance(offset_of(batch[-1]), len(batch), 0, start)

    def _advance(self, offset: int, seen: int, copied: int, start: int) -> None:
        self._checkpoint = self._checkpoint.after(offset, seen, copied)
        if not self._asked.dry_run:
            self._save()
        end = self._checkpoint.end
        self._watch(offset + 1 - start, None if end is None else end + 1 - start, self._checkpoint.copied)

    def _save(self, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self._saved >= SAVE_EVERY:
            self._saved = now
            self._file.write(self._checkpoint)

    def _note_begin(self, entry: Entry) -> None:
        since = self._bounds.since
        if isinstance(since, datetime) and entry.time > since and entry.offset > 0:
            self._begins = entry.time

    def report(self) -> Report:
        """What was done."""
        done = self._checkpoint
        first = tuple((entry.id, entry.type, entry.time) for entry in self._first)
        return Report(
            done.id,
            self._subscription.name,
            done.seen,
            done.copied,
            self._resumed,
            self._asked.dry_run,
            first,
            self._begins,
        )


async def _batches(
    settings: Settings, stream: str, checkpoint: Checkpoint, asked: Replay, archive: Archive | None
) -> AsyncIterator[list[Delivery]]:
    bounds = Range(checkpoint.bound("since"), checkpoint.bound("until"))
    start = checkpoint.next if checkpoint.began else bounds.start
    if archive is not None:
        for batch in archive.read(start, checkpoint.end):
            yield batch
        return
    try:
        async for batch in read_from(settings, stream, start, checkpoint.end, truncated_ok=asked.from_earliest):
            yield batch
    except LogTruncated as error:
        raise LogTruncated(
            f"{error}. With --from-earliest it goes on with what is left; an archive may hold the rest"
            " (`events replay --from-archive`)",
            error.wanted,
            error.first,
        ) from None


async def _end(settings: Settings, stream: str, bounds: Range, archive: Archive | None) -> int | None:
    """The last offset there is to look at; None when there is none."""
    if archive is not None:
        last = archive.last
    else:
        ends = await patient(lambda: ends_of(settings, stream))
        last = ends[1] if ends else None
    if last is None or bounds.end is None:
        return last
    return min(last, bounds.end)


def _subscription(topology: Topology, name: str) -> Subscription:
    found = topology.subscriptions.get(name)
    if found is None:
        hint = did_you_mean(name, topology.subscriptions)
        raise ConfigurationError(f"the topology has no subscription {name} ({hint})")
    return found


def _identity(settings: Settings, stream: str, asked: Replay) -> dict[str, object]:
    """What makes two commands the same replay."""
    return {
        "broker": cluster_of(settings.amqp_url),
        "stream": stream,
        "subscription": asked.subscription,
        "force": asked.force,
        "archive": str(asked.archive.absolute()) if asked.archive else "",
        **asdict(asked.selection),
    }


def _as_json(bounds: Range) -> tuple[str | int | None, str | int | None]:
    since, until = (each.isoformat() if isinstance(each, datetime) else each for each in (bounds.since, bounds.until))
    return since, until
