"""Dead events of an ordered subscription → its dead-letter queue. In: `Step`s whose end is committed. Out: copies.

That an event is dead is in the database before its copy is made. If the worker dies in between, the next owner of the
partition makes the copy; the event is never processed after all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.amqp.publisher import Publisher
from pipeline.log import get_logger
from pipeline.topology.model import Subscription
from pipeline.worker.ordered.flow import Flow
from pipeline.worker.ordered.step import Step
from pipeline.worker.settle import Settlement, publish_copies, settle_failure

log = get_logger("ordered")

BATCH = 500  # copies at once
COPY_RETRY = 1.0  # seconds before a copy that was not confirmed is tried again


class Burials:
    """Makes dead letters. `report` is told of each."""

    def __init__(self, subscription: Subscription, publisher: Publisher, report: Callable[[Settlement], None]) -> None:
        self._subscription = subscription
        self._publisher = publisher
        self._report = report
        self._steps: list[Step] = []
        self._wake = asyncio.Event()
        self._busy = False

    @property
    def idle(self) -> bool:
        """Nothing waits for its copy."""
        return not self._steps and not self._busy

    def add(self, step: Step) -> None:
        """Make this a dead letter."""
        self._steps.append(step)
        self._wake.set()

    async def run(self, flow: Flow) -> None:
        """Bury for ever."""
        while True:
            await self._wake.wait()
            batch, self._steps = self._steps[:BATCH], self._steps[BATCH:]
            if not self._steps:
                self._wake.clear()
            if not batch:
                continue
            self._busy = True
            left = await self._bury(flow, batch)
            self._steps = left + self._steps
            self._busy = False
            flow.go()
            if left:
                log.warning(
                    "dead letters not confirmed, trying again", subscription=self._subscription.name, n=len(left)
                )
                await asyncio.sleep(COPY_RETRY)
                self._wake.set()

    async def _bury(self, flow: Flow, steps: list[Step]) -> list[Step]:
        """The steps whose copies are not confirmed."""
        valid = []
        for step in steps:
            if step.life.ended:
                flow.dropped(step)
            else:
                valid.append(step)
        limit = self._publisher.properties_limit
        settlements = [settle_failure(self._subscription, step.failed, limit) for step in valid if step.failed]
        copies = [(at, each.copy) for at, each in enumerate(settlements) if each.copy is not None]
        confirmed = await publish_copies(self._publisher, [copy for _, copy in copies])
        unconfirmed = {at for index, (at, _) in enumerate(copies) if index not in confirmed}
        for at, step in enumerate(valid):
            if at not in unconfirmed:
                self._report(settlements[at])
                flow.buried(step)
        return [step for at, step in enumerate(valid) if at in unconfirmed]
