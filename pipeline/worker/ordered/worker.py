"""One ordered subscription at work: its stages, joined. In: its partitions. Out: results, in the order of each key.

    partition ─► intake ─► flow ─► handle ─► commit ─► ack
                             ▲                  ├────► wait, and again
                             └──────────────────┴────► dead-letter copy ─► ack

Each process consumes all partitions; RabbitMQ delivers each to one of them at a time. Who gets a delivery takes the
partition in the database, and commits under that epoch. Reasons in docs/decisions/0014-order.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from pipeline.amqp.consumer import Consumer
from pipeline.amqp.publisher import Publisher
from pipeline.amqp.session import Session
from pipeline.cache import AfterCommit, ResultCache
from pipeline.event import new_id
from pipeline.log import get_logger
from pipeline.message import Delivery
from pipeline.retry import RetryLater
from pipeline.settings import Settings
from pipeline.store.consumers import ConsumerRow
from pipeline.store.patience import patiently
from pipeline.store.store import Store
from pipeline.topology.partitions import work_queues
from pipeline.worker.beside import Part, beside
from pipeline.worker.effects import EffectsBuilder
from pipeline.worker.handle import Handling
from pipeline.worker.loading import LoadedWorker
from pipeline.worker.notes import FailureNotes
from pipeline.worker.ordered.burial import Burials
from pipeline.worker.ordered.commit import Commits
from pipeline.worker.ordered.draining import markers_through, older, put_markers
from pipeline.worker.ordered.flow import Flow
from pipeline.worker.ordered.intake import OrderedIntake, earlier_end
from pipeline.worker.ordered.life import Life
from pipeline.worker.ordered.line import Item
from pipeline.worker.ordered.sharing import Shares
from pipeline.worker.ordered.step import Step
from pipeline.worker.outgoing import OutgoingRelay
from pipeline.worker.presence import Presence
from pipeline.worker.report import Tally, report
from pipeline.worker.settle import Settlement

log = get_logger("ordered")

FILL = 0.01  # seconds a busy partition's next batch is given to fill
BUSY, FULL = 4, 500  # deliveries in a batch between which that helps
LOOK = 1.0  # seconds between looks at shares and at what is held too long
HELD = 600.0  # seconds a delivery is held at most: RabbitMQ closes the channel after 30 minutes
QUIET = 2.0  # seconds to end what is begun before a partition is given back
CHECKED = 5.0  # seconds for which the topology, once found right, is not looked at again


class OrderedWorker:
    """Runs one ordered subscription until `stop`. The same from outside as `SubscriptionWorker`."""

    def __init__(
        self,
        settings: Settings,
        loaded: LoadedWorker,
        store: Store,
        session: Session,
        publisher: Publisher,
        check: Callable[[], Awaitable[None]],
        me: ConsumerRow | None = None,
        cache: ResultCache | None = None,
    ) -> None:
        self.subscription = loaded.subscription
        name = self.subscription.name
        self.tally = Tally()
        self._settings = settings
        self._store = store
        self._ordered = store.ordered()
        self._session = session
        self._publisher = publisher
        self._check = check
        self._checked = 0.0
        self._checking = asyncio.Lock()
        self._me = me.id if me else new_id()
        self._intake = OrderedIntake(self.subscription, publisher.codec, loaded.handlers, loaded.payloads)
        effects = EffectsBuilder(name, publisher.codec, publisher.codec.write_json)
        self._commits = Commits(name, self._ordered, self._committed, self._taken_away)
        self._burials = Burials(self.subscription, publisher, self._report)
        own = self.subscription
        self._handling = Handling(name, own.concurrency, own.timeout, effects, self._query, self._ended)
        self._flow = Flow(
            own, self._commits.add, self._burials.add, self._handling.add, self._settled, self._first_in_line
        )
        self._outgoing = OutgoingRelay(store, publisher, name)
        self._notes = FailureNotes(store, name)
        self._cache = AfterCommit(cache, name) if cache else None
        self._shares = Shares(store, self._me)
        self._beside: list[Part] = [self._notes]
        if self._cache is not None:
            self._beside.append(self._cache)
        if me is not None:
            self._beside.append(Presence(me, store, list(loaded.handlers)))
        self._older: list[str] = []
        self._consumers: dict[str, Consumer] = {}
        self._lives: dict[str, Life] = {}
        self._stopping = asyncio.Event()
        self._handing: set[asyncio.Task[None]] = set()

    # --- life of the worker --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to consume: first what earlier partitions still hold. Raises: BrokerError."""
        self._older = await older(self._settings, self.subscription)
        await self._consume(self._older or work_queues(self.subscription))

    async def run(self) -> None:
        """Work until `stop`, then until what is begun is settled."""
        async with beside(self._beside):
            await self._run_stages()

    async def _run_stages(self) -> None:
        name = self.subscription.name
        stages = [
            asyncio.create_task(self._commits.run(self._flow), name=f"commit {name}"),
            asyncio.create_task(self._burials.run(self._flow), name=f"bury {name}"),
            asyncio.create_task(self._outgoing.run(), name=f"outgoing {name}"),
        ]
        taking = [
            asyncio.create_task(self._take_in(), name=f"intake {name}"),
            asyncio.create_task(self._look_after(), name=f"shares {name}"),
        ]
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            # A stage that ends early has a bug: its error must end the worker, not hang it.
            await asyncio.wait([stopping, *stages, *taking], return_when=asyncio.FIRST_COMPLETED)
            for task in [*stages, *taking]:
                if task.done():
                    task.result()
            for life in self._lives.values():
                life.closing = True
            while not self._settled_down or not self._outgoing.idle:
                await asyncio.wait(stages, timeout=0.02, return_when=asyncio.FIRST_COMPLETED)
                for task in stages:
                    if task.done():
                        task.result()
        finally:
            stopping.cancel()
            for task in [*taking, *stages]:
                task.cancel()
            await asyncio.gather(stopping, *taking, *stages, return_exceptions=True)
            await self._handling.close()
            await asyncio.gather(*(consumer.close() for consumer in self._consumers.values()))

    async def stop(self) -> None:
        """Begin nothing new. What is not begun goes back to its queue, in order, when the channels close."""
        self._stopping.set()

    async def nothing_left(self) -> bool:
        """Nothing in hand, and no follow-up event of any process waits in the database."""
        return self.idle and await self._outgoing.is_empty()

    @property
    def queues(self) -> list[str]:
        """The queues that are empty once nothing is left to do."""
        return [*self._older, *work_queues(self.subscription)]

    @property
    def idle(self) -> bool:
        """Nothing in hand and nothing waiting to go out."""
        open_items = any(life.open for life in self._lives.values())
        in_hand = any(consumer.in_hand for consumer in self._consumers.values())
        return not open_items and not in_hand and self._settled_down and self._outgoing.idle

    @property
    def _settled_down(self) -> bool:
        quiet = all(life.quiet for life in self._lives.values())
        return quiet and self._commits.idle and self._burials.idle

    # --- partitions ----------------------------------------------------------------------------------------------

    async def _consume(self, queues: Sequence[str]) -> None:
        for queue in queues:
            self._consumers[queue] = Consumer(
                self._session, queue, self.subscription.prefetch, self._check_now_and_then, self._me, True
            )
        await asyncio.gather(*(consumer.start() for consumer in self._consumers.values()))

    async def _check_now_and_then(self) -> None:
        async with self._checking:
            if time.monotonic() - self._checked > CHECKED:
                await self._check()
                self._checked = time.monotonic()

    async def _take_in(self) -> None:
        if self._older:
            ids = await put_markers(self._publisher, self._older)
            through = asyncio.create_task(markers_through(self._store, self.subscription.name, ids))
            await self._take_in_until(through)
            for queue in list(self._consumers):
                if (life := self._lives.pop(queue, None)) is not None:
                    life.end()
                await self._consumers.pop(queue).close()
            self._older = []
            await self._consume(work_queues(self.subscription))
        await self._take_in_until(asyncio.create_task(self._stopping.wait()))

    async def _take_in_until(self, end: asyncio.Task[Any]) -> None:
        tasks = [
            asyncio.create_task(self._partition(queue, consumer), name=f"partition {queue}")
            for queue, consumer in self._consumers.items()
        ]
        try:
            await asyncio.wait([end, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in (end, *tasks):
                if task.done():
                    task.result()
        finally:
            for task in (end, *tasks):
                task.cancel()
            await asyncio.gather(end, *tasks, return_exceptions=True)

    async def _partition(self, queue: str, consumer: Consumer) -> None:
        while batch := await consumer.arrived():
            life = self._lives.get(queue)
            if life is None or life.ended or life.epoch != batch[0].epoch:
                if life is not None:
                    life.end()
                life = self._lives[queue] = await self._take(queue, consumer, batch[0].epoch)
            await self._arrived(life, batch)
            if BUSY <= len(batch) < FULL:
                await asyncio.sleep(FILL)

    async def _take(self, queue: str, consumer: Consumer, epoch: int) -> Life:
        name = self.subscription.name
        token = await patiently(name, lambda: self._ordered.take(queue, self._me))
        rows = await patiently(name, self._ordered.lines)
        log.info("took a partition", subscription=name, partition=queue, epoch=token)
        return Life(queue, consumer, epoch, token, rows)

    async def _arrived(self, life: Life, batch: list[Delivery]) -> None:
        items = self._intake.items(batch)
        ids = [item.event_id for item in items if item.event_id]
        seen = await patiently(self.subscription.name, lambda: self._store.seen(ids)) if ids else set()
        if life.ended:
            return
        placed = self._intake.place(life, items, seen)
        life.consumer.settle([item.delivery for item in placed.done])
        self.tally.duplicates += len(placed.done)
        for item in placed.again:
            self._flow.bury_again(life, item, earlier_end(item))
        self._flow.arrived(life, placed.lines)
        self._pass_marker(life)

    def _pass_marker(self, life: Life) -> None:
        oldest = life.oldest
        if oldest is not None and oldest.marker and not oldest.running and not life.closing:
            self._flow.pass_marker(life, oldest)

    async def _look_after(self) -> None:
        """Give back what is another's share, and what has been held for long; notice lives that have ended."""
        while True:
            await asyncio.sleep(LOOK)
            await self._shares.look()
            partitions = list(self._consumers)
            for life in list(self._lives.values()):
                if life.ended:
                    continue
                oldest = life.oldest
                if life.epoch != life.consumer.epoch:
                    life.end()
                elif oldest is not None and time.monotonic() - oldest.arrived > HELD:
                    await self._give_back(life, "held for long")
                elif self._shares.not_ours(life.partition, partitions):
                    await self._give_back(life, "another's share")

    async def _give_back(self, life: Life, why: str) -> None:
        """End what is begun, give the rest back in its order, and stand in line again."""
        life.closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET):
                while not life.quiet:  # noqa: ASYNC110 - rare, and short
                    await asyncio.sleep(0.01)
        log.info("giving a partition back", partition=life.partition, why=why, in_hand=len(life.open))
        await self._let_go(life)

    async def _let_go(self, life: Life) -> None:
        life.end()
        if self._lives.get(life.partition) is life:
            del self._lives[life.partition]
            if life.consumer.epoch == life.epoch:
                await life.consumer.release()

    # --- what the stages say -------------------------------------------------------------------------------------

    async def _query(self, statement: Any) -> list[Any]:
        """A handler's question: it sees what the events before it have written."""
        await self._commits.flushed()
        return await self._store.query(statement)

    async def _first_in_line(self, key: str) -> str | None:
        return await patiently(self.subscription.name, lambda: self._ordered.first_in_line(key))

    def _ended(self, done: Any) -> None:
        self._flow.ended(done)

    def _committed(self, step: Step, fresh: bool) -> None:
        effects = step.entry.effects
        if effects is None:
            if step.failed is not None and step.then == "retry":
                self._report_retry(step)
            return
        if step.item.marker:
            return
        if not fresh:
            self.tally.duplicates += 1
            return
        self.tally.processed += 1
        if effects.outgoing:
            self._outgoing.add(list(effects.outgoing))
        if step.entry.had_line:
            self._notes.processed([step.item.work.event.id if step.item.work else step.item.event_id])
        if self._cache is not None and effects.result is not None:
            self._cache.add({effects.result_id or effects.event_id: effects.result})

    def _report_retry(self, step: Step) -> None:
        assert step.failed is not None
        self._report(Settlement(step.failed, RetryLater(step.wait, step.wait), None))

    def _report(self, settlement: Settlement) -> None:
        report(self.subscription.name, settlement, self.tally)
        self._notes.failed(settlement)

    def _taken_away(self, life: Life) -> None:
        log.warning("another process has taken a partition", partition=life.partition)
        life.end()
        task = asyncio.ensure_future(self._let_go(life))
        self._handing.add(task)
        task.add_done_callback(self._handing.discard)

    def _settled(self, life: Life, item: Item) -> None:
        life.consumer.settle([item.delivery])
        self._pass_marker(life)
