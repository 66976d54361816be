"""A new subscription gets what is in the log before it goes live. In: `CatchUp`. Out: a filled queue, its bindings.

    mark ─► copy history ─► bind ─► copy what was published until the bindings were in effect ─► unmark

What comes both by a binding and as a copy has one id, and the inbox drops the second. The mark is a queue on the broker
with the checkpoint as its only message: from its declaration on, until it is deleted, the subscription has not caught
up, and any `topology apply`, from anywhere, goes on there.

An ordered subscription gets its copies in partitions of their own, which workers empty before they take the live ones:
what is copied is a beginning of the log, what is live holds all that is behind it, and both are in order.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from pipeline.amqp.mark import Mark, held_mark
from pipeline.amqp.publisher import Publisher
from pipeline.amqp.stream import ends_of, offset_of, patient, read_from
from pipeline.errors import ConfigurationError
from pipeline.event import new_id, utc_now
from pipeline.event_log.choosing import SKEW
from pipeline.event_log.copying import replay_copy
from pipeline.event_log.entry import Entry
from pipeline.event_log.routes import takes
from pipeline.event_log.sending import Sender
from pipeline.settings import Settings
from pipeline.topology.event_log import marker_of
from pipeline.topology.log_point import log_point
from pipeline.topology.model import CatchUp, Subscription, Topology
from pipeline.topology.partitions import past_generation

SAVE_EVERY = 0.2  # seconds between two checkpoints
# A publish that was routed before the bindings were there may come into the stream a moment after them: between the two
# lies the way of a message through a node, or between two. So the last offset is asked for this much later (seconds).
IN_EFFECT = 3.0

Watcher = Callable[[str, int], None]  # subscription, events looked at since the last call
Bind = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a catching-up is. `since` is resolved at its first start; `bound` once its bindings are made."""

    id: str
    since: int | str
    next: int = 0
    bound: bool = False
    end: int = -1  # the last offset to copy, once bound
    order: str = ""  # of an ordered subscription: by what its copies are spread, over which partitions

    def start(self) -> int | datetime:
        """Where reading goes on."""
        if self.next:
            return self.next
        return datetime.fromisoformat(self.since) - SKEW if isinstance(self.since, str) else self.since


async def catch_up(settings: Settings, topology: Topology, asked: CatchUp, bind: Bind, watch: Watcher) -> None:
    """Bring one subscription up to date and make it live by `bind`. Safe to break off at any moment, and to do again.

    Raises: LogTruncated when the log lost events that were to be copied next; ObjectMissing, Nacked, PublishError,
        BrokerError, ConfigurationError.
    """
    async with held_mark(settings, marker_of(asked.name)) as mark, Publisher(topology, settings) as publisher:
        found = await mark.read()
        order = _order(topology.subscriptions[asked.name])
        progress = _read(found) if found is not None else _begin(asked, order)
        _require_same(asked, progress.order, order)
        await mark.write(_written(progress))
        work = _Work(settings, topology, asked, Sender(publisher, asked.name), mark, watch)
        if not progress.bound:
            progress = await work.copy(progress, None)
            await bind()
            await asyncio.sleep(IN_EFFECT)
            ends = await patient(lambda: ends_of(settings, asked.stream))
            progress = replace(progress, bound=True, end=ends[1] if ends else -1)
            await mark.write(_written(progress))
        if progress.end >= progress.next:
            await work.copy(progress, progress.end)
        await mark.delete()


def catching_up(settings: Settings, topology: Topology, watch: Watcher) -> Callable[[CatchUp, Bind], Awaitable[None]]:
    """`catch_up` as `apply_plan` calls it."""

    async def run(asked: CatchUp, bind: Bind) -> None:
        await catch_up(settings, topology, asked, bind, watch)

    return run


class _Work:
    """Copies parts of the log to the subscription, noting how far."""

    def __init__(
        self, settings: Settings, topology: Topology, asked: CatchUp, sender: Sender, mark: Mark, watch: Watcher
    ) -> None:
        self._settings = settings
        self._subscription = topology.subscriptions[asked.name]
        self._ordered = bool(self._subscription.order_by)
        self._takes = takes(topology, asked.name)
        self._asked = asked
        self._sender = sender
        self._mark = mark
        self._watch = watch
        self._saved = 0.0

    async def copy(self, progress: Progress, end: int | None) -> Progress:
        """Copy up to `end`, or to what is the log's end now."""
        if end is None:
            ends = await patient(lambda: ends_of(self._settings, self._asked.stream))
            if ends is None:
                return progress
            end = ends[1]
        start = progress.start()
        if isinstance(start, int) and start > end:
            return progress
        async for batch in read_from(self._settings, self._asked.stream, start, end):
            entries = [Entry(each, self._settings.max_body) for each in batch]
            await self._send([each for each in entries if self._chosen(each, progress)], progress)
            progress = replace(progress, next=offset_of(batch[-1]) + 1)
            await self._save(progress)
            self._watch(self._asked.name, len(batch))
        return progress

    def _chosen(self, entry: Entry, progress: Progress) -> bool:
        if isinstance(progress.since, str) and entry.time < datetime.fromisoformat(progress.since):
            return False
        return self._takes(entry)

    async def _send(self, entries: list[Entry], progress: Progress) -> None:
        step, limit = self._sender.step, self._sender.limit
        # In order, what is copied twice must count as one even if the first of them is dead: it is no replay.
        replay = "" if self._ordered else progress.id
        for at in range(0, len(entries), step):
            part = entries[at : at + step]
            copies = [replay_copy(each, self._subscription, replay, False, limit, self._ordered) for each in part]
            await self._sender.send(copies)

    async def _save(self, progress: Progress) -> None:
        if time.monotonic() - self._saved >= SAVE_EVERY:
            self._saved = time.monotonic()
            await self._mark.write(_written(progress))


def _begin(asked: CatchUp, order: str) -> Progress:
    since = log_point(asked.start).resolved(utc_now())
    return Progress(new_id(), since.isoformat() if isinstance(since, datetime) else since, order=order)


def _order(subscription: Subscription) -> str:
    return f"{subscription.order_by} in {past_generation(subscription)}" if subscription.order_by else ""


def _require_same(asked: CatchUp, began: str, order: str) -> None:
    """Copies of one key must all go to one partition. Raises: ConfigurationError."""
    if began != order:
        raise ConfigurationError(
            f"{asked.name} began to catch up {f'by {began}' if began else 'without order_by'}; leave order_by and"
            " partitions as they were until it has caught up, and change them then"
        )


def _written(progress: Progress) -> bytes:
    return json.dumps(asdict(progress)).encode()


def _read(content: bytes) -> Progress:
    try:
        return Progress(**json.loads(content))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"the mark of a catching-up can't be read ({error}); delete its queue and the catching-up begins anew"
        ) from None
