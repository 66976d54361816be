"""Keeps the boxes running. In: stages of boxes and steps, a journal. Out: `status.json`, and an exit code at the end.

The boxes of a stage start together; the next stage begins when all of them are ready. A box that dies is started again
after a pause that doubles while it keeps dying young. SIGTERM ends the stages in reverse order.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.broker.address import write_private
from pipeline.errors import PipelineError
from scripts.up.box import Box, Step
from scripts.up.journal import Journal
from scripts.up.place import Place

Stage = Sequence[Box | Step]

FIRST_PAUSE = 0.2  # s before a box that died is started again
LONGEST_PAUSE = 5.0  # s
HEALTHY = 30.0  # s a box must have lived for the pause to begin anew
START_DEADLINE = 180.0  # s for one stage; a busy small machine may need most of it
ASK_EVERY = 0.1  # s between two questions whether a box is ready
ATTEMPTS = 5  # of a step
LIVES = 5  # of a box that was never ready; then nothing starts
OWN = "supervisor"


@dataclass(slots=True)
class State:
    """What is said of a box."""

    state: str = "waiting"  # then starting, ready, down
    pid: int = 0
    starts: int = 0
    ready_after: float = 0.0  # s, the last time
    ended: str = ""  # how, the last time


class CannotStart(PipelineError):
    """A stage did not come up."""


class Supervisor:
    """Runs the stages of one place."""

    def __init__(self, place: Place, stages: Sequence[Stage], journal: Journal, addresses: dict[str, str]) -> None:
        self._place = place
        self._stages = stages
        self._journal = journal
        self._addresses = addresses
        self._stopping = asyncio.Event()
        self._states = {box.name: State() for stage in stages for box in stage if not isinstance(box, Step)}
        self._ready = {name: asyncio.Event() for name in self._states}
        self._hopeless: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._why = ""
        self._keepers: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> int:
        """Start everything, keep it running until SIGTERM, end everything. Exit code 1 when it could not start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        code = 0
        try:
            self._say_how("starting")
            for stage in self._stages:
                if not self._stopping.is_set():
                    await self._begin(stage)
            if not self._stopping.is_set():
                self._say_how("ready")
                self._journal.say(OWN, "everything is ready")
            await self._stopping.wait()
        except CannotStart as error:
            self._why = str(error)
            self._journal.say(OWN, self._why)
            code = 1
        self._stopping.set()
        self._say_how("stopping")
        await self._end()
        self._say_how("failed" if code else "stopped")
        return code

    async def _begin(self, stage: Stage) -> None:
        """Start a stage and wait until all of it is ready. Raises: CannotStart."""
        boxes = [box for box in stage if not isinstance(box, Step)]
        for box in boxes:
            self._journal.follow(box.name, box.output)
            self._keepers[box.name] = asyncio.create_task(self._keep(box))
        steps = [self._step(step) for step in stage if isinstance(step, Step)]
        everything = asyncio.create_task(self._all_ready(boxes, steps))
        stopping = asyncio.create_task(self._stopping.wait())
        jobs: list[asyncio.Future[Any]] = [everything, stopping, self._hopeless]
        try:
            await asyncio.wait(jobs, timeout=START_DEADLINE, return_when=asyncio.FIRST_COMPLETED)
            if everything.done():
                everything.result()
            elif self._hopeless.done():
                raise CannotStart(self._hopeless.result())
            elif not self._stopping.is_set():
                late = [box.name for box in boxes if not self._ready[box.name].is_set()]
                raise CannotStart(f"not ready within {START_DEADLINE:.0f} s: {', '.join(late)}")
        finally:
            stopping.cancel()
            everything.cancel()
            with suppress(asyncio.CancelledError, CannotStart):
                await everything

    async def _all_ready(self, boxes: Sequence[Box], steps: Sequence[Coroutine[Any, Any, None]]) -> None:
        await asyncio.gather(*(self._ready[box.name].wait() for box in boxes), *steps)

    async def _step(self, step: Step) -> None:
        """Run a step until it ends well. Raises: CannotStart."""
        if not step.needed():
            return
        code, said = 0, ""
        for attempt in range(ATTEMPTS):
            await asyncio.sleep(attempt)
            code, said = await step.run()
            for line in said.splitlines():
                self._journal.say(step.name, line)
            if code == 0:
                self._journal.say(step.name, "done")
                return
        raise CannotStart(f"{step.name} ended with exit code {code}: {said.strip()[-500:]}")

    async def _keep(self, box: Box) -> None:
        """Keep one box running until it is to end."""
        state, pause = self._states[box.name], FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            state.state, state.starts = "starting", state.starts + 1
            self._say_how()
            try:
                state.pid = await box.start()
                waiting = asyncio.create_task(box.wait())
                await self._until_ready(box, waiting, began)
                state.ended = await waiting
            except (OSError, PipelineError) as error:
                state.ended = str(error)
            state.state, state.pid = "down", 0
            if self._stopping.is_set():
                return
            self._say_how()
            lived = time.monotonic() - began
            pause = FIRST_PAUSE if lived > HEALTHY else pause
            self._journal.say(box.name, f"ended after {lived:.1f} s ({state.ended}); again in {pause:.1f} s")
            await box.clear()
            if state.starts == LIVES and not self._ready[box.name].is_set() and not self._hopeless.done():
                self._hopeless.set_result(f"{box.name} ended {LIVES} times and was never ready ({state.ended})")
            await self._pause(pause)
            while self._place.hold(box.name).exists() and not self._stopping.is_set():
                await self._pause(ASK_EVERY)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless everything is to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _until_ready(self, box: Box, waiting: asyncio.Task[str], began: float) -> None:
        while not waiting.done():
            if await box.is_ready():
                state = self._states[box.name]
                state.state, state.ready_after = "ready", round(time.monotonic() - began, 2)
                self._journal.say(box.name, f"ready after {state.ready_after:.1f} s, process {state.pid}")
                self._ready[box.name].set()
                self._say_how()
                return
            await asyncio.wait([waiting], timeout=ASK_EVERY)

    async def _end(self) -> None:
        """End the stages, the last one first."""
        for stage in reversed(self._stages):
            boxes = [box for box in stage if not isinstance(box, Step) and box.name in self._keepers]
            if boxes:
                self._journal.say(OWN, f"ending {', '.join(box.name for box in boxes)}")
            await asyncio.gather(*(self._end_one(box) for box in boxes))

    async def _end_one(self, box: Box) -> None:
        keeper = self._keepers[box.name]
        if self._states[box.name].pid == 0 and not keeper.done():
            # It is between two lives, or being started: that must be over, or it would be left running.
            await asyncio.wait([keeper], timeout=START_DEADLINE if self._states[box.name].state == "starting" else 10)
        await box.stop()
        await asyncio.wait([keeper], timeout=10)
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        self._states[box.name].state = "down"

    def _say_how(self, state: str = "") -> None:
        """Write `status.json`; without a word the whole stays as it is."""
        self._whole = state or self._whole
        said = {
            "state": self._whole,
            "why": self._why,
            "pid": os.getpid(),
            "addresses": self._addresses,
            "boxes": {name: asdict(each) for name, each in self._states.items()},
        }
        write_private(self._place.status, json.dumps(said, indent=2) + "\n")

    _whole = "starting"
