"""A consumer's name ↔ its tag. One that pauses and goes on is the same consumer to people, and another to the broker.

A quorum queue takes a second consumer of the same channel and tag for the first (seen on 3.10.8), and counts what that
one has in hand: its prefetch would never fill.
"""

from __future__ import annotations

AGAIN = "~"


def tag_of(name: str, times: int) -> str:
    """The tag for the `times`th time (from 1) that `name` consumes on a channel; "" has the client library make one."""
    return name if times == 1 or not name else f"{name}{AGAIN}{times}"


def name_of(tag: str) -> str:
    """The name a tag was made of."""
    return tag.partition(AGAIN)[0]
