"""Which node of a cluster to ask. In: its addresses and how to ask one. Out: the answer of the first that gives one.

In a random order, so that many processes spread over the nodes; those that did not answer a moment ago come last, for a
machine that lost its power takes the whole connect timeout every time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from pipeline.addresses import mask
from pipeline.errors import BrokerUnavailable

T = TypeVar("T")

AVOIDED = 30.0  # seconds that a node which did not answer is tried after the others

_silent: dict[str, float] = {}  # host and port → when it did not answer; as many as the settings name


async def first_to_answer(
    url: str, addresses: Sequence[str], ask: Callable[[str], Awaitable[T]], preferred: str = ""
) -> T:
    """What `ask` gives for the first of `addresses` that can be reached; `url`, which names them, is for the error.

    Raises: BrokerUnavailable when none can be; whatever else `ask` raises, at once: it is the cluster's word.
    """
    if len(addresses) == 1:
        return await ask(addresses[0])
    errors = []
    for address in in_order(addresses, preferred):
        place = _place(address)
        try:
            answer = await ask(address)
        except BrokerUnavailable as error:
            _silent[place] = time.monotonic()
            errors.append(error)
        except asyncio.CancelledError:
            _silent[place] = time.monotonic()  # whoever asked did not wait that long: another goes first next time
            raise
        else:
            _silent.pop(place, None)
            return answer
    raise BrokerUnavailable(
        f"none of the {len(addresses)} nodes of {mask(url)} can be reached: " + "; ".join(map(str, errors))
    ) from errors[-1]


def in_order(addresses: Sequence[str], preferred: str = "") -> list[str]:
    """The addresses, shuffled: the preferred one first, those that did not answer lately last."""
    now = time.monotonic()
    shuffled = random.sample(addresses, len(addresses))
    shuffled.sort(key=lambda each: now - _silent.get(_place(each), now - AVOIDED) < AVOIDED)
    return sorted(shuffled, key=lambda each: each != preferred)


def _place(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}"
