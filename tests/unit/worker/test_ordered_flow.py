"""Order by key as a property: whatever arrives, fails, is refused, taken over or comes again, effects keep their order.

The broker, the database and the handlers are models of a few lines; the flow, its lines and the commit stage are real.
Processes that were overtaken go on working, as one that has lost its connection and does not know yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec import Codec
from pipeline.errors import RowRejected
from pipeline.event import Event
from pipeline.message import Delivery
from pipeline.properties import Properties
from pipeline.retry import Reject, Retry, failure_of
from pipeline.store.ordered.lines import Entry, LineRow, OrderedReport
from pipeline.store.writes import Effects
from pipeline.topology.load import load_text
from pipeline.worker.ordered.commit import Commits
from pipeline.worker.ordered.flow import Flow
from pipeline.worker.ordered.intake import OrderedIntake, earlier_end
from pipeline.worker.ordered.life import Life
from pipeline.worker.ordered.line import Item
from pipeline.worker.ordered.step import Step
from pipeline.worker.registry import Handler
from pipeline.worker.work import Failed, Handled, Work

TOPOLOGY = """
version: 1
exchanges: {{events: {{}}}}
events: {{e: {{}}}}
subscriptions:
  s: {{events: [e], order_by: data.k, partitions: 1, on_dead: {on_dead}, retry: {{attempts: 3, delays: [1ms]}}}}
"""
HANDLER = Handler(lambda event: None, False, False, False, None, None)
KEYS = "ab"


class World:
    """The queue of one partition, the database, and the dead-letter queue."""

    def __init__(self, on_dead: str, events: Sequence[str]) -> None:
        topology = load_text(TOPOLOGY.format(on_dead=on_dead)).topology
        self.subscription = topology.subscriptions["s"]
        self.intake = OrderedIntake(self.subscription, Codec(topology, 1000), {}, {})
        self.queue = [(number, key) for number, key in enumerate(events)]  # unsettled, in order
        self.keys = dict(self.queue)
        self.epoch = 0
        self.inbox: set[str] = set()
        self.effects: list[int] = []
        self.rows: dict[str, LineRow] = {}
        self.dead: list[int] = []
        self.refuse: int | None = None  # which of the next commit's events is refused by the database

    def commit(self, entries: Sequence[Entry], epochs: Mapping[str, int]) -> OrderedReport:
        """What the store promises."""
        report = OrderedReport()
        if epochs["q"] != self.epoch:
            report.stale.add("q")
            return report
        bad: set[str | None] = set()
        written = [int(each.event_id) for each in entries if each.effects and each.event_id not in self.inbox]
        refused = written[self.refuse % len(written)] if self.refuse is not None and written else None
        for index, entry in enumerate(entries):
            number = int(entry.event_id)
            if entry.key in bad:
                report.skipped.add(index)
            elif entry.effects is None:
                assert entry.line is not None
                places = [row.place for row in self.rows.values() if row.key == entry.key]
                before = self.rows.get(entry.event_id)
                place = before.place if before and before.place else max(places, default=0) + 1 if entry.holds else 0
                row = entry.line
                self.rows[entry.event_id] = LineRow(
                    row.event_id, row.key, row.state, row.attempt, row.redrives, row.next_at, place
                )
            elif entry.event_id in self.inbox:
                report.duplicates.add(index)
            elif number == refused:
                bad.add(entry.key)
                report.rejected[index] = RowRejected("refused")
            else:
                self.inbox.add(entry.event_id)
                self.effects.append(number)
                self.rows.pop(entry.event_id, None)
        self.refuse = None
        return report


class Process:
    """One process: the real flow and commit stage on a world. It owns the partition until another one begins."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.epoch += 1
        self.life = Life("q", cast(Any, None), world.epoch, world.epoch, dict(world.rows))
        self.running: list[Work] = []
        self.dying: list[Step] = []
        self.gates: list[asyncio.Future[None]] = []
        self.commits = Commits("s", cast(Any, self), lambda step, fresh: None, lambda life: life.end())
        self.flow = Flow(
            world.subscription, self.commits.add, self.dying.append, self.running.extend, self.settled, self.first
        )
        self.task = asyncio.create_task(self.commits.run(self.flow))
        self.taken = 0  # of the queue, as it was at the beginning
        self.waiting = list(world.queue)

    async def commit(self, entries: Sequence[Entry], epochs: Mapping[str, int]) -> OrderedReport:
        """The store's: the world says when."""
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        await gate
        return self.world.commit(entries, epochs)

    async def first(self, key: str) -> str | None:
        """The store's `first_in_line`."""
        places = [(row.place, row.event_id) for row in self.world.rows.values() if row.key == key and row.place]
        return min(places)[1] if places else None

    def settled(self, life: Life, item: Item) -> None:
        """An ack: it counts only while the partition is ours."""
        if self.world.epoch == self.life.token:
            self.world.queue = [each for each in self.world.queue if str(each[0]) != item.event_id]

    def arrive(self, count: int) -> None:
        """The next deliveries come in."""
        if self.life.ended or self.world.epoch != self.life.token:
            return
        batch, self.waiting = self.waiting[:count], self.waiting[count:]
        items = []
        for number, key in batch:
            delivery = Delivery(number, 1, self.world.epoch > 1, "", "e", b"", b"")
            delivery.use(Properties(message_id=str(number), type="e"), b"{}")
            work = Work(delivery, Event("e", {}, str(number)), HANDLER, 1)
            items.append(Item(delivery, key, str(number), work, None))
        placed = self.world.intake.place(self.life, items, {each.event_id for each in items} & self.world.inbox)
        for item in placed.done:
            self.settled(self.life, item)
        for item in placed.again:
            self.flow.bury_again(self.life, item, earlier_end(item))
        self.flow.arrived(self.life, placed.lines)

    def end_handler(self, at: int, how: str) -> None:
        """A handler ends, well or not."""
        if not self.running:
            return
        work = self.running.pop(at % len(self.running))
        if how == "ok":
            self.flow.ended(Handled(work, Effects(work.event.id, "e")))
        else:
            error = Reject("no") if how == "reject" else Retry("later", 0)
            self.flow.ended(Failed(work.delivery, failure_of(error), work.attempt, work.event.id, "e"))

    def end_commit(self, refuse: int | None) -> None:
        """The commit under way ends; the rows of some event are refused, or of none."""
        if self.gates:
            self.world.refuse = refuse
            self.gates.pop(0).set_result(None)

    def bury(self) -> None:
        """The copies are confirmed."""
        steps = self.dying[:]
        self.dying.clear()
        for step in steps:
            if step.life.ended:
                self.flow.dropped(step)
                continue
            self.world.dead.append(int(step.item.event_id))
            self.flow.buried(step)
        self.flow.go()


# Often enough what makes it hard: some handled ahead of a commit that refuses the first, takeovers with much in hand.
HANDLER_ENDS = st.tuples(
    st.just("handler"), st.integers(0, 5), st.sampled_from(["ok", "ok", "ok", "ok", "retry", "reject"])
)
OPERATIONS = st.one_of(
    st.tuples(st.just("arrive"), st.integers(1, 8), st.just("")),
    HANDLER_ENDS,
    HANDLER_ENDS,
    HANDLER_ENDS,
    st.tuples(st.just("commit"), st.integers(0, 5), st.sampled_from(["", "", "refuse"])),
    st.tuples(st.just("bury"), st.integers(0, 5), st.just("")),
    st.tuples(st.just("taken over"), st.just(0), st.just("")),
)
HISTORIES = st.lists(OPERATIONS, min_size=10, max_size=80)
EVENTS = st.lists(st.sampled_from(KEYS), min_size=4, max_size=14)


async def turns() -> None:
    """Let timers of a millisecond and tasks run."""
    for _ in range(6):
        await asyncio.sleep(0)


async def played(on_dead: str, events: Sequence[str], operations: Sequence[tuple[str, int, str]]) -> World:
    """The world after the operations, and after everything has come to its end."""
    world = World(on_dead, events)
    processes = [Process(world)]
    for what, number, how in operations:
        process = processes[number % len(processes)]
        match what:
            case "arrive":
                processes[-1].arrive(number)
            case "handler":
                process.end_handler(number, how)
            case "commit":
                process.end_commit(number if how else None)
            case "bury":
                process.bury()
            case _:
                if len(processes) < 4:
                    processes.append(Process(world))
        await turns()
    for _ in range(2000):
        last = processes[-1]
        if not world.queue:
            break
        last.arrive(3)
        for process in processes:
            process.end_handler(0, "ok")
            process.end_commit(None)
            process.bury()
        await turns()
    for process in processes:
        process.life.end()
        process.task.cancel()
    await asyncio.gather(*(process.task for process in processes), return_exceptions=True)
    return world


@settings(deadline=None, max_examples=120)
@given(EVENTS, HISTORIES)
def test_effects_of_a_key_are_exact_and_gap_free(events: list[str], operations: list[tuple[str, int, str]]) -> None:
    world = asyncio.run(played("continue", events, operations))

    assert world.queue == [], "everything is settled"
    for key in KEYS:
        ours = [number for number in world.effects if world.keys[number] == key]
        assert ours == sorted(set(ours)), "no effect comes before an earlier one's, and none twice"
        dead = {number for number in world.dead if world.keys[number] == key}
        assert set(ours) | dead == {number for number, each in world.keys.items() if each == key}, "no gap"
        assert not set(ours) & dead, "nothing is both"


@settings(deadline=None, max_examples=120)
@given(EVENTS, HISTORIES)
def test_nothing_of_a_parked_key_passes_its_dead_letter(
    events: list[str], operations: list[tuple[str, int, str]]
) -> None:
    world = asyncio.run(played("park", events, operations))

    assert world.queue == [], "everything is settled"
    for key in KEYS:
        ours = [number for number in world.effects if world.keys[number] == key]
        dead = {number for number in world.dead if world.keys[number] == key}
        every = [number for number, each in world.keys.items() if each == key]
        assert ours == every[: len(ours)], "up to the dead letter, in order"
        assert dead == set(every[len(ours) :]), "and from there on all wait in the dead-letter queue"


@pytest.mark.parametrize("on_dead", ["continue", "park"])
async def test_a_second_copy_of_an_event_that_died_meanwhile_is_settled_and_not_handled(on_dead: str) -> None:
    # Given an event that was delivered twice at once, and one behind it
    world = World(on_dead, "aa")
    process = Process(world)
    process.waiting = [(0, "a"), (0, "a"), (1, "a")]
    process.arrive(3)

    # When the first copy dies
    process.end_handler(0, "reject")
    await turns()
    process.end_commit(None)
    await turns()
    process.bury()
    await turns()

    # Then the second one is not handled, and the next event has its turn, or is parked
    assert [work.event.id for work in process.running] == (["1"] if on_dead == "continue" else [])
    assert world.dead == [0]
    process.end_commit(None)
    await turns()
    process.bury()
    assert world.dead == ([0] if on_dead == "continue" else [0, 1])
    process.life.end()
    process.task.cancel()
    await asyncio.gather(process.task, return_exceptions=True)
