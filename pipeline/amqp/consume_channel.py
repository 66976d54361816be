"""One channel with one consumer on the lane. In: the broker's deliveries. Out: a list of them, and a wake-up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp import commands

from pipeline.amqp.acks import AckLedger
from pipeline.amqp.consumer_tag import tag_of
from pipeline.amqp.frames import ack_frame, split_route
from pipeline.amqp.lane import Lane
from pipeline.amqp.queue_length import true_lengths
from pipeline.errors import BrokerError, BrokerUnavailable, ProtocolViolation
from pipeline.message import Delivery

ROUTES_KEPT = 4096  # decoded (exchange, routing key) pairs remembered
# To a quorum queue every ack is an entry in its log, so those of a moment go together. Not those of a short window: the
# broker sends nothing more before it knows of them.
ACK_EVERY = 256  # settled deliveries whose ack goes at once
ACK_SHARE = 8  # so does the ack of this part of the prefetch
ACK_PATIENCE = 0.001  # seconds any other waits for company


class ConsumeChannel:
    """One life of a consumer: a channel on the lane with one basic.consume on it."""

    def __init__(self, lane: Lane, epoch: int, wake: asyncio.Event, tag: str = "") -> None:
        self.lane = lane
        self.epoch = epoch
        self.arrived: list[Delivery] = []
        self.ledger = AckLedger()
        self.ended: BrokerError | None = None
        self.channel: AbstractChannel | None = None
        self.tag = self._name = tag
        self._times = 0
        self.paused = False  # cancelled by us: silence is what we asked for
        self._wake = wake
        self._ack_every = 1
        self._timer: asyncio.TimerHandle | None = None
        self._routes: dict[bytes, tuple[str, str]] = {}

    async def open(self, queue: str, prefetch: int, arguments: Mapping[str, Any] | None = None) -> None:
        """Consume `queue`. Raises: BrokerError."""
        self.channel = channel = await self.lane.channel(self)
        channel.closing.add_done_callback(self._closed)
        channel.on_consumer_cancel_callbacks.add(self._cancelled)
        try:
            await self.consume(queue, prefetch, arguments)
        except BrokerError:
            await self.lane.close_channel(channel)
            raise

    async def consume(self, queue: str, prefetch: int, arguments: Mapping[str, Any] | None = None) -> None:
        """Begin to consume on the open channel. Raises: BrokerError."""
        assert self.channel is not None
        await self.lane.ask(self.channel.basic_qos(prefetch_count=prefetch))
        self._times += 1
        answer = await self.lane.ask(
            self.channel.basic_consume(
                queue,
                _never,
                arguments=dict(arguments) if arguments else None,
                consumer_tag=tag_of(self._name, self._times) or None,
            )
        )
        self.tag = answer.consumer_tag or ""
        self.paused = False
        self._ack_every = max(1, min(ACK_EVERY, prefetch // ACK_SHARE))

    async def cancel(self) -> None:
        """Ask for no further deliveries; those under way still arrive. Never fails."""
        if self.channel is not None and self.ended is None and not self.paused:
            self.paused = True
            try:
                await self.lane.ask(self.channel.basic_cancel(self.tag))
            except BrokerError as error:
                self.end(error)

    def settle(self, tags: Sequence[int]) -> None:
        """Ack these deliveries, within ACK_PATIENCE."""
        self.ledger.settle(tags)
        if self.ledger.unsent >= self._ack_every:
            self.send_acks()
        elif self._timer is None and self.ledger.unsent:
            self._timer = asyncio.get_running_loop().call_later(ACK_PATIENCE, self.send_acks)

    def send_acks(self) -> None:
        """Write the acks that wait for company."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.channel is None or self.ended is not None or self.lane.is_lost:
            return
        upto, singles = self.ledger.take()
        number = self.channel.number
        data = b"".join([ack_frame(number, tag) for tag in singles])
        if upto:
            data += ack_frame(number, upto, multiple=True)
        if data:
            self.lane.write(data)

    async def queue_state(self, queue: str) -> tuple[int, int]:
        """(ready messages, consumers) of the queue. Raises: BrokerError."""
        assert self.channel is not None
        channel = self.channel
        return await true_lengths(lambda: self.lane.ask(channel.queue_declare(queue, passive=True)), queue)

    # --- from the broker ---------------------------------------------------------------------------------------

    def delivered(self, tag: int, redelivered: bool, route: bytes, properties: bytes, body: bytes) -> None:
        names = self._routes.get(route)
        if names is None:
            if len(self._routes) >= ROUTES_KEPT:
                self._routes.clear()
            names = self._routes[route] = split_route(route)
        self.arrived.append(Delivery(tag, self.epoch, redelivered, names[0], names[1], properties, body))

    def returned(self, code: int, text: str, route: bytes, properties: bytes, body: bytes) -> None:
        raise ProtocolViolation("a message was returned to a channel that publishes nothing")

    def confirmed(self, tag: int, multiple: bool, ack: bool) -> None:
        raise ProtocolViolation("a confirm came for a channel that publishes nothing")

    def flush(self) -> None:
        self._wake.set()

    def _closed(self, closing: asyncio.Future[object]) -> None:
        cause = None if closing.cancelled() else closing.exception()
        self.end(self.lane.explain(cause or ConnectionError("the channel was closed")))

    def _cancelled(self, frame: commands.Basic.Cancel) -> None:
        self.end(BrokerUnavailable("the broker cancelled the consumer (queue deleted, node lost or timeout)"))

    def end(self, cause: BrokerError) -> None:
        """This life is over."""
        if self.ended is None:
            self.ended = cause
            self._wake.set()


async def _never(message: DeliveredMessage) -> None:
    raise AssertionError("deliveries of a claimed channel do not reach the client library")
