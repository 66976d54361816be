"""Publisher confirms on one channel. In: messages. Out: a receipt that knows how each of them ended.

The broker answers in bulk: one ack with `multiple` may end thousands of waits. A returned (unroutable) message carries
no delivery tag; returns come in the order of publishing, so each belongs to the first publish at or behind the last
one returned that had the same route and message id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiormq.abc import AbstractChannel

from pipeline.amqp.frames import content_frames, properties_limit, publish_method, split_route
from pipeline.amqp.lane import Lane
from pipeline.errors import BrokerError, Nacked, ProtocolViolation, PublishError, PublishInterrupted, Unroutable
from pipeline.message import Message
from pipeline.properties import decode_properties

ROUTES_KEPT = 4096  # encoded basic.publish frames remembered by (exchange, routing key)
# Seconds a channel is kept though the broker nacks on it. RabbitMQ 3.10.8 was seen to nack for good on a channel that
# had published to a stream when the stream's leader was lost, while the stream was well; a new channel works.
REFUSING = 1.0


class Receipt:
    """How the messages of one publish ended: `errors` by index; `done` once all of them have."""

    __slots__ = ("_remaining", "done", "ended", "errors", "messages")

    def __init__(self, messages: Sequence[Message], done: asyncio.Future[None]) -> None:
        self.messages = messages
        self.errors: dict[int, PublishError] = {}
        self.ended = bytearray(len(messages))  # 1 where the broker's word has come
        self.done = done
        self._remaining = len(messages)
        if not messages:
            done.set_result(None)

    @property
    def complete(self) -> bool:
        """Every message has ended."""
        return not self._remaining

    def settle(self, index: int, error: PublishError | None = None) -> None:
        """The message at `index` ended."""
        self.ended[index] = 1
        if error is not None and index not in self.errors:
            self.errors[index] = error
        self._remaining -= 1
        if not self._remaining and not self.done.done():
            self.done.set_result(None)


class ConfirmChannel:
    """A channel in confirm mode on the lane."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._next_tag = 1
        self._lowest = 1  # every tag below it has ended
        self._waiting: dict[int, tuple[Receipt, int]] = {}
        self._last_returned = 0
        self._heard = 0.0  # when the broker last confirmed something, or something began to wait for it
        self._pieces: list[bytes] = []
        self._routes: dict[tuple[str, str], bytes] = {}
        self._room: asyncio.Event = asyncio.Event()
        self.closed: BrokerError | None = None
        self._opened = self._loop.time()
        self._refused = False  # the broker's last word here
        self._retired = False
        self._own: AbstractChannel | None = None
        self._closing: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, lane: Lane) -> ConfirmChannel:
        """Open a confirming channel on `lane`. Raises: BrokerError."""
        self = cls(lane)
        channel = await lane.channel(self, confirms=True)
        self._own, self._number = channel, channel.number
        channel.closing.add_done_callback(self._channel_closed)
        lane.lost.add_done_callback(self._lane_lost)
        if lane.is_lost:
            raise lane.lost.result()
        return self

    @property
    def outstanding(self) -> int:
        """Messages sent whose confirm has not come."""
        return len(self._waiting)

    @property
    def silence(self) -> float:
        """Seconds that messages have waited without the broker confirming any; 0 when none waits."""
        return self._loop.time() - self._heard if self._waiting else 0.0

    @property
    def usable(self) -> bool:
        """Whether to publish on it: not when it is closed, nor when the broker's last word was a nack for a while."""
        refuses = self._refused and self._loop.time() - self._opened > REFUSING
        return self.closed is None and not self.lane.is_lost and not refuses

    def retire(self) -> None:
        """Nothing more is published here: it is closed once what was has ended."""
        self._retired = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._retired and not self._waiting and self._own is not None:
            own, self._own = self._own, None
            self._closing = asyncio.ensure_future(self.lane.close_channel(own))

    def publish(self, messages: Sequence[Message]) -> Receipt:
        """Queue `messages` for the next write; all callers of one turn of the event loop share that write.

        A message whose names AMQP can't carry is settled at once with an error; the others go.

        Raises: BrokerError when the channel is closed (nothing was sent).
        """
        if self.closed is not None:
            raise self.closed
        receipt = Receipt(messages, self._loop.create_future())
        if not self._pieces and messages:
            self._loop.call_soon(self._flush)
        if not self._waiting:
            self._heard = self._loop.time()
        pieces, waiting, tag = self._pieces, self._waiting, self._next_tag
        number, frame_max, routes = self._number, self.lane.frame_max, self._routes
        limit = properties_limit(frame_max)
        for index, message in enumerate(messages):
            if len(message.properties) > limit:
                receipt.settle(index, _too_large(message, limit))
                continue
            route = (message.exchange, message.routing_key)
            method = routes.get(route)
            if method is None:
                try:
                    method = publish_method(number, *route)
                except ValueError as error:
                    receipt.settle(index, PublishError(f"event {message.message_id}: {error}", message.message_id))
                    continue
                if len(routes) >= ROUTES_KEPT:
                    routes.clear()
                routes[route] = method
            pieces.append(method)
            pieces += content_frames(number, message.properties, message.body, frame_max)
            waiting[tag] = (receipt, index)
            tag += 1
        self._next_tag = tag
        return receipt

    def _flush(self) -> None:
        data = b"".join(self._pieces)
        self._pieces.clear()
        if data and self.closed is None and not self.lane.is_lost:
            self.lane.write(data)

    async def room(self, window: int) -> None:
        """Wait until fewer than `window` messages are unconfirmed. Returns at once when the channel is closed."""
        while len(self._waiting) >= window and self.closed is None:
            self._room.clear()
            await self._room.wait()

    # --- from the broker ---------------------------------------------------------------------------------------

    def confirmed(self, tag: int, multiple: bool, ack: bool) -> None:
        self._heard = self._loop.time()
        self._refused = not ack
        first = self._lowest if multiple else tag
        pop = self._waiting.pop
        for each in range(first, min(tag, self._next_tag - 1) + 1):
            entry = pop(each, None)
            if entry is not None:
                receipt, index = entry
                receipt.settle(index, None if ack else _nacked(receipt.messages[index]))
        if multiple or tag == self._lowest:
            self._lowest = max(self._lowest, tag + 1)
        if self._retired:
            self._close_if_done()

    def returned(self, code: int, text: str, route: bytes, properties: bytes, body: bytes) -> None:
        names = split_route(route)
        try:
            message_id = decode_properties(properties).message_id
        except ProtocolViolation:
            message_id = ""  # a copy of somebody else's message, which can't be read, is published without
        for tag in range(max(self._last_returned + 1, self._lowest), self._next_tag):
            entry = self._waiting.get(tag)
            if entry is None:
                continue
            receipt, index = entry
            message = receipt.messages[index]
            if message.message_id == message_id and (message.exchange, message.routing_key) == names:
                self._last_returned = tag
                receipt.errors[index] = Unroutable(
                    f"event {message_id or '(without id)'}: the broker has no queue for routing key {names[1]!r} on "
                    f"exchange {names[0]!r} ({code} {text}); `pipeline topology plan` shows what is missing",
                    message_id,
                )
                return
        # Passing it over would make the ack behind it look like success.
        raise ProtocolViolation(f"a message was returned that was not published here: {message_id!r} to {names}")

    def delivered(self, tag: int, redelivered: bool, route: bytes, properties: bytes, body: bytes) -> None:
        raise ProtocolViolation("a delivery came on a channel that consumes nothing")

    def flush(self) -> None:
        self._room.set()

    # --- the end ------------------------------------------------------------------------------------------------

    def _lane_lost(self, lost: asyncio.Future[BrokerError]) -> None:
        self._end(lost.result())

    def _channel_closed(self, closing: asyncio.Future[object]) -> None:
        cause = None if closing.cancelled() else closing.exception()
        self._end(self.lane.explain(cause or ConnectionError("the channel was closed")))

    def _end(self, cause: BrokerError) -> None:
        if self.closed is not None:
            return
        self.closed = cause
        self.lane.lost.remove_done_callback(self._lane_lost)  # a lane may outlive many channels
        waiting, self._waiting = self._waiting, {}
        for receipt, index in waiting.values():
            message = receipt.messages[index]
            receipt.settle(
                index,
                PublishInterrupted(
                    f"event {message.message_id}: not confirmed before the connection was lost ({cause}); it may or "
                    "may not be in the broker: publish it again under the same id",
                    message.message_id,
                ),
            )
        self._room.set()


def _nacked(message: Message) -> Nacked:
    return Nacked(
        f"event {message.message_id}: the broker refused it for exchange {message.exchange!r}, routing key "
        f"{message.routing_key!r}: a queue is full or not available",
        message.message_id,
    )


def _too_large(message: Message, limit: int) -> PublishError:
    return PublishError(
        f"event {message.message_id}: its attributes take {len(message.properties)} bytes; this broker takes at most "
        f"{limit} (frame_max)",
        message.message_id,
    )
