"""Steps → one transaction a batch, in order. In: `Step`s. Out: the flow is told what came of each.

A handler may ask the database what the events before it have written: `flushed` waits until all of that is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from pipeline.errors import StoreUnavailable
from pipeline.store.ordered.lines import OrderedReport
from pipeline.store.ordered.store import OrderedStore
from pipeline.store.patience import patiently
from pipeline.worker.ordered.flow import Flow
from pipeline.worker.ordered.life import Life
from pipeline.worker.ordered.step import Step

BATCH = 1000  # steps a transaction, at most
BUSY = 4  # steps in the last batch from which on a short wait fills the next; see subscription.py
FULL = 500
TURNS = 0.001  # seconds


class Commits:
    """The commit stage of an ordered subscription. `lost` is told of lives whose partition somebody else has taken."""

    def __init__(
        self,
        subscription: str,
        store: OrderedStore,
        done: Callable[[Step, bool], None],
        lost: Callable[[Life], None],
    ) -> None:
        self._subscription = subscription
        self._store = store
        self._done = done  # (step, whether its effects are new)
        self._lost = lost
        self._steps: list[Step] = []
        self._wake = asyncio.Event()
        self._added = self._ended = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def idle(self) -> bool:
        """Nothing waits for its commit."""
        return self._added == self._ended

    def add(self, step: Step) -> None:
        """Commit this, after what was added before."""
        self._steps.append(step)
        self._added += 1
        self._wake.set()

    async def flushed(self) -> None:
        """Everything added until now is committed. Raises: StoreUnavailable while the database is away."""
        if self.idle:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._added, future))
        await future

    async def run(self, flow: Flow) -> None:
        """Commit for ever."""
        last = 0
        while True:
            await self._wake.wait()
            if last >= BUSY and len(self._steps) < FULL and not self._waiting:
                await asyncio.sleep(TURNS)
            batch, self._steps = self._steps[:BATCH], self._steps[BATCH:]
            if not self._steps:
                self._wake.clear()
            last = len(batch)
            valid = [step for step in batch if step.valid]
            for step in batch:
                if not step.valid:
                    flow.dropped(step)
            if valid:
                report = await patiently(self._subscription, lambda steps=valid: self._commit(steps))  # type: ignore[misc]
                self._tell(flow, valid, report)
            self._ended += len(batch)
            self._wake_waiting(None)
            flow.go()

    async def _commit(self, steps: Sequence[Step]) -> OrderedReport:
        try:
            epochs = {step.life.partition: step.life.token for step in steps}
            return await self._store.commit([step.entry for step in steps], epochs)
        except StoreUnavailable as error:
            self._wake_waiting(error)
            raise

    def _tell(self, flow: Flow, steps: Sequence[Step], report: OrderedReport) -> None:
        for index, step in enumerate(steps):
            if step.entry.partition in report.stale:
                flow.dropped(step)
                if not step.life.ended:
                    self._lost(step.life)
            elif not step.valid:
                flow.dropped(step)  # lost, or void since the commit began; what is committed comes back as a duplicate
            elif (error := report.rejected.get(index)) is not None:
                flow.refused(step, error)
            elif index in report.skipped:
                flow.skipped(step)
            else:
                self._done(step, index not in report.duplicates)
                flow.committed(step)

    def _wake_waiting(self, error: StoreUnavailable | None) -> None:
        left = []
        for mark, future in self._waiting:
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            elif mark <= self._ended:
                future.set_result(None)
            else:
                left.append((mark, future))
        self._waiting = left
