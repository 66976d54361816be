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
from collections.abc import Awaitable, Callable
from itertools import chain
from typing import Any

from pipeline.amqp.consumer import Consumer
from pipeline.amqp.publisher import Publisher
from pipeline.amqp.session import Session
from pipeline.cache import AfterCommit, ResultCache
from pipeline.event import new_id
from pipeline.message import Delivery
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
from pipeline.worker.ordered.outcomes import Outcomes
from pipeline.worker.ordered.owning import Owning
from pipeline.worker.ordered.sharing import Shares
from pipeline.worker.outgoing import OutgoingRelay
from pipeline.worker.presence import Presence
from pipeline.worker.report import Tally
from pipeline.worker.work import Failed, Handled

FILL = 0.01  # seconds a busy partition's next batch is given to fill
BUSY, FULL = 4, 500  # deliveries in a batch between which that helps
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
        self._outgoing = OutgoingRelay(store, publisher, name)
        self._notes = FailureNotes(store, name)
        self._cache = AfterCommit(cache, name) if cache else None
        self._outcomes = Outcomes(name, self._outgoing, self._notes, self._cache)
        self._owning = Owning(name, self._ordered, Shares(store, self._me), self._me)
        self._commits = Commits(name, self._ordered, self._outcomes.committed, self._owning.taken_away)
        self._burials = Burials(self.subscription, publisher, self._outcomes.failed)
        own = self.subscription
        self._handling = Handling(name, own.concurrency, own.timeout, effects, self._query, self._ended)
        self._flow = Flow(
            own, self._commits.add, self._burials.add, self._handling.add, self._settled, self._first_in_line
        )
        self._beside: list[Part] = [self._notes]
        if self._cache is not None:
            self._beside.append(self._cache)
        if me is not None:
            self._beside.append(Presence(me, store, list(loaded.handlers)))
        self._older: list[list[str]] = []
        self._consumers: dict[str, Consumer] = {}
        self._stopping = asyncio.Event()

    @property
    def tally(self) -> Tally:
        """What came of events until now."""
        return self._outcomes.tally

    # --- life of the worker --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to consume: first what earlier partitions still hold. Raises: TopologyDrift, BrokerError."""
        self._older = await older(self._settings, self.subscription)
        await self._consume_next()

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
            asyncio.create_task(self._owning.look_after(lambda: list(self._consumers)), name=f"shares {name}"),
        ]
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            # A stage that ends early has a bug: its error must end the worker, not hang it.
            await asyncio.wait([stopping, *stages, *taking], return_when=asyncio.FIRST_COMPLETED)
            for task in [*stages, *taking]:
                if task.done():
                    task.result()
            self._owning.begin_nothing()
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
            self._owning.end_all()
            await self._handling.close()
            await asyncio.gather(*(consumer.close() for consumer in self._consumers.values()))

    async def stop(self) -> None:
        """Begin nothing new. What is not begun goes back to its queue, in order, when the channels close."""
        self._stopping.set()

    async def nothing_left(self) -> bool:
        """Nothing in hand, and no follow-up event of any process waits in the database."""
        return self.idle and await self._outgoing.is_empty()

    @property
    def consumed(self) -> list[str]:
        """The queues that it consumes, one group after the other."""
        return [*chain(*self._older), *work_queues(self.subscription)]

    @property
    def waited_for(self) -> list[str]:
        """None: what failed is tried again here, in its turn."""
        return []

    @property
    def idle(self) -> bool:
        """Nothing in hand and nothing waiting to go out."""
        in_hand = any(consumer.in_hand for consumer in self._consumers.values())
        return not self._owning.anything_open and not in_hand and self._settled_down and self._outgoing.idle

    @property
    def _settled_down(self) -> bool:
        return self._owning.quiet and self._commits.idle and self._burials.idle

    # --- partitions ----------------------------------------------------------------------------------------------

    async def _consume_next(self) -> None:
        for queue in self._older[0] if self._older else work_queues(self.subscription):
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
        while self._older:
            ids = await put_markers(self._publisher, self._older[0])
            through = asyncio.create_task(markers_through(self._store, self.subscription.name, ids))
            await self._take_in_until(through)
            for queue in list(self._consumers):
                self._owning.end(queue)
                await self._consumers.pop(queue).close()
            del self._older[0]
            await self._consume_next()
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
            await self._arrived(await self._owning.life(queue, consumer, batch[0].epoch), batch)
            if BUSY <= len(batch) < FULL:
                await asyncio.sleep(FILL)

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

    # --- what the stages say -------------------------------------------------------------------------------------

    async def _query(self, statement: Any) -> list[Any]:
        """A handler's question: it sees what the events before it have written."""
        await self._commits.flushed()
        return await self._store.query(statement)

    async def _first_in_line(self, key: str) -> str | None:
        return await patiently(self.subscription.name, lambda: self._ordered.first_in_line(key))

    def _ended(self, done: Handled | Failed) -> None:
        self._flow.ended(done)

    def _settled(self, life: Life, item: Item) -> None:
        life.consumer.settle([item.delivery])
        self._pass_marker(life)
