"""Routing as RabbitMQ does it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.topology.model import Binding, EventType, Exchange
from pipeline.topology.routing import queues_reached, topic_matches

words = st.sampled_from(["a", "b", "order", ""])
patterns = st.lists(st.one_of(words, st.just("*"), st.just("#")), min_size=1, max_size=6).map(".".join)
keys = st.lists(words, min_size=1, max_size=6).map(".".join)


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("order.created", "order.created", True),
        ("order.*", "order.created", True),
        ("order.*", "order", False),
        ("order.*", "order.created.twice", False),
        ("order.#", "order", True),
        ("order.#", "order.created.twice", True),
        ("#", "", True),
        ("#", "a.b.c", True),
        ("*", "", False),
        ("", "", True),
        ("#.created", "created", True),
        ("a.#.z", "a.b.c.z", True),
        ("a.#.z", "a.b.c", False),
        ("*.#.*", "a", False),
        ("ord*", "order", False),
    ],
)
def test_topic_patterns(pattern: str, key: str, matches: bool) -> None:
    assert topic_matches(pattern, key) is matches


@given(patterns, keys)
def test_topic_patterns_agree_with_a_regular_expression(pattern: str, key: str) -> None:
    # given the same pattern written over words that each end in a dot
    parts = {"*": r"[^.]*\.", "#": r"(?:[^.]*\.)*"}
    expression = "".join(parts.get(part, re.escape(part) + r"\.") for part in pattern.split(".")) if pattern else ""
    written = "".join(f"{word}." for word in key.split(".")) if key else ""

    assert topic_matches(pattern, key) is bool(re.fullmatch(expression, written))


def test_exchanges_bound_in_a_ring_end() -> None:
    # given an exchange bound to two that are bound to each other
    exchanges = {name: Exchange(name, "fanout") for name in "xyz"}
    ring = [Binding(source, end, destination_type="exchange") for source, end in ("xy", "yz", "zy", "zx")]

    assert queues_reached(EventType("e", "x", "e"), exchanges, [*ring, Binding("z", "q")]) == {"q"}


@pytest.mark.parametrize(
    ("kind", "reached"), [("direct", {"same"}), ("fanout", {"same", "other"}), ("headers", {"same", "other"})]
)
def test_exchange_types(kind: str, reached: set[str]) -> None:
    bindings = [Binding("x", "same", "e"), Binding("x", "other", "f")]

    assert queues_reached(EventType("e", "x", "e"), {"x": Exchange("x", kind)}, bindings) == reached


def test_a_built_in_exchange_has_its_own_type() -> None:
    bindings = [Binding("amq.direct", "q", "f"), Binding("amq.topic", "p", "#")]

    assert queues_reached(EventType("e", "amq.direct", "e"), {}, bindings) == set()
    assert queues_reached(EventType("e", "amq.topic", "e"), {}, bindings) == {"p"}
