"""Offers events at a fixed rate, whatever becomes of them. In: rate, seconds. Out: when the first was due.

Open loop: event n is due at n / rate, and is published as soon as it is due, in one call with others that are; earlier
calls are not waited for. Who looks at latency counts from the moment an event was due, so a publisher that falls behind
is not excused (no coordinated omission). `single` gives every event a call, and a task, of its own.
"""

from __future__ import annotations

import asyncio
import time

import uvloop

from benchmarks.application import OrderPlaced
from benchmarks.payload import EVENT_TYPE, event_id, order
from benchmarks.protocol import arguments, ready, report
from pipeline import Event, Publisher

LEAD = 0.1  # s before the first event is due
TICK = 0.001  # s between turns at least: uvloop's timers count whole milliseconds, and shorter sleeps would spin


async def main() -> None:
    """Publish on time; end when everything is confirmed."""
    wanted = arguments()
    rate: float = wanted["rate"]
    count = int(rate * wanted["seconds"])
    size: int = wanted["size"]
    tasks: set[asyncio.Task[object]] = set()
    failures: list[str] = []

    def ended(task: asyncio.Task[object]) -> None:
        tasks.discard(task)
        if error := task.exception():
            failures.append(str(error))

    async with Publisher() as publisher:

        def publish(numbers: range) -> None:
            made = [Event(EVENT_TYPE, OrderPlaced(**order(each, size)), event_id(each)) for each in numbers]
            if wanted["single"]:
                calls: list[asyncio.Task[object]] = [asyncio.create_task(publisher.publish(each)) for each in made]
            else:
                calls = [asyncio.create_task(publisher.publish_many(made))]
            for task in calls:
                tasks.add(task)
                task.add_done_callback(ended)

        ready()
        cpu = time.process_time()
        began = time.monotonic() + LEAD
        sent = 0
        most_behind = 0.0
        while sent < count:
            now = time.monotonic()
            due = min(count, int((now - began) * rate) + 1) if now >= began else 0
            if due > sent:
                most_behind = max(most_behind, now - (began + sent / rate))
                publish(range(sent, due))
                sent = due
            await asyncio.sleep(max(TICK, began + sent / rate - time.monotonic()))
        while tasks:
            await asyncio.wait(tasks)
        report(
            began=began, count=count, cpu=time.process_time() - cpu, most_behind=most_behind, failures=failures[:3],
            failed=len(failures),
        )  # fmt: skip


if __name__ == "__main__":
    uvloop.run(main())
