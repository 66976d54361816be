"""The keys of ordered subscriptions: where they come from, and what happens without."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec import Codec
from pipeline.codec.order_key import MissingKey, key_in, key_of, key_text
from pipeline.event import Event
from pipeline.message import Delivery
from pipeline.properties import decode_properties
from pipeline.topology.load import load_text
from pipeline.topology.slots import route_of

TOPOLOGY = """
version: 1
exchanges: {events: {}}
events: {stock.in: {}, stock.out: {compress_over: 10B}, other: {}}
subscriptions:
  by_sku: {events: [stock.*], order_by: data.item.sku}
  by_shop: {events: [stock.in], order_by: data.shop, on_missing_key: default}
  by_subject: {routing_keys: ["stock.out"], order_by: subject, on_missing_key: default}
  by_type: {events: [stock.*], order_by: type}
  plain: {events: [other]}
"""
CODEC = Codec(load_text(TOPOLOGY).topology, 10_000)


def headers(event: Event[Any]) -> dict[str, Any]:
    """The headers the event is published with."""
    return dict(decode_properties(CODEC.encode(event).properties).headers)


def test_each_path_has_its_header() -> None:
    found = headers(Event("stock.in", {"item": {"sku": "a"}, "shop": 7}))

    assert found["pipeline-key-data.item.sku"] == "a"
    assert found["pipeline-key-data.shop"] == "7"


def test_the_slots_of_all_keys_are_more_routes() -> None:
    found = headers(Event("stock.in", {"item": {"sku": "a"}, "shop": 7}))
    out = headers(Event("stock.out", {"item": {"sku": "a"}}, subject="s"))

    assert found["CC"] == [route_of("type", "stock.in"), route_of("data.item.sku", "a"), route_of("data.shop", "7")]
    assert out["CC"] == [route_of("type", "stock.out"), route_of("subject", "s"), route_of("data.item.sku", "a")]
    assert headers(Event("stock.out", {"item": {"sku": "a"}}))["CC"][1] == route_of("subject", "")


def test_what_is_missing_is_refused_or_the_empty_key() -> None:
    assert headers(Event("stock.in", {"item": {"sku": "a"}}))["pipeline-key-data.shop"] == ""
    with pytest.raises(MissingKey, match=r"no data.item.sku, by which subscription 'by_sku' is ordered"):
        CODEC.encode(Event("stock.in", {"item": "a", "shop": 7}))


def test_types_that_nobody_orders_have_no_header() -> None:
    found = headers(Event("other", {"item": {"sku": "a"}}))

    assert not [name for name in found if name.startswith("pipeline-") or name == "CC"]


TEXTS: list[tuple[Any, str | None]] = [
    *(("a", "a"), (1, "1"), (1.5, "1.5"), (True, "true"), (False, "false"), ("ä", "ä")),
    *((None, None), ("", None), ([], None), ({}, None), (["a"], None), ("x" * 256, None)),
]


@pytest.mark.parametrize(("value", "text"), TEXTS)
def test_keys_are_text(value: Any, text: str | None) -> None:
    assert key_text(value) == text


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60) | st.integers() | st.booleans())
def test_the_worker_finds_the_publishers_key(sku: Any) -> None:
    # Given an event of ours, its body compressed
    message = CODEC.encode(Event("stock.out", {"item": {"sku": sku}}))
    delivery = Delivery(1, 1, False, message.exchange, message.routing_key, message.properties, message.body)
    event = CODEC.decode(delivery)

    def plain(delivery: Delivery) -> Any:
        return CODEC.decode(delivery).data

    # When the worker looks for its key: with the header, and as another program's that has none
    with_header = key_of(delivery, event, "data.item.sku", plain)
    headers = {name: value for name, value in delivery.properties.headers.items() if "key" not in name}
    other = Delivery(1, 1, False, message.exchange, message.routing_key, message.properties, message.body)
    other.use(type(delivery.properties)(**{**_fields(delivery), "headers": headers}), message.body)

    # Then it is the same key
    assert (
        with_header == key_of(other, event, "data.item.sku", plain) == key_in({"item": {"sku": sku}}, "data.item.sku")
    )


def _fields(delivery: Delivery) -> dict[str, Any]:
    return {name: getattr(delivery.properties, name) for name in type(delivery.properties).__slots__}
