"""Publishes events, confirmed. In: one event or many. Out: nothing, or a named error for each that is not confirmed.

All tasks of a process share one lane and one channel: what they publish in one turn of the event loop goes out in one
write, and the confirms come back in bulk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.amqp.confirms import ConfirmChannel, Receipt
from pipeline.amqp.frames import USUAL_FRAME_MAX, properties_limit
from pipeline.amqp.lane import Lane
from pipeline.amqp.session import Session
from pipeline.codec import Codec
from pipeline.codec.delay import LADDER, due_time, set_out
from pipeline.errors import BrokerError, PublishError, PublishInterrupted, PublishTimeout
from pipeline.event import AnyEvent, Event, new_id, utc_now
from pipeline.log import get_logger
from pipeline.message import Message
from pipeline.settings import Settings, load_settings
from pipeline.topology.load import load_topology
from pipeline.topology.model import Topology

log = get_logger("publisher")

WINDOW = 4096  # messages sent and not confirmed, per process; beyond it publishing waits
CHUNK = 512  # messages a write at most, and
CHUNK_BYTES = 1024 * 1024  # bytes a write, about
# Seconds without any confirm, after which a connection whose messages time out is given up. RabbitMQ 3.10.8 was seen to
# leave a channel in flow control for good when the stream it published to changed its leader; a new one works.
SILENT = 5.0


class PartlyPublished(PublishError):
    """Some of many events are not known to be in the broker: `errors` by index; `confirmed` counts the others."""

    def __init__(self, errors: Mapping[int, PublishError], total: int) -> None:
        first = next(iter(errors.values()))
        super().__init__(f"{len(errors)} of {total} events are not confirmed; the first: {first}", first.event_id)
        self.errors = errors
        self.confirmed = total - len(errors)


class Publisher:
    """Publishes events of a topology.

    `topology` is a loaded one, or the path of its files; by default what the settings say. Use as an async context
    manager. Every publish has a deadline (`Settings.publish_deadline` seconds unless given).
    """

    def __init__(
        self, topology: Topology | str | Path | None = None, settings: Settings | None = None, source: str = "pipeline"
    ) -> None:
        self.settings = settings or load_settings()
        if not isinstance(topology, Topology):
            topology = load_topology(Path(topology) if topology else self.settings.topology).topology
        self.codec = Codec(topology, self.settings.max_body)
        self.delay = topology.delay
        self.source = source
        self._session = Session(self.settings, "pipeline publisher")
        self._channel: ConfirmChannel | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def properties_limit(self) -> int:
        """Bytes of encoded properties a message may have: AMQP has one frame for them."""
        return properties_limit(self._channel.lane.frame_max if self._channel is not None else USUAL_FRAME_MAX)

    async def close(self) -> None:
        """End the connection. Never fails."""
        await self._session.close()

    async def publish(
        self,
        event: AnyEvent | str,
        data: Any = None,
        *,
        id: str | None = None,
        subject: str | None = None,
        source: str | None = None,
        time: datetime | None = None,
        deadline: float | None = None,
        after: float | timedelta | None = None,
        at: datetime | None = None,
    ) -> str:
        """Publish one event, an `Event` or a type with its data; return its id once the broker has it.

        The same id again is the same event. `deadline` is in seconds. With `after` (seconds or a timedelta) or `at` it
        waits in the broker until then, needs `delay:` in the topology, and is routed as if published at that time.

        Raises: UnknownEventType, InvalidPayload, PayloadTooLarge, InvalidDelay, NoDelayLadder; Unroutable, Nacked,
            PublishTimeout, PublishInterrupted.
        """
        due = due_time(after, at)
        if isinstance(event, str):
            event = Event(event, data, id or new_id(), source or self.source, time or utc_now(), subject)
        errors = await self.send([self.codec.encode(event, due)], deadline)
        if errors:
            raise errors[0]
        return event.id

    async def publish_many(
        self,
        events: Iterable[AnyEvent],
        *,
        deadline: float | None = None,
        after: float | timedelta | None = None,
        at: datetime | None = None,
    ) -> int:
        """Publish all of `events`; return how many once the broker has every one. All are checked before any is sent.

        `after` and `at` are as with `publish`, for all of them.

        Raises: as `publish` for bad data (nothing was sent then); PartlyPublished, which names those not confirmed.
        """
        encode = self.codec.encode
        due = due_time(after, at)
        messages = [encode(event, due) for event in events]
        errors = await self.send(messages, deadline)
        if errors:
            raise PartlyPublished(errors, len(messages))
        return len(messages)

    async def send(self, messages: Sequence[Message], deadline: float | None = None) -> dict[int, PublishError]:
        """Publish encoded messages; the errors by index, empty when all are confirmed. Raises nothing of the broker."""
        seconds = deadline if deadline is not None else self.settings.publish_deadline
        receipts: list[Receipt] = []
        cause: BrokerError | None = None
        try:
            async with asyncio.timeout(seconds):
                try:
                    await self._send_all(messages, receipts)
                except BrokerError as error:
                    cause = error
                for receipt in receipts:
                    await receipt.done
        except TimeoutError:
            self._give_up_if_silent()
        return _errors(messages, receipts, cause, seconds)

    def _give_up_if_silent(self) -> None:
        channel = self._channel
        if channel is None or channel.closed is not None or not channel.lane.unblocked.is_set():
            return  # there is none, or the broker has said why it takes nothing
        if channel.silence >= SILENT:
            log.warning("nothing is confirmed any more, connecting anew", seconds=round(channel.silence, 1))
            channel.lane.abort()

    async def _send_all(self, messages: Sequence[Message], receipts: list[Receipt]) -> None:
        remaining = iter(messages)
        chunk = _chunk(remaining)
        while chunk:
            channel, lane = await self._ready_patiently()
            await lane.unblocked.wait()
            await channel.room(WINDOW)
            if channel.closed is not None:
                continue  # lost while we waited; nothing of this chunk was sent
            receipts.append(channel.publish([set_out(each) if each.exchange == LADDER else each for each in chunk]))
            chunk = _chunk(remaining)
            if chunk:
                await asyncio.sleep(0)  # let the write go out and confirms come in
                await lane.drain()

    async def _ready(self) -> tuple[ConfirmChannel, Lane]:
        lane = await self._session.lane()
        return await self._open_channel(lane), lane

    async def _ready_patiently(self) -> tuple[ConfirmChannel, Lane]:
        channel = self._channel
        if channel is not None and channel.usable:
            return channel, channel.lane
        lane = await self._session.lane_patiently()
        return await self._open_channel(lane), lane

    async def _open_channel(self, lane: Lane) -> ConfirmChannel:
        async with self._opening:
            before = self._channel
            if before is not None and before.usable:
                return before
            self._channel = channel = await ConfirmChannel.open(lane)
            if before is not None:
                before.retire()
            return channel


def _chunk(messages: Iterable[Message]) -> list[Message]:
    """The next messages for one write: at most CHUNK, and few when they are large."""
    chunk: list[Message] = []
    size = 0
    for message in islice(messages, CHUNK):
        chunk.append(message)
        size += len(message.body)
        if size >= CHUNK_BYTES:
            break
    return chunk


def _errors(
    messages: Sequence[Message], receipts: Sequence[Receipt], cause: BrokerError | None, seconds: float
) -> dict[int, PublishError]:
    errors: dict[int, PublishError] = {}
    at = 0
    for receipt in receipts:
        if not receipt.complete or receipt.errors:
            for index, message in enumerate(receipt.messages):
                if error := receipt.errors.get(index):
                    errors[at + index] = error
                elif not receipt.ended[index]:
                    errors[at + index] = PublishTimeout(
                        f"event {message.message_id}: no confirm within {seconds:g} s; it may or may not be in the "
                        "broker: publish it again under the same id",
                        message.message_id,
                    )
        at += len(receipt.messages)
    for index in range(at, len(messages)):
        event_id = messages[index].message_id
        if cause is not None:
            errors[index] = PublishInterrupted(f"event {event_id}: not sent ({cause})", event_id)
        else:
            errors[index] = PublishTimeout(
                f"event {event_id}: not sent within {seconds:g} s: the broker is away or blocks publishers (memory or "
                "disk alarm)",
                event_id,
            )
    return errors


def publish(
    event: AnyEvent | str,
    data: Any = None,
    *,
    id: str | None = None,
    subject: str | None = None,
    topology: Topology | str | Path | None = None,
    after: float | timedelta | None = None,
    at: datetime | None = None,
) -> str:
    """Publish one event from a plain script, and return its id. Opens a connection each time: for many, `Publisher`.

    Raises: as `Publisher.publish`; BrokerError when there is no broker; RuntimeError inside a running event loop.
    """

    async def once() -> str:
        async with Publisher(topology) as publisher:
            return await publisher.publish(event, data, id=id, subject=subject, after=after, at=at)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(once())
    raise RuntimeError("pipeline.publish() can't be called inside a running event loop; use `Publisher` there")
