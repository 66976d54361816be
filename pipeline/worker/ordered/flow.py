"""What happens to each event of an ordered subscription, and when. In: arrivals, ends, commits. Out: works and `Step`s.

    line ─► handler ─► step ─► commit ─► ack, next              a failed one keeps its turn:
                                  ├────► wait here, again       its attempts are committed, too
                                  └────► dead-letter copy ─► ack, next

Nothing here waits but for the database's word on a parked key. Commits and copies are made by others, who report.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from pipeline.errors import RowRejected
from pipeline.event import utc_now
from pipeline.log import get_logger
from pipeline.message import Delivery
from pipeline.retry import GiveUp, RetryLater, decide, failure_of
from pipeline.store.ordered.lines import MARKER_TYPE, Entry, LineRow
from pipeline.store.writes import Effects
from pipeline.topology.model import Subscription
from pipeline.worker.ordered.life import Life
from pipeline.worker.ordered.line import Item, Line
from pipeline.worker.ordered.step import Step, died_before, line_of, parked, remember, row_of, type_of
from pipeline.worker.ordered.suspects import GROUP, is_suspect
from pipeline.worker.work import Failed, Handled, Work

log = get_logger("ordered")


class Flow:
    """Decides. `step` takes what is to be committed, `bury` what is to become a dead letter, `handle` what may run.

    `settled` is told of each delivery that can be acked.
    """

    def __init__(
        self,
        subscription: Subscription,
        step: Callable[[Step], None],
        bury: Callable[[Step], None],
        handle: Callable[[Sequence[Work]], None],
        settled: Callable[[Life, Item], None],
        first_in_line: Callable[[str], Awaitable[str | None]],
    ) -> None:
        self._subscription = subscription
        self._step = step
        self._bury = bury
        self._handle = handle
        self._settled = settled
        self._first_in_line = first_in_line
        self._ready: list[tuple[Life, Line, Item]] = []
        self._running: dict[Delivery, tuple[Life, Line, Item, int, bool]] = {}
        self._suspects: deque[tuple[Life, Line, Item, int]] = deque()
        self._isolated = 0  # suspects under way, which have the process for themselves
        self._asking: set[asyncio.Task[None]] = set()

    # --- turns ---------------------------------------------------------------------------------------------------

    def arrived(self, life: Life, items: Sequence[Item]) -> None:
        """These came, in this order."""
        lines: dict[Line, None] = {}
        for item in items:
            line = life.line(item.key)
            line.add(item)
            lines[line] = None
        for line in lines:
            self._advance(life, line)
        self.go()

    def _advance(self, life: Life, line: Line) -> None:
        if life.ended or life.closing or (item := line.next()) is None:
            return
        while died_before(life, item):  # it came twice, and was not dead yet when it came the second time
            line.done(item)
            life.remove(item)
            self._settled(life, item)
            if (item := line.next()) is None:
                return
        if item.key is None or item.key not in life.parked:
            self._begin(life, line, item)
        elif line.ahead:
            line.put_back(item)  # what is ahead may be what the key waits for: its commit calls again
        else:
            task = asyncio.create_task(self._ask(life, line, item, item.version))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    def _begin(self, life: Life, line: Line, item: Item) -> None:
        if item.failed is not None:
            self._fail(life, line, item, item.failed)
            return
        wait = (item.next_at - utc_now()).total_seconds() if item.next_at is not None else 0.0
        if wait > 0:
            self._again(life, line, item, wait)
        elif is_suspect(life, item):
            self._suspects.append((life, line, item, item.version))
        else:
            self._ready.append((life, line, item))

    def _again(self, life: Life, line: Line, item: Item, wait: float) -> None:
        version = item.version

        def act() -> None:
            if version == item.version and line.in_turn is item:
                item.next_at = None
                line.put_back(item)
                self._advance(life, line)
                self.go()

        life.after(wait, act)

    def go(self) -> None:
        """Start what may run."""
        while self._suspects and not self._isolated and not self._running:
            known = self._suspects[0][2].row is not None  # of a group that did not survive, or it failed before
            while self._suspects and self._isolated < (1 if known else GROUP):
                life, line, item, version = self._suspects[0]
                if self._isolated and item.row is not None:
                    break
                self._suspects.popleft()
                if not life.ended and version == item.version:
                    self._isolated += 1
                    row = row_of(item, "retrying", item.attempt)
                    self._take_step(life, line, item, row=row, then="run")
        if self._isolated or self._suspects or not self._ready:
            return
        ready, self._ready = self._ready, []
        wanted = [(life, line, item) for life, line, item in ready if not life.ended and not life.closing]
        self._start([(life, line, item) for life, line, item in wanted if line.in_turn is item], alone=False)

    def _start(self, ready: Sequence[tuple[Life, Line, Item]], alone: bool) -> None:
        works = []
        for life, line, item in ready:
            assert item.work is not None
            item.running = True
            item.work.attempt = item.attempt
            self._running[item.delivery] = (life, line, item, item.version, alone)
            works.append(item.work)
        if works:
            self._handle(works)

    def ended(self, done: Handled | Failed) -> None:
        """A handler has returned, or failed."""
        delivery = done.work.delivery if isinstance(done, Handled) else done.delivery
        life, line, item, version, alone = self._running.pop(delivery)
        item.running = False
        if alone:
            self._isolated -= 1
        if life.ended:
            pass
        elif version != item.version:
            self._advance(life, line)
        elif isinstance(done, Handled):
            line.handled(item)
            self._take_step(life, line, item, handled=done, then="done")
            self._advance(life, line)
        else:
            self._fail(life, line, item, done)
        self.go()

    def bury_again(self, life: Life, item: Item, failed: Failed) -> None:
        """Its end was committed before; whether its copy was made is not known."""
        entry = Entry(life.partition, item.key, item.event_id)
        life.under_way += 1
        self._bury(Step(life, line_of(item), item, item.version, entry, "bury", failed))

    def pass_marker(self, life: Life, item: Item) -> None:
        """All before it is settled: that becomes known with the commit."""
        item.running = True
        entry = Entry(life.partition, None, item.event_id, Effects(item.event_id, MARKER_TYPE))
        life.under_way += 1
        self._step(Step(life, line_of(item), item, item.version, entry, "done"))

    # --- failures ------------------------------------------------------------------------------------------------

    def _fail(self, life: Life, line: Line, item: Item, failed: Failed) -> None:
        decision = decide(self._subscription.retry, failed.attempt, failed.failure)
        match decision:
            case RetryLater(_, wait):
                remember(item, failed)
                row = row_of(item, "retrying", failed.attempt, wait)
                self._take_step(life, line, item, row=row, then="retry", failed=failed, wait=wait)
            case GiveUp():
                self._take_step(life, line, item, row=row_of(item, "dead", failed.attempt), then="bury", failed=failed)

    def _take_step(
        self,
        life: Life,
        line: Line,
        item: Item,
        then: Literal["done", "retry", "bury", "run"],
        row: LineRow | None = None,
        failed: Failed | None = None,
        handled: Handled | None = None,
        wait: float = 0.0,
    ) -> None:
        holds = then == "bury" and self._subscription.on_dead == "park" and item.key is not None
        effects = handled.effects if handled is not None else None
        entry = Entry(life.partition, item.key, item.event_id, effects, row, item.row is not None, holds)
        step = Step(life, line, item, item.version, entry, then, failed, handled, wait)
        life.under_way += 1
        if row is not None and not item.event_id:  # nothing to remember it by
            self.committed(step)
        else:
            self._step(step)

    async def _ask(self, life: Life, line: Line, item: Item, version: int) -> None:
        """The turn of an event of a parked key: it runs if the key waits for it, else it waits behind the others."""
        assert item.key is not None
        first = await self._first_in_line(item.key)
        if life.ended or version != item.version or line.in_turn is not item:
            return
        if life.closing:
            line.put_back(item)
        elif first is None:
            life.parked.discard(item.key)
            self._begin(life, line, item)
        elif first == item.event_id:
            self._begin(life, line, item)
        else:
            ids = [each.event_id for each in line.items]
            for each in line.hold(ids.index(first) if first in ids else len(ids)):
                failed = Failed(each.delivery, parked(item.key, first), each.attempt, each.event_id, type_of(each))
                self._take_step(life, line, each, row=row_of(each, "parked", 0), then="bury", failed=failed)
        self.go()

    # --- what came of steps --------------------------------------------------------------------------------------

    def committed(self, step: Step) -> None:
        """The step is in the database."""
        life, line, item, row = step.life, step.line, step.item, step.entry.line
        life.under_way -= 1
        if row is not None:
            item.row = life.rows[item.event_id] = row
        match step.then:
            case "done":
                life.rows.pop(item.event_id, None)
                self._leave(life, line, item)
            case "retry":
                item.attempt = row.attempt + 1 if row is not None else item.attempt
                self._again(life, line, item, step.wait)
            case "bury":
                if step.entry.holds:
                    life.parked.add(item.key or "")
                life.under_way += 1
                self._bury(step)
            case "run":
                self._start([(life, line, item)], alone=True)

    def refused(self, step: Step, error: RowRejected) -> None:
        """The database refused it: what was handled behind it is void, and it has failed."""
        life, line, item = step.life, step.line, step.item
        if step.entry.effects is None:  # not the event's rows but ours: go on without them
            log.error("a failure can't be remembered", event_id=item.event_id, error=str(error))
            self.committed(step)
            return
        life.under_way -= 1
        line.reset()
        line.in_turn = item
        self._fail(
            life, line, item, Failed(item.delivery, failure_of(error), item.attempt, item.event_id, type_of(item))
        )

    def skipped(self, step: Step) -> None:
        """It was left out, because of an event before it."""
        step.life.under_way -= 1
        if step.then == "run":
            self._isolated -= 1
        if step.valid:
            step.line.reset()
            self._advance(step.life, step.line)

    def dropped(self, step: Step) -> None:
        """It does not count any more."""
        step.life.under_way -= 1
        if step.then == "run":
            self._isolated -= 1

    def buried(self, step: Step) -> None:
        """Its copy is in the dead-letter queue."""
        step.life.under_way -= 1
        if not step.life.ended:
            self._leave(step.life, step.line, step.item)

    def _leave(self, life: Life, line: Line, item: Item) -> None:
        line.done(item)
        life.remove(item)
        self._settled(life, item)
        self._advance(life, line)
