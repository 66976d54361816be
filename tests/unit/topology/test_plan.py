"""Files against broker, as pure values."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.topology.expand import expand
from pipeline.topology.load import load_text
from pipeline.topology.model import Binding, BrokerObjects, Exchange, Policy, Queue
from pipeline.topology.plan import Plan, plan

NOTHING = BrokerObjects({}, {}, (), {})
SHOP = expand(
    load_text(
        "version: 1\nexchanges: {events: {}, audit: {type: fanout}}\nevents: {e: {exchange: events}}\n"
        "subscriptions: {s: {events: [e], retry: {delays: [1s]}}, t: {events: [e]}}\n"
        "queues: {log: {type: stream}}\n"
        "bindings: [{exchange: events, to_exchange: audit}, {exchange: audit, queue: log}]\n"
    ).topology
)

names = st.sampled_from(["a", "b", "s", "s.dlq", "s.retry.1s", "pipeline.s"])
arguments = st.dictionaries(st.sampled_from(["x-max-length", "x-message-ttl"]), st.integers(0, 2), max_size=2)


@st.composite
def broker_objects(draw: st.DrawFn) -> BrokerObjects:
    """Any set of objects, few enough names for two draws to overlap."""
    exchanges = draw(st.dictionaries(names, st.sampled_from(["topic", "direct"]), max_size=3))
    queues = draw(st.dictionaries(names, arguments, max_size=3))
    bindings = draw(st.lists(st.tuples(names, names, names), max_size=4, unique=True))
    policies = draw(st.dictionaries(names, st.tuples(names, arguments), max_size=3))
    return BrokerObjects(
        {name: Exchange(name, kind) for name, kind in exchanges.items()},
        {name: Queue(name, arguments=table) for name, table in queues.items()},
        tuple(Binding(*parts) for parts in bindings),
        {name: Policy(name, pattern, table, priority=10) for name, (pattern, table) in policies.items()},
    )


def applied(changes: Plan, actual: BrokerObjects) -> BrokerObjects:
    """`actual` after every step that apply would make."""
    exchanges, queues = dict(actual.exchanges), dict(actual.queues)
    bindings, policies = list(actual.bindings), dict(actual.policies)
    for step in changes.of("create", "change"):
        match step.target:
            case Exchange() as exchange:
                exchanges[exchange.name] = exchange
            case Queue() as queue:
                queues[queue.name] = queue
            case Binding() as binding:
                bindings.append(binding)
            case Policy() as policy:
                policies[policy.name] = policy
    return BrokerObjects(exchanges, queues, tuple(bindings), policies)


@given(broker_objects())
def test_what_is_as_desired_needs_nothing(objects: BrokerObjects) -> None:
    assert plan(objects, objects) == Plan(())


@given(broker_objects())
def test_creating_all_of_it_reaches_what_is_desired(desired: BrokerObjects) -> None:
    result = plan(desired, NOTHING)

    assert {step.kind for step in result.steps} <= {"create"}
    assert applied(result, NOTHING) == replace(desired, bindings=applied(result, NOTHING).bindings)
    assert plan(desired, applied(result, NOTHING)) == Plan(())


@given(broker_objects(), broker_objects())
def test_applying_leaves_only_what_apply_never_does(desired: BrokerObjects, actual: BrokerObjects) -> None:
    first = plan(desired, actual)

    second = plan(desired, applied(first, actual))

    assert second.of("create", "change") == ()
    assert set(map(repr, second.steps)) == set(map(repr, first.of("drift", "immutable", "unmanaged")))


@given(broker_objects(), broker_objects())
def test_a_plan_is_json(desired: BrokerObjects, actual: BrokerObjects) -> None:
    result = plan(desired, actual)

    data = json.loads(json.dumps(result.to_json()))

    assert len(data["steps"]) == sum(data["summary"].values()) == len(result.steps)
    assert data["exit_code"] == result.exit_code


def kinds(result: Plan) -> list[tuple[str, str, str]]:
    """What the plan says, short."""
    return [(step.kind, step.object, step.name) for step in result.steps]


def test_nothing_arrives_before_its_way_out_is_there() -> None:
    # when everything has to be created
    order = [(step.object, step.name) for step in plan(SHOP, NOTHING).steps]

    # then exchanges and policies come first, a queue after those it dead-letters to, bindings last
    assert [kind for kind, _ in order] == sorted(
        [kind for kind, _ in order], key=["exchange", "policy", "queue", "binding"].index
    )
    assert order.index(("queue", "s.dlq")) < order.index(("queue", "s.retry.1s")) < order.index(("queue", "s"))


def test_a_deleted_binding_is_created_again() -> None:
    actual = replace(SHOP, bindings=tuple(binding for binding in SHOP.bindings if binding.destination != "s"))

    result = plan(SHOP, actual)

    assert kinds(result) == [("create", "binding", "events → s (e)")]
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"definition": {"delivery-limit": 5}}, "delivery-limit 5 → 20"),
        ({"definition": {"delivery-limit": 20, "max-length": 1}}, "max-length 1 → none"),
        ({"priority": 0, "pattern": "s"}, "pattern s → ^s$; priority 0 → 10"),
    ],
)
def test_a_different_policy_is_changed(change: dict[str, Any], detail: str) -> None:
    different = replace(SHOP.policies["pipeline.s"], **change)

    result = plan(SHOP, replace(SHOP, policies={**SHOP.policies, "pipeline.s": different}))

    assert kinds(result) == [("change", "policy", "pipeline.s")]
    assert result.steps[0].detail == detail
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("queue", "detail"),
    [
        (Queue("s.dlq", arguments={"x-queue-type": "classic"}), "x-queue-type classic → quorum"),
        (Queue("s.dlq"), "x-queue-type classic → quorum"),
        (Queue("s.dlq", durable=False, arguments={"x-queue-type": "quorum"}), "durable false → true"),
        (
            Queue("s.dlq", arguments={"x-queue-type": "quorum", "x-max-length": 5}),
            "x-max-length 5 → none",
        ),
    ],
)
def test_a_queue_of_other_arguments_needs_destruction(queue: Queue, detail: str) -> None:
    result = plan(SHOP, replace(SHOP, queues={**SHOP.queues, "s.dlq": queue}))

    assert kinds(result) == [("immutable", "queue", "s.dlq")]
    assert result.steps[0].detail == detail
    assert result.exit_code == 3


def test_an_exchange_of_another_type_needs_destruction() -> None:
    result = plan(SHOP, replace(SHOP, exchanges={**SHOP.exchanges, "events": Exchange("events", "direct")}))

    assert kinds(result) == [("immutable", "exchange", "events")]
    assert result.steps[0].detail == "type direct → topic"


def test_a_binding_too_many_on_our_queue_or_exchange_is_drift() -> None:
    extra = (Binding("events", "s", "other"), Binding("amq.topic", "audit", "#", "exchange"))

    result = plan(SHOP, replace(SHOP, bindings=(*SHOP.bindings, *extra)))

    assert kinds(result) == [
        ("drift", "binding", "events → s (other)"),
        ("drift", "binding", "amq.topic → audit (#)"),
    ]
    assert all(step.prunable for step in result.steps)
    assert result.exit_code == 2


def test_what_others_bind_to_our_exchange_is_theirs() -> None:
    theirs = replace(
        SHOP,
        queues={**SHOP.queues, "theirs": Queue("theirs")},
        bindings=(*SHOP.bindings, Binding("events", "theirs", "#")),
    )

    result = plan(SHOP, theirs)

    assert kinds(result) == [("unmanaged", "queue", "theirs")]
    assert result.exit_code == 0


def test_only_a_left_over_queue_of_our_own_subscription_may_be_pruned() -> None:
    left = ["s.retry.9s", "s.retry.soon", "other.retry.9s", "log.dlq", "s.dlq2"]
    queues = {name: Queue(name) for name in left}

    result = plan(SHOP, replace(SHOP, queues={**SHOP.queues, **queues}))

    assert {step.name: step.prunable for step in result.steps} == {
        "s.retry.9s": True,
        "s.retry.soon": False,
        "other.retry.9s": False,
        "log.dlq": False,
        "s.dlq2": False,
    }


@pytest.mark.parametrize(
    ("priority", "apply_to", "kind"),
    [(10, "all", "immutable"), (50, "queues", "immutable"), (9, "all", "unmanaged"), (50, "exchanges", "unmanaged")],
)
def test_a_foreign_policy_that_takes_a_queue_away_is_named(priority: int, apply_to: str, kind: str) -> None:
    # given somebody's policy over the whole virtual host
    theirs = Policy("ha", "^t$", {"max-length": 1}, apply_to, priority)

    result = plan(SHOP, replace(SHOP, policies={**SHOP.policies, "ha": theirs}))

    assert kinds(result) == [(kind, "policy", "ha")]


def test_a_foreign_policy_over_many_queues_is_named_once() -> None:
    theirs = Policy("all", ".*", {"expires": 1}, "queues", 10)

    result = plan(SHOP, replace(SHOP, policies={**SHOP.policies, "all": theirs}))

    assert kinds(result) == [("immutable", "policy", "all")]
    assert result.steps[0].detail.startswith("priority 10 takes queue s and 8 more away from ours")


def test_only_a_left_over_policy_of_our_own_subscription_may_be_pruned() -> None:
    left = ["pipeline.s.dlq2", "pipeline.other.dlq", "pipeline.gone", "theirs"]
    without = replace(
        SHOP,
        queues={name: queue for name, queue in SHOP.queues.items() if name != "s.dlq"},
        policies={name: policy for name, policy in SHOP.policies.items() if name != "pipeline.s.dlq"},
    )
    actual = replace(SHOP, policies={**SHOP.policies, **{name: Policy(name, "^x$", {}) for name in left}})

    result = plan(without, actual)

    assert {step.name: step.prunable for step in result.steps} == {
        **dict.fromkeys(left, False),
        "s.dlq": True,
        "pipeline.s.dlq": True,
    }
