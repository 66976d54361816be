"""Waiting that outlasts a cancellation. In: something under way. Out: what came of it."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


async def uninterrupted(future: asyncio.Future[T]) -> T:
    """What `future` returns or raises. When the caller is cancelled, it hears of that once the future has ended."""
    try:
        await asyncio.wait({future})
    except asyncio.CancelledError:
        await asyncio.wait({future})
        if not future.cancelled():
            future.exception()  # it has been seen; the cancellation is what the caller hears of
        raise
    return future.result()
