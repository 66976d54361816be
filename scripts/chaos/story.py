"""The story: load, one loss after another, the books. In: a running `up`. Out: a figure for each box."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pipeline.broker.node import Node
from scripts.chaos.books import Books, balance
from scripts.chaos.load import Done, Load
from scripts.up import control, marks
from scripts.up.application import API_KEY
from scripts.up.place import Place

BOXES = (
    "gateway-1", "broker", "payments-db", "payments-cache", "payments-worker", "relay", "producer-db",
)  # fmt: skip
BACK = 90.0  # s a box may take to come back
POLL = 0.05  # s


@dataclass(frozen=True, slots=True)
class Loss:
    """What clients saw while one box was killed, gone and back."""

    box: str
    back: float  # s until it was ready again
    events: int  # requests that sent one
    reads: int
    failed: tuple[Done, ...]
    longest: float  # s of the slowest request

    def __str__(self) -> str:
        failed_reads = sum(each.reads for each in self.failed)
        failed = len(self.failed) - failed_reads
        return (
            f"{self.box:<16} back after {self.back:5.1f} s   {self.events:6} events, {failed} failed   "
            f"{self.reads:5} reads, {failed_reads} failed   longest {self.longest * 1000:6.0f} ms"
        )


@dataclass(frozen=True, slots=True)
class Told:
    """The whole story."""

    losses: tuple[Loss, ...]
    books: Books


async def tell(
    place: Place, rate: float, boxes: Sequence[str], gone: float, calm: float, say: Callable[[str], None]
) -> Told:
    """Kill each box in turn under load, keep it away for `gone` seconds, and wait until it is ready again.

    `calm` seconds lie before each kill and after each return.
    """
    door = control.read_status(place)["addresses"]["front door"]
    load = Load(door, place.secret(API_KEY), rate)
    load.start()
    losses = []
    try:
        for box in boxes:
            loss = await lose(place, load, box, gone, calm)
            losses.append(loss)
            say(str(loss))
            for failed in loss.failed[:3]:
                say(f"    {failed.status} {failed.words}")
    finally:
        await load.stop()
    return Told(tuple(losses), await balance(place, load.done))


async def lose(place: Place, load: Load, box: str, gone: float, calm: float) -> Loss:
    """Kill one box, have it away for a while, and look at what the clients saw."""
    began = time.monotonic()
    await asyncio.sleep(calm)
    starts = _state(place, box)["starts"]
    hold = place.hold(box)
    hold.touch()
    killed = time.monotonic()
    try:
        await asyncio.to_thread(kill, place, box)
        await asyncio.sleep(gone)
    finally:
        hold.unlink()
    until = time.monotonic() + BACK
    while (state := _state(place, box))["state"] != "ready" or state["starts"] == starts:
        if time.monotonic() > until:
            raise TimeoutError(f"{box} did not come back within {BACK:.0f} s; {place.log} says why")
        await asyncio.sleep(POLL)
    back = time.monotonic() - killed
    await asyncio.sleep(calm)
    ended = time.monotonic()
    # A request that was due in this time belongs to it, also if its answer is still on its way.
    await load.answered(ended)
    seen = [each for each in load.done if began <= each.due < ended]
    return Loss(
        box,
        back,
        sum(not each.reads for each in seen),
        sum(each.reads for each in seen),
        tuple(each for each in seen if each.failed),
        max((each.seconds for each in seen), default=0.0),
    )


def kill(place: Place, box: str) -> None:
    """SIGKILL every process of a box."""
    if box == "broker":
        Node(place.folder).kill()
        return
    for pid in marks.find(place, box):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _state(place: Place, box: str) -> dict[str, object]:
    state: dict[str, object] = control.read_status(place)["boxes"][box]
    return state
