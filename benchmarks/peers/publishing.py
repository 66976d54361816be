"""Publishing flat out, in the ways libraries offer it. In: a function that publishes one order. Out: a report."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.payload import order
from benchmarks.protocol import Clock, arguments, ready

IN_FLIGHT = 500  # publishes under way at once, where the library has an asynchronous one


def from_threads(publish: Callable[[dict[str, Any]], object]) -> None:
    """A library without an asynchronous publish: from as many threads as the argument says, each waiting."""
    wanted = arguments()
    numbers = iter(range(wanted["count"]))

    def sender() -> None:
        for number in numbers:
            publish(order(number))

    with ThreadPoolExecutor(wanted["threads"]) as threads:
        ready()
        clock = Clock()
        for each in [threads.submit(sender) for _ in range(wanted["threads"])]:
            each.result()
        clock.report(wanted["count"])


async def from_tasks(publish: Callable[[dict[str, Any]], Awaitable[object]]) -> None:
    """From `IN_FLIGHT` tasks, each awaiting its confirm."""
    wanted = arguments()
    numbers = iter(range(wanted["count"]))

    async def sender() -> None:
        for number in numbers:
            await publish(order(number))

    ready()
    clock = Clock()
    await asyncio.gather(*(sender() for _ in range(IN_FLIGHT)))
    clock.report(wanted["count"])
