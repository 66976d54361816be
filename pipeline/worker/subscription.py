"""One subscription at work: the stages, joined. In: its queue. Out: results in its database, every delivery settled.

    consumer ─► intake ─► handle ─► commit ─► ack
                   │         │         └────► follow-up events
                   └─────────┴─ failed ─► retry or dead-letter copy ─► ack

The stages run side by side: while one batch commits, the next is handled. What is in hand is bounded by the prefetch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from logging import DEBUG

from pipeline.amqp.consumer import Consumer
from pipeline.amqp.publisher import Publisher
from pipeline.amqp.session import Session
from pipeline.cache import AfterCommit, ResultCache
from pipeline.log import get_logger
from pipeline.message import Delivery
from pipeline.store.consumers import ConsumerRow
from pipeline.store.patience import patiently
from pipeline.store.store import Store
from pipeline.store.writes import Outgoing
from pipeline.worker.beside import Part, beside
from pipeline.worker.commit import commit
from pipeline.worker.effects import EffectsBuilder
from pipeline.worker.handle import Handling
from pipeline.worker.intake import Intake
from pipeline.worker.loading import LoadedWorker
from pipeline.worker.notes import FailureNotes
from pipeline.worker.outgoing import OutgoingRelay
from pipeline.worker.presence import Presence
from pipeline.worker.report import Tally, report
from pipeline.worker.settle import another_round, publish_copies, settle_failure
from pipeline.worker.suspects import Suspects, is_suspect
from pipeline.worker.work import Failed, Handled, Work

log = get_logger("worker")

COMMIT_BATCH = 1000  # events a transaction, at most
# At middle loads batches are small and each costs as much as many events. While they come in numbers, a short wait lets
# the next one fill; an event that comes alone never waits. Measured: docs/decisions/0007-the-lane.md.
BUSY = 4  # events in the last batch that count as numbers
FULL = 500  # events in the last batch from which on the next fills by itself
FILL = 0.01  # seconds, before taking deliveries in
TURNS = 0.001  # seconds, before a commit: handlers work in turns, and the first one's end need not be a commit
COPY_RETRY = 1.0  # seconds before a copy that was not confirmed is tried again


class SubscriptionWorker:
    """Runs one subscription until `stop`. `run` returns when everything in hand is settled.

    `check` is called before consuming on a new connection; it raises BrokerError while the topology is not right. `me`
    is the process, for those who ask who works; `cache` takes results once they are committed.
    """

    def __init__(
        self,
        loaded: LoadedWorker,
        store: Store,
        session: Session,
        publisher: Publisher,
        check: Callable[[], Awaitable[None]],
        me: ConsumerRow | None = None,
        cache: ResultCache | None = None,
    ) -> None:
        self.subscription = loaded.subscription
        self.tally = Tally()
        self._store = store
        self._publisher = publisher
        self._consumer = Consumer(
            session, self.subscription.queue, self.subscription.prefetch, check, me.id if me else ""
        )
        self._suspects = Suspects(self._consumer, self.subscription.prefetch)
        self._intake = Intake(self.subscription, publisher.codec, loaded.handlers, loaded.payloads)
        write_json = publisher.codec.write_json
        effects = EffectsBuilder(self.subscription.name, publisher.codec, write_json)
        self._handling = Handling(
            self.subscription.name,
            self.subscription.concurrency,
            self.subscription.timeout,
            effects,
            store.query,
            self._ended,
        )
        self._outgoing = OutgoingRelay(store, publisher, self.subscription.name)
        self._notes = FailureNotes(store, self.subscription.name)
        self._cache = AfterCommit(cache, self.subscription.name) if cache else None
        self._beside: list[Part] = [self._notes]
        if self._cache is not None:
            self._beside.append(self._cache)
        if me is not None:
            self._beside.append(Presence(me, store, list(loaded.handlers)))
        self._handled: list[Handled] = []
        self._failed: list[Failed] = []
        self._early: list[tuple[Delivery, float]] = []
        self._wake_commit = asyncio.Event()
        self._wake_settle = asyncio.Event()
        self._committing = False
        self._settling = False
        self._unfinished = 0  # deliveries taken in and not settled
        self._drained = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # --- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to consume. Raises: BrokerError."""
        await self._suspects.start()

    async def run(self) -> None:
        """Work until `stop`, then until everything in hand is settled."""
        async with beside(self._beside):
            await self._run_stages()

    async def _run_stages(self) -> None:
        background = [
            asyncio.create_task(self._commit_loop(), name=f"commit {self.subscription.name}"),
            asyncio.create_task(self._settle_loop(), name=f"settle {self.subscription.name}"),
            asyncio.create_task(self._outgoing.run(), name=f"outgoing {self.subscription.name}"),
        ]
        intake = asyncio.create_task(self._intake_loop(), name=f"intake {self.subscription.name}")
        try:
            # A stage that ends early has a bug: its error must end the worker, not hang it.
            await asyncio.wait([intake, *background], return_when=asyncio.FIRST_COMPLETED)
            for task in (intake, *background):
                if task.done():
                    task.result()
            while self._unfinished or not self._outgoing.idle:
                self._drained.clear()
                waiter = asyncio.create_task(self._drained.wait())
                await asyncio.wait([waiter, *background], timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
                waiter.cancel()
                for task in background:
                    if task.done():
                        task.result()
        finally:
            for task in (intake, *background):
                task.cancel()
            await asyncio.gather(intake, *background, return_exceptions=True)
            await self._handling.close()
            await self._consumer.close()

    async def stop(self) -> None:
        """No new deliveries."""
        await self._consumer.stop()

    async def nothing_left(self) -> bool:
        """Nothing in hand, and no follow-up event of any process waits in the database."""
        return self.idle and await self._outgoing.is_empty()

    @property
    def consumed(self) -> list[str]:
        """The queue that it consumes."""
        return [self.subscription.queue]

    @property
    def waited_for(self) -> list[str]:
        """The queues whose messages come back to it by themselves."""
        return [self.subscription.retry_queue(delay) for delay in sorted(set(self.subscription.retry.delays))]

    @property
    def idle(self) -> bool:
        """Nothing in hand and nothing waiting to go out."""
        return not self._unfinished and not self._consumer.in_hand and self._outgoing.idle

    # --- intake -------------------------------------------------------------------------------------------------

    async def _intake_loop(self) -> None:
        while batch := await self._suspects.arrived():
            self._unfinished += len(batch)
            found = self._intake.sort(batch)
            if found.failed:
                self._fail(found.failed)
            if found.early:
                self._early += found.early
                self._wake_settle.set()
            if found.works:
                await self._take(found.works)
            if BUSY <= len(batch) < FULL:
                await asyncio.sleep(FILL)

    async def _take(self, works: list[Work]) -> None:
        ids = [work.key for work in works]
        seen = await patiently(self.subscription.name, lambda: self._store.seen(ids))
        if seen:
            duplicates = [work.delivery for work in works if work.key in seen]
            works = [work for work in works if work.key not in seen]
            self.tally.duplicates += len(duplicates)
            self._settled(duplicates)
        if len(works) == 1 and is_suspect(works[0].delivery):  # which come one at a time
            await self._notes.suspected(works[0], self.subscription.delivery_limit)
        self._handling.add(works)

    def _ended(self, done: Handled | Failed) -> None:
        if isinstance(done, Handled):
            self._handled.append(done)
            self._wake_commit.set()
        else:
            self._fail([done])

    def _fail(self, failed: Sequence[Failed]) -> None:
        self._failed += failed
        self._wake_settle.set()

    # --- commit -------------------------------------------------------------------------------------------------

    async def _commit_loop(self) -> None:
        last = 0  # events in the batch before
        while True:
            await self._wake_commit.wait()
            if last >= BUSY and len(self._handled) < FULL:
                await asyncio.sleep(TURNS)
            batch, self._handled = self._handled[:COMMIT_BATCH], self._handled[COMMIT_BATCH:]
            if not self._handled:
                self._wake_commit.clear()
            if not batch:
                continue
            last = len(batch)
            ended = await commit(self._store, self.subscription.name, batch, keep_results=self._cache is not None)
            self.tally.processed += ended.processed
            self.tally.duplicates += ended.duplicates
            self._publish_outgoing(ended.outgoing)
            self._settled(ended.ack)
            if ended.failed_before:
                self._notes.processed(ended.failed_before)
            if self._cache is not None and ended.results:
                self._cache.add(ended.results)
            if log.is_enabled_for(DEBUG):
                for handled in batch:
                    event = handled.work.event
                    log.debug("handled", subscription=self.subscription.name, event_id=event.id, type=event.type)
            if ended.failed:
                self._fail(ended.failed)

    def _publish_outgoing(self, outgoing: list[Outgoing]) -> None:
        if outgoing:
            self._outgoing.add(outgoing)

    # --- settle -------------------------------------------------------------------------------------------------

    async def _settle_loop(self) -> None:
        while True:
            await self._wake_settle.wait()
            self._wake_settle.clear()
            failed, self._failed = self._failed, []
            early, self._early = self._early, []
            limit, delay = self._publisher.properties_limit, self._publisher.delay
            settlements = [settle_failure(self.subscription, each, limit, delay) for each in failed]
            entries = [(each.failed.delivery, each.copy) for each in settlements]
            entries += [(each, another_round(self.subscription, each, wait, limit, delay)) for each, wait in early]
            copies = [(index, copy) for index, (_, copy) in enumerate(entries) if copy is not None]
            confirmed = await publish_copies(self._publisher, [copy for _, copy in copies])
            unconfirmed = {copies[at][0] for at in range(len(copies)) if at not in confirmed}
            self._settled([delivery for index, (delivery, _) in enumerate(entries) if index not in unconfirmed])
            for index, settlement in enumerate(settlements):
                if index not in unconfirmed:
                    report(self.subscription.name, settlement, self.tally)
                    self._notes.failed(settlement)
            if unconfirmed:
                # The originals are still ours: nothing is lost while the broker can't take the copies.
                log.warning(
                    "copies not confirmed, trying again", subscription=self.subscription.name, n=len(unconfirmed)
                )
                self._failed += [settlements[index].failed for index in unconfirmed if index < len(settlements)]
                offset = len(settlements)
                self._early += [early[index - offset] for index in unconfirmed if index >= offset]
                await asyncio.sleep(COPY_RETRY)
                self._wake_settle.set()

    def _settled(self, deliveries: Sequence[Delivery]) -> None:
        self._consumer.settle(deliveries)
        self._unfinished -= len(deliveries)
        if not self._unfinished:
            self._drained.set()
