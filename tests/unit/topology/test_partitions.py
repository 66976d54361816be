"""Ordered subscriptions as broker objects, and how a plan goes from one number of partitions to another."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from pipeline.topology.expand import expand
from pipeline.topology.load import load_text
from pipeline.topology.model import BrokerObjects
from pipeline.topology.partitions import is_past, owner_of, takers
from pipeline.topology.plan import Plan, plan

STOCK = """
version: 1
exchanges: {{events: {{}}}}
events: {{stock.in: {{}}, stock.out: {{}}, other: {{}}}}
subscriptions:
  stock: {{events: [stock.*], {order}}}
"""


def objects(order: str) -> BrokerObjects:
    """What the broker must have."""
    return expand(load_text(STOCK.format(order=order)).topology)


def short(found: Plan) -> list[tuple[str, str]]:
    """(kind, name) of each step."""
    return [(step.kind, step.name) for step in found.steps]


def test_an_ordered_subscription_is_partitions_behind_one_switch() -> None:
    made = objects("order_by: data.sku, partitions: 2")

    assert made.exchanges["stock.p2"].arguments == {
        "alternate-exchange": "stock.p2.keyless",
        "pipeline-order-by": "data.sku",
    }
    assert list(made.queues) == ["stock.p2.0", "stock.p2.1", "stock.dlq"]
    assert made.queues["stock.p2.0"].arguments["x-single-active-consumer"] is True
    bindings = [(each.source, each.destination, each.routing_key) for each in made.bindings]
    assert bindings[0] == ("stock.p2.keyless", "stock.p2.0", "")
    assert bindings[1:65] == [("stock.p2", f"stock.p2.{slot % 2}", f"~.~.~.data.sku:{slot}") for slot in range(64)]
    assert bindings[65:] == [
        ("stock.partitions", "stock.p2", ""),
        ("events", "stock.partitions", "stock.in"),
        ("events", "stock.partitions", "stock.out"),
    ]


def test_every_partition_has_its_share_of_the_slots() -> None:
    for partitions in (1, 3, 4, 63, 64):
        made = objects(f"order_by: type, partitions: {partitions}")
        shares = Counter(each.destination for each in made.bindings if each.source == f"stock.p{partitions}")

        assert len(shares) == partitions
        assert sum(shares.values()) == 64
        assert max(shares.values()) - min(shares.values()) <= 1


def test_another_key_over_as_many_partitions_is_refused() -> None:
    found = plan(objects("order_by: data.shop, partitions: 2"), objects("order_by: data.sku, partitions: 2"))

    assert ("immutable", "stock.p2") in short(found)


def test_a_new_generation_is_bound_before_the_old_one_is_taken_off() -> None:
    found = plan(objects("order_by: data.sku, partitions: 3"), objects("order_by: data.sku, partitions: 2"))

    steps = short(found)
    on = steps.index(("create", "stock.partitions → stock.p3"))
    assert steps.index(("create", "stock.p3 → stock.p3.0 (~.~.~.data.sku:63)")) < on
    assert on < steps.index(("change", "stock.partitions → stock.p2"))
    assert not found.of("drift", "immutable")


def test_what_is_left_of_a_generation_can_be_pruned() -> None:
    # Given a broker on which the switch is done
    desired = objects("order_by: data.sku, partitions: 3")
    before = objects("order_by: data.sku, partitions: 2")
    actual = replace(
        desired,
        exchanges={**before.exchanges, **desired.exchanges},
        queues={**before.queues, **desired.queues},
    )

    found = plan(desired, actual)

    assert {(step.name, step.prunable) for step in found.steps} == {
        ("stock.p2", True),
        ("stock.p2.keyless", True),
        ("stock.p2.0", True),
        ("stock.p2.1", True),
    }


def test_nothing_becomes_ordered_or_ceases_to_be_in_place() -> None:
    plain, ordered = objects("prefetch: 5"), objects("order_by: data.sku")

    assert ("immutable", "stock") in short(plan(ordered, plain))
    assert ("immutable", "stock.partitions") in short(plan(plain, ordered))


def test_whose_a_name_is() -> None:
    assert owner_of("a.b.p8.7", {"a.b"}) == "a.b"
    assert owner_of("a.b.p8", {"a.b"}) == "a.b"
    assert owner_of("a.b.p8.7", {"a"}) == ""
    assert owner_of("a.b.dlq", {"a.b"}) == ""
    assert owner_of("a.b.p08.7", {"a.b"}) == "a.b"


def test_which_partitions_hold_the_past() -> None:
    assert is_past("a.b.p08.7")
    assert not is_past("a.b.p8.7")
    assert not is_past("a.p08.p8.7")
    assert not is_past("a.b.p08")


def test_takers_are_found_through_names_and_routing_keys() -> None:
    topology = load_text(
        STOCK.format(order="order_by: type") + "  keys: {routing_keys: ['stock.#'], order_by: data.sku}\n"
    ).topology

    assert {name: [each.name for each in found] for name, found in takers(topology).items()} == {
        "stock.in": ["stock", "keys"],
        "stock.out": ["stock", "keys"],
    }
