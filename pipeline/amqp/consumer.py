"""Consumes one queue in batches, for ever. In: the broker's deliveries. Out: lists of `Delivery`; acks go back.

A batch is whatever has arrived since the last one was taken, at most `prefetch`. The consumer restores itself after a
lost connection, a closed channel, a cancel sent by the broker (queue deleted, node lost, timeout) and a silent stall.
Each restoration begins a new *epoch*: tags of an earlier one are dead, and settling them does nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from pipeline.amqp.consume_channel import ConsumeChannel
from pipeline.amqp.frames import nack_frames
from pipeline.amqp.management import Management
from pipeline.amqp.session import Session, patiently
from pipeline.errors import BrokerError, BrokerUnavailable
from pipeline.log import get_logger
from pipeline.message import Delivery

log = get_logger("consumer")

STALL_CHECK = 15.0  # seconds of silence before the broker is asked whether we still consume
# Seconds of silence with empty hands before the management API is asked whether somebody has messages in hand. RabbitMQ
# was seen to count messages as ours that never came: 3.10.8 when a queue is deleted and declared again at once, others
# when leaders change (github.com/rabbitmq/rabbitmq-server/issues/15473). Only the end of our channel frees them.
LOST_CHECK = 60.0
LOST_CHECK_MAX = 1800.0  # it doubles each time in vain: the messages may well be in the hands of others


class Consumer:
    """Batches of one queue. One task calls `arrived`; any task may `settle`.

    `prefetch` bounds what is in hand (delivered and not settled) and so the memory it takes. `check` is called before
    a lost consumer is restored; it raises BrokerError as long as the topology is not right. `tag` is the consumer tag
    that RabbitMQ's tools show; "" lets the client library make one. `waits_its_turn` on a queue with a single active
    consumer: messages that wait and are not delivered to us are no sign that something is wrong.
    """

    def __init__(
        self,
        session: Session,
        queue: str,
        prefetch: int,
        check: Callable[[], Awaitable[None]] | None = None,
        tag: str = "",
        waits_its_turn: bool = False,
    ) -> None:
        self.queue = queue
        self.prefetch = prefetch
        self._session = session
        self._check = check
        self._tag = tag
        self._waits_its_turn = waits_its_turn
        self._wake = asyncio.Event()
        self._life: ConsumeChannel | None = None
        self._epoch = 0
        self._stopping = False
        self._silent_since = time.monotonic()
        self._lost_check = LOST_CHECK
        self._suspicious = False  # at the last look somebody had messages in hand

    @property
    def epoch(self) -> int:
        """The number of this life; it changes when the consumer had to be restored."""
        return self._epoch

    @property
    def in_hand(self) -> int:
        """Deliveries of this life not yet settled, those not yet taken included."""
        life = self._life
        return life.ledger.open + len(life.arrived) if life is not None and life.ended is None else 0

    async def start(self) -> None:
        """Begin to consume. Raises: BrokerError (ObjectMissing when the queue is not declared)."""
        lane = await self._session.lane()
        self._epoch += 1
        life = ConsumeChannel(lane, self._epoch, self._wake, self._tag)
        await life.open(self.queue, self.prefetch)
        self._life = life

    async def arrived(self) -> list[Delivery]:
        """The next batch, at least one delivery; `[]` once stopped and nothing is left. Restores what broke."""
        while True:
            life = self._life
            if life is not None and life.arrived and life.ended is None:
                batch, life.arrived = life.arrived, []
                life.ledger.took(batch[-1].tag)
                self._silent_since, self._lost_check, self._suspicious = time.monotonic(), LOST_CHECK, False
                return batch
            if self._stopping:
                return []
            if life is None or life.ended is not None:
                await self._restore(life)
                continue
            self._wake.clear()
            try:
                async with asyncio.timeout(STALL_CHECK):
                    await self._wake.wait()
            except TimeoutError:
                await self._check_stall(life)

    async def _restore(self, life: ConsumeChannel | None) -> None:
        if life is not None:
            log.warning("consumer lost, restoring it", queue=self.queue, cause=str(life.ended))
            self._life = None
            if life.channel is not None:
                await life.lane.close_channel(life.channel)
        try:
            await patiently(f"consumer of {self.queue}", lambda: self._stopping)(self._start_checked)
        except BrokerError:
            if not self._stopping:
                raise
            return
        log.info("consuming", queue=self.queue, epoch=self._epoch, prefetch=self.prefetch)

    async def _start_checked(self) -> None:
        if self._check is not None:
            await self._check()
        await self.start()

    async def _check_stall(self, life: ConsumeChannel) -> None:
        """Silence is fine when the queue is empty or our hands are full; otherwise the consumer is gone."""
        try:
            ready, consumers = await life.queue_state(self.queue)
        except BrokerUnavailable as error:
            life.lane.abort()
            life.end(error)
            return
        except BrokerError as error:
            life.end(error)
            return
        if life.paused:
            return
        in_hand = life.ledger.open or life.arrived
        if consumers == 0 or (not self._waits_its_turn and ready and not in_hand):
            life.end(BrokerUnavailable(f"{ready} messages wait in {self.queue} and none was delivered"))
        elif in_hand or (self._waits_its_turn and not life.ledger.begun):  # it is another's turn
            self._silent_since = time.monotonic()
        elif time.monotonic() - self._silent_since > self._lost_check:
            await self._check_lost(life)

    async def _check_lost(self, life: ConsumeChannel) -> None:
        """End this life when messages have been in hand for long, and not in ours: they may be meant for us."""
        self._silent_since = time.monotonic()
        try:
            async with Management(self._session.settings) as management:
                unacked = (await management.queue(self.queue)).unacked
        except BrokerError:
            return
        if life.ledger.open or life.arrived:
            return
        if unacked and self._suspicious:
            self._lost_check = min(2 * self._lost_check, LOST_CHECK_MAX)
            life.end(BrokerUnavailable(f"{unacked} messages of {self.queue} are in hand, not here, and may be for us"))
        self._suspicious = unacked > 0

    def settle(self, deliveries: Iterable[Delivery]) -> None:
        """Ack what ended. Dead tags are dropped: the broker delivers those messages again."""
        life = self._life
        if life is None or life.ended is not None or life.channel is None or life.lane.is_lost:
            return
        life.settle([each.tag for each in deliveries if each.epoch == life.epoch])

    def requeue(self, deliveries: Iterable[Delivery]) -> None:
        """Give deliveries back untouched; the broker hands them out again and counts that."""
        life = self._life
        if life is None or life.ended is not None or life.channel is None or life.lane.is_lost:
            return
        tags = [each.tag for each in deliveries if each.epoch == life.epoch]
        life.ledger.forget(tags)
        if tags:
            life.lane.write(nack_frames(life.channel.number, tags))

    async def pause(self) -> list[Delivery]:
        """No new deliveries until `resume`; what had arrived and was not taken. In hand stays in hand."""
        life = self._life
        if life is None:
            return []
        await life.cancel()
        if life.ended is not None or not life.arrived:
            return []  # what an ended life had not handed out comes again
        batch, life.arrived = life.arrived, []
        life.ledger.took(batch[-1].tag)
        return batch

    async def resume(self, prefetch: int) -> None:
        """Go on with this prefetch, on the same channel: what is in hand stays valid. `arrived` restores what fails."""
        self.prefetch = prefetch
        life = self._life
        if life is None or life.ended is not None or self._stopping:
            return
        await life.cancel()
        try:
            await life.consume(self.queue, prefetch)
        except BrokerError as error:
            life.end(error)

    async def ready(self) -> int:
        """Messages ready in the queue. Raises: BrokerError."""
        if self._life is None:
            raise BrokerUnavailable(f"{self.queue} is not being consumed now")
        return (await self._life.queue_state(self.queue))[0]

    async def release(self) -> None:
        """Give everything back at once, in its order, and stand in line for the queue again: `arrived` consumes anew.

        By closing the channel. A cancelled consumer keeps what it holds while a single active consumer's queue hands
        later messages to the next.
        """
        life, self._life = self._life, None
        if life is not None and life.channel is not None:
            life.send_acks()
            life.end(BrokerUnavailable("given back"))
            await life.lane.drain_quietly()
            await life.lane.close_channel(life.channel)
        self._wake.set()

    async def stop(self) -> None:
        """No new deliveries. `arrived` gives what is already here, then `[]`."""
        self._stopping = True
        if self._life is not None:
            await self._life.cancel()
        self._wake.set()

    async def close(self) -> None:
        """Give the channel back; the broker requeues what is not settled."""
        self._stopping = True
        life, self._life = self._life, None
        if life is not None and life.channel is not None:
            life.send_acks()
            await life.lane.drain_quietly()
            await life.lane.close_channel(life.channel)
        self._wake.set()
