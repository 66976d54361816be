"""A key → its slot, and the routing key that leads there. Pure; the same on every machine and in every version.

The publisher works out the slot, and names it as one more routing key (`CC`, RabbitMQ's sender-selected distribution);
plain bindings lead from the slots to the partitions. RabbitMQ's own consistent-hash exchange would spread the keys
otherwise after a restart: docs/decisions/0014-order.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

SLOTS = 64  # so many partitions at most; each has a binding to its partition
# Behind so many words that nobody's pattern of `*` matches it by accident: it comes by the events' own exchange.
_BEGIN = "~.~.~."


def slot_of(key: str) -> int:
    """The slot of a key; of "", which stands for no key, it is 0."""
    return crc32(key.encode("utf-8", "replace")) % SLOTS


def slot_key(order_by: str, slot: int) -> str:
    """The routing key of a slot: `~.~.~.data.sku:17`."""
    return f"{_BEGIN}{order_by}:{slot}"


def slot_keys(order_by: str) -> Iterator[str]:
    """The routing keys of all slots, in order."""
    return (slot_key(order_by, slot) for slot in range(SLOTS))


def route_of(order_by: str, key: str) -> str:
    """The routing key of a key's slot."""
    return slot_key(order_by, slot_of(key))
