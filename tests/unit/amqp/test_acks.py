"""The ack ledger against a naive broker: each tag is acked once, and no ack ever names a tag the broker forgot."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.amqp.acks import AckLedger


class NaiveBroker:
    """One channel as RabbitMQ keeps it: a set of tags handed out; an ack for any other tag closes the channel."""

    def __init__(self) -> None:
        self.last = 0
        self.outstanding: set[int] = set()

    def deliver(self, count: int) -> int:
        self.outstanding |= set(range(self.last + 1, self.last + count + 1))
        self.last += count
        return self.last

    def ack(self, tag: int, multiple: bool = False) -> set[int]:
        """The tags that are settled by it."""
        assert tag in self.outstanding, f"406 PRECONDITION_FAILED - unknown delivery tag {tag}"
        settled = {each for each in self.outstanding if each <= tag} if multiple else {tag}
        self.outstanding -= settled
        return settled


def send(broker: NaiveBroker, acks: tuple[int, list[int]]) -> list[int]:
    """Give the broker what the ledger says, in the order of `ConsumeChannel.send_acks`. Returns the tags settled."""
    upto, singles = acks
    settled = [tag for single in singles for tag in broker.ack(single)]
    return settled + sorted(broker.ack(upto, multiple=True) if upto else ())


class Life(RuleBasedStateMachine):
    """Deliveries come, are settled in any order, some twice, some go back to the queue."""

    @initialize()
    def begin(self) -> None:
        self.ledger, self.broker = AckLedger(), NaiveBroker()
        self.unsettled: set[int] = set()  # in the worker's hands
        self.unsent: set[int] = set()  # settled, and the broker does not know yet
        self.gone: set[int] = set()

    @rule(count=st.integers(1, 12))
    def deliver(self, count: int) -> None:
        before = self.broker.last
        self.ledger.took(self.broker.deliver(count))
        self.unsettled |= set(range(before + 1, self.broker.last + 1))

    def settle_these(self, tags: list[int]) -> None:
        fresh = set(tags) & self.unsettled
        self.ledger.settle(tags)
        self.unsettled -= fresh
        self.unsent |= fresh
        self.gone |= fresh
        assert self.ledger.unsent == len(self.unsent)

    @rule()
    def send_what_was_settled(self) -> None:
        assert sorted(send(self.broker, self.ledger.take())) == sorted(self.unsent)
        self.unsent = set()

    @precondition(lambda self: self.unsettled)
    @rule(data=st.data())
    def settle_some_in_any_order(self, data: st.DataObject) -> None:
        tags = data.draw(st.lists(st.sampled_from(sorted(self.unsettled)), min_size=1))
        self.settle_these(tags)

    @precondition(lambda self: self.unsettled)
    @rule(data=st.data())
    def settle_the_oldest(self, data: st.DataObject) -> None:
        self.settle_these(sorted(self.unsettled)[: data.draw(st.integers(1, len(self.unsettled)))])

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def settle_what_is_settled(self, data: st.DataObject) -> None:
        both = sorted(self.gone | self.unsettled)
        self.settle_these(data.draw(st.lists(st.sampled_from(both), min_size=1)))

    @precondition(lambda self: self.unsettled)
    @rule(data=st.data())
    def give_some_back(self, data: st.DataObject) -> None:
        tags = data.draw(st.lists(st.sampled_from(sorted(self.unsettled)), min_size=1, unique=True))
        self.ledger.forget(tags)
        self.broker.outstanding -= set(tags)
        self.unsettled -= set(tags)
        self.gone |= set(tags)

    @invariant()
    def both_count_the_same(self) -> None:
        assert self.broker.outstanding == self.unsettled | self.unsent
        assert self.ledger.open == len(self.unsettled)

    def teardown(self) -> None:
        self.settle_these(sorted(self.unsettled))
        self.send_what_was_settled()
        assert not self.broker.outstanding
        assert self.ledger.open == 0


TestAnyLife = Life.TestCase


@given(st.integers(1, 60).flatmap(lambda count: st.permutations(range(1, count + 1))))
def test_settled_one_by_one_in_any_order_every_tag_is_acked_once(order: list[int]) -> None:
    ledger, broker = AckLedger(), NaiveBroker()
    ledger.took(broker.deliver(len(order)))

    acked = []
    for each in order:
        ledger.settle([each])
        acked += send(broker, ledger.take())

    assert sorted(acked) == sorted(order)
    assert ledger.open == 0


def acks_sent(batches: Iterable[list[int]]) -> int:
    ledger = AckLedger()
    ledger.took(1000)
    sent = 0
    for batch in batches:
        ledger.settle(batch)
        upto, singles = ledger.take()
        sent += len(singles) + bool(upto)
    return sent


def test_a_settled_prefix_is_one_ack() -> None:
    assert acks_sent([list(range(1, 1001))]) == 1
    assert acks_sent([list(range(1000, 0, -1))]) == 1
    assert acks_sent([list(range(1, 501)), list(range(501, 1001))]) == 2


def test_a_slow_delivery_does_not_hold_back_its_neighbours() -> None:
    ledger = AckLedger()
    ledger.took(4)

    ledger.settle([2, 3])
    assert ledger.take() == (0, [2, 3])
    ledger.settle([1])
    assert ledger.take() == (1, [])  # 3 is known to nobody any more: only 1 may be named
    ledger.settle([4])
    assert ledger.take() == (4, [])


def test_nothing_settled_is_nothing_to_say() -> None:
    ledger = AckLedger()
    ledger.took(2)

    ledger.settle([])
    assert ledger.take() == (0, [])
    ledger.settle([1])
    assert ledger.take() == (1, [])
    ledger.settle([1, 1])
    assert ledger.take() == (0, [])
    assert ledger.open == 1
