"""An event of the log → the message that brings it to one subscription, past its neighbours. Pure.

The copy keeps body and attributes. The marks of the broker and of failures go: it has a whole retry budget again, and
says which replay it is from. An ordered subscription gets it through its own exchange, by its key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pipeline.amqp.stream import OFFSET
from pipeline.codec.order_key import key_in, key_text
from pipeline.event_log.entry import Entry, is_attribute
from pipeline.message import BROKER_HEADERS, EXCHANGE, FORCED, MORE_ROUTES, PREFIX, REPLAY, ROUTES, ROUTING_KEY, Message
from pipeline.properties import encode_properties
from pipeline.topology.model import Subscription
from pipeline.topology.partitions import DATA, KEY_HEADER, entrance, key_header, past_partition
from pipeline.topology.slots import route_of


def replay_copy(
    entry: Entry, subscription: Subscription, replay: str, force: bool, limit: int, past: bool = False
) -> Message:
    """The copy of replay `replay` ("" for none); `limit` is in bytes of encoded properties.

    With `past` an ordered subscription gets it in the partitions of its past, instead of through its entrance.
    """
    properties = entry.properties
    headers = {name: value for name, value in properties.headers.items() if _travels(name)}
    headers |= {EXCHANGE: entry.exchange, ROUTING_KEY: entry.routing_key}
    if replay:
        headers[REPLAY] = replay
    if force:
        headers[FORCED] = True
    exchange, key = "", subscription.queue
    if subscription.order_by:
        headers |= _key_headers(entry, subscription)
        ordered_by = _key(entry, subscription, headers)
        if past:
            exchange, key = "", past_partition(subscription, ordered_by)
        else:
            exchange, key = entrance(subscription), entry.routing_key
            headers[ROUTES] = [route_of(subscription.order_by, ordered_by)]
    # An expiration would have the broker drop it; without a type the new routing key would be taken for it.
    copy = replace(properties, headers=headers, expiration="", type=properties.type or entry.type)
    encoded = b""
    for kept in _ever_fewer(headers):
        try:
            encoded = encode_properties(replace(copy, headers=kept))
        except ValueError:  # another program's header that only it can write
            continue
        if len(encoded) <= limit:
            break
    return Message(exchange, key, entry.delivery.body, encoded, properties.message_id)


def _travels(header: str) -> bool:
    if header.startswith(KEY_HEADER):
        return True
    return header not in (OFFSET, *MORE_ROUTES) and not header.startswith((*BROKER_HEADERS, PREFIX))


def _key_headers(entry: Entry, subscription: Subscription) -> dict[str, Any]:
    """The header that tells the key, for an event that was published before the subscription was there."""
    name = key_header(subscription.order_by)
    if not subscription.order_by.startswith(DATA) or name in entry.properties.headers:
        return {}
    return {name: key_in(entry.data, subscription.order_by) or ""}


def _key(entry: Entry, subscription: Subscription, headers: Mapping[str, Any]) -> str:
    """The key as the worker will see it."""
    match subscription.order_by:
        case "type":
            return entry.type
        case "subject":
            return entry.subject or ""
        case "source":
            return entry.source
    return key_text(headers.get(key_header(subscription.order_by))) or ""


def _ever_fewer(headers: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield dict(headers)
    yield {
        name: value
        for name, value in headers.items()
        if name.startswith(PREFIX) or name == ROUTES or is_attribute(name)
    }
    yield {name: headers[name] for name in (REPLAY, FORCED, ROUTES) if name in headers}
