"""One operating system process of workers. In: subscription names and settings. Out: an exit code, everything settled.

SIGTERM and SIGINT drain: no new deliveries, what is in hand is finished and settled, exit 0; what is not finished by
the deadline goes back to its queue. A process whose supervisor died drains as well.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from pipeline.amqp.publisher import Publisher
from pipeline.amqp.session import Session
from pipeline.amqp.verify import verify
from pipeline.cache import ResultCache
from pipeline.log import get_logger
from pipeline.settings import Settings
from pipeline.store.store import Store
from pipeline.topology.model import Topology
from pipeline.worker.emptiness import until_empty
from pipeline.worker.loading import load_worker, pick
from pipeline.worker.ordered.worker import OrderedWorker
from pipeline.worker.presence import this_process
from pipeline.worker.status import BEGAN, ENDED, NOBODY, tell
from pipeline.worker.subscription import SubscriptionWorker

log = get_logger("process")

SWITCH_INTERVAL = 0.0002  # seconds
GC_THRESHOLD = (50_000, 20, 1000)  # new objects, then collections of the generation before
PARENT_CHECK = 1.0  # seconds between looks whether the supervisor lives

AnyWorker: TypeAlias = SubscriptionWorker | OrderedWorker


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a process is to do."""

    subscriptions: tuple[str, ...]
    until_empty: bool = False
    parent: int = 0  # process id of the supervisor, 0 for none
    status: int = NOBODY  # descriptor of the supervisor's pipe


async def run_process(settings: Settings, topology: Topology, assignment: Assignment) -> None:
    """Work until told to stop or, with `until_empty`, until nothing is left.

    Raises: ConfigurationError, HandlerError, TopologyDrift, BrokerError, StoreError when it can't even begin.
    """
    # Batches are committed on a thread. With Python's 5 ms, a thread that wants the interpreter waits that long behind
    # a busy event loop at every statement: a commit of 500 events took up to 1.9 s beside one, and 0.15 s with this.
    sys.setswitchinterval(SWITCH_INTERVAL)
    # A batch makes thousands of objects and lets all of them go. Python's default looks through them every 700; that
    # took a fifth of a worker's time and found nothing.
    gc.set_threshold(*GC_THRESHOLD)
    chosen = pick(topology, assignment.subscriptions)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        publisher = Publisher(topology, settings)
        loaded = [load_worker(subscription, publisher.codec) for subscription in chosen]
        await stack.enter_async_context(publisher)
        session = await stack.enter_async_context(
            Session(settings, f"pipeline worker {', '.join(s.name for s in chosen)}")
        )
        await verify(settings, topology, [subscription.name for subscription in chosen])
        workers: list[AnyWorker] = []
        me = this_process([subscription.name for subscription in chosen])
        # The process's own memory would help nobody: who reads results is another process.
        cached = [subscription.name for subscription in chosen if settings.cache_of(subscription.name)]
        cache = ResultCache.open(settings) if cached else None
        if cache is not None:
            stack.push_async_callback(cache.close)
        for each in loaded:
            store = await Store.open(settings.database_of(each.subscription.name), each.subscription.name, each.tables)
            stack.push_async_callback(store.close)
            check = partial(verify, settings, topology, [each.subscription.name])
            shared = cache if each.subscription.name in cached else None
            if each.subscription.order_by:
                workers.append(OrderedWorker(settings, each, store, session, publisher, check, me, shared))
            else:
                workers.append(SubscriptionWorker(each, store, session, publisher, check, me, shared))
        for worker in workers:
            await worker.start()
        tell(assignment.status, BEGAN)
        log.info(
            "working", subscriptions=[each.name for each in chosen], pid=os.getpid(), broker=settings.broker_found_in
        )
        watchers = [asyncio.create_task(_watch_parent(assignment.parent, stop))]
        if assignment.until_empty:
            watchers.append(asyncio.create_task(_stop_when_empty(settings, session, workers, stop)))
        try:
            await _run(workers, stop, settings.drain_deadline)
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
        for worker in workers:
            tally = worker.tally
            log.info(
                "ended",
                subscription=worker.subscription.name,
                processed=tally.processed,
                duplicates=tally.duplicates,
                retried=tally.retried,
                dead_lettered=tally.dead_lettered,
            )
    tell(assignment.status, ENDED)


async def _run(workers: Sequence[AnyWorker], stop: asyncio.Event, drain_deadline: float) -> None:
    running = [asyncio.create_task(worker.run(), name=f"worker {worker.subscription.name}") for worker in workers]
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            log.info("draining", deadline=drain_deadline)
        await asyncio.gather(*(worker.stop() for worker in workers))
        _, late = await asyncio.wait(running, timeout=drain_deadline)
        if late:
            log.warning("not everything was finished in time; it goes back to its queue", deadline=drain_deadline)
    finally:
        stopping.cancel()
        for task in running:
            task.cancel()
        results = await asyncio.gather(*running, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _watch_parent(parent: int, stop: asyncio.Event) -> None:
    while parent:
        await asyncio.sleep(PARENT_CHECK)
        if os.getppid() != parent:
            log.warning("the supervisor is gone")
            stop.set()
            return


async def _stop_when_empty(
    settings: Settings, session: Session, workers: Sequence[AnyWorker], stop: asyncio.Event
) -> None:
    await until_empty(settings, session, workers)
    log.info("queues are empty")
    stop.set()
