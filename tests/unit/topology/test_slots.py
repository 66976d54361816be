"""Slots: where a key's events go, whatever machine, version or restart works it out."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.topology.routing import topic_matches
from pipeline.topology.slots import SLOTS, route_of, slot_key, slot_keys, slot_of


def test_slots_are_what_they_were() -> None:
    # (Other numbers would send the events of a key to another partition than those that wait.)
    assert [slot_of(key) for key in ("", "a", "order.created", "sku-4711", "ключ")] == [0, 3, 61, 41, 26]
    assert route_of("data.sku", "a") == "~.~.~.data.sku:3"


@given(st.text())
def test_every_key_has_a_slot(key: str) -> None:
    assert 0 <= slot_of(key) < SLOTS
    assert route_of("subject", key) in set(slot_keys("subject"))


def test_keys_that_count_up_are_spread_evenly() -> None:
    for form in ("{}", "order-{}", "{:08d}", "user-{}@example.org"):
        shares = Counter(slot_of(form.format(number)) for number in range(64_000))

        assert len(shares) == SLOTS
        assert max(shares.values()) < 1.3 * 1000, form


def test_no_ordinary_pattern_matches_a_slot() -> None:
    for pattern in ("*", "*.*", "order.*", "order.#", "*.created", "#.created", "*.*.*"):
        assert not topic_matches(pattern, slot_key("type", 1)), pattern
