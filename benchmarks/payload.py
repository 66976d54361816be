"""The events that travel. In: a number and a size in bytes. Out: the same order as a dict, as JSON, and its id.

Only the standard library, so that the peers send the very same data.
"""

from __future__ import annotations

import json
from typing import Any

SIZE = 250  # bytes of JSON, unless a measure says otherwise
EVENT_TYPE = "order.placed"
FIRST = 1_000_000  # so that every number has seven digits and every body the same size
_WITHOUT_NOTE = 161  # bytes of JSON


def order(number: int, size: int = SIZE) -> dict[str, Any]:
    """Order `number`, whose JSON has `size` bytes (161 at least)."""
    sequence = FIRST + number
    return {
        "number": sequence,
        "customer": f"customer-{sequence % 10_000:04d}",
        "sku": f"sku-{sequence % 977:03d}",
        "quantity": sequence % 9 + 1,
        "amount": 100 + sequence % 900,
        "currency": "EUR",
        "placed_at": "2026-01-02T03:04:05.678901+00:00",
        "note": "n" * (size - _WITHOUT_NOTE),
    }


def body(number: int, size: int = SIZE) -> bytes:
    """The same as compact JSON."""
    return json.dumps(order(number, size), separators=(",", ":")).encode()


def event_id(number: int) -> str:
    """The event's id; ids sort like their numbers."""
    return f"order-{FIRST + number:012d}"


def number_of(event: str) -> int:
    """The number in an event's id."""
    return int(event[6:]) - FIRST
