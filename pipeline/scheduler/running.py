"""Publishes what the schedules say. In: a topology, and the clock. Out: an event a tick, under the tick's own id.

The id is made of schedule and tick, so a tick that is published twice (a scheduler died between its publish and its
memory) is one event, which every subscription processes once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice

from pipeline.amqp.publisher import Publisher
from pipeline.errors import ConfigurationError, InvalidPayload
from pipeline.event import Event, utc_now
from pipeline.log import get_logger
from pipeline.message import Message
from pipeline.scheduler.baton import Baton
from pipeline.scheduler.memory import Memory
from pipeline.scheduler.ticks import due_ticks, next_ticks
from pipeline.settings import Settings
from pipeline.topology.model import Schedule, Topology

log = get_logger("scheduler")

CHUNK = 500  # ticks of a schedule between two memories, when very many are made up for
LONGEST_SLEEP = 30.0  # seconds; the clock may be set meanwhile
RENEW = 300.0  # seconds after which the baton is renewed: RabbitMQ takes back what is held for half an hour
RETRY = 5.0  # seconds before a tick that could not be published is tried again


class Scheduler:
    """Publishes the ticks of all schedules of a topology while it has the baton."""

    def __init__(self, topology: Topology, baton: Baton, publisher: Publisher) -> None:
        self._schedules = list(topology.schedules.values())
        self._baton = baton
        self._publisher = publisher
        self._memory = Memory()
        self._unsaved = False
        self._saved_at = 0.0  # monotonic
        self._not_before: dict[str, float] = {}  # monotonic, by schedule that failed
        self.published = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, in turns with the other schedulers."""
        while not stop.is_set():
            if not self._baton.is_held():
                await self._wait(stop, LONGEST_SLEEP)
                continue
            log.info("active: this scheduler publishes", schedules=[each.name for each in self._schedules])
            self._begin(utc_now())
            epoch = self._baton.epoch
            while self._baton.is_held() and self._baton.epoch == epoch and not stop.is_set():
                now = utc_now()
                await self._turn(now)
                await self._wait(stop, self._pause(now))
            if not stop.is_set():
                log.warning("no longer active: another scheduler may have taken over")

    def _begin(self, now: datetime) -> None:
        self._memory = self._baton.memory
        for schedule in self._schedules:
            if self._memory.last(schedule) is None:  # it is new, or its rule is: it counts from now on
                self._memory = self._memory.after(schedule, now)
                self._unsaved = True
        self._saved_at = time.monotonic()

    async def _turn(self, now: datetime) -> None:
        """Publish what is due, then remember it."""
        for schedule in self._schedules:
            if self._not_before.get(schedule.name, 0.0) > time.monotonic():
                continue
            due = due_ticks(schedule, self._last(schedule), now)
            while chunk := list(islice(due, CHUNK)):
                if not self._baton.is_held() or not await self._publish(schedule, chunk):
                    break
        if self._unsaved or time.monotonic() - self._saved_at > RENEW:
            error = await self._baton.save(self._memory)
            if error is None:
                self._unsaved, self._saved_at = False, time.monotonic()
            else:
                log.warning("the ticks done are not remembered yet", error=str(error))

    async def _publish(self, schedule: Schedule, ticks: list[datetime]) -> bool:
        try:
            messages = [self._message(schedule, tick) for tick in ticks]
        except InvalidPayload as error:  # the model was changed under a running scheduler
            return self._failed(schedule, str(error))
        errors = await self._publisher.send(messages)
        done = [tick for index, tick in enumerate(ticks) if not any(failed <= index for failed in errors)]
        if done:
            self.published += len(done)
            self._memory = self._memory.after(schedule, done[-1])
            self._unsaved = True
            log.info("published", schedule=schedule.name, tick=done[-1].isoformat(), n=len(done))
        if errors:
            return self._failed(schedule, str(errors[min(errors)]))
        if len(ticks) == CHUNK:
            self._unsaved = await self._baton.save(self._memory) is not None
        return True

    def _failed(self, schedule: Schedule, error: str) -> bool:
        self._not_before[schedule.name] = time.monotonic() + RETRY
        log.error("a tick could not be published, trying again", schedule=schedule.name, error=error)
        return False

    def _message(self, schedule: Schedule, tick: datetime) -> Message:
        return self._publisher.codec.encode(event_of(schedule, tick))

    def _last(self, schedule: Schedule) -> datetime:
        last = self._memory.last(schedule)
        assert last is not None
        return last

    def _pause(self, now: datetime) -> float:
        """Seconds until there is something to do; `now` is the moment up to which everything is done."""
        if self._unsaved:
            return RETRY
        waits = [LONGEST_SLEEP]
        for schedule in self._schedules:
            if (blocked := self._not_before.get(schedule.name, 0.0) - time.monotonic()) > 0:
                waits.append(blocked)
            else:
                coming = next_ticks(schedule, max(self._last(schedule), now), 1)
                waits += [(tick - utc_now()).total_seconds() for tick in coming]
        return max(0.0, min(waits))

    async def _wait(self, stop: asyncio.Event, seconds: float) -> None:
        self._baton.changed.clear()
        waiters = [asyncio.create_task(event.wait()) for event in (stop, self._baton.changed)]
        try:
            await asyncio.wait(waiters, timeout=max(seconds, 0.001), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()


def event_of(schedule: Schedule, tick: datetime) -> Event[dict[str, object]]:
    """The event of a tick; its id is the tick's own, its time the tick."""
    moment = tick.astimezone(UTC)
    event_id = f"{schedule.name}@{moment:%Y-%m-%dT%H:%M:%SZ}"
    return Event(schedule.event, dict(schedule.data), event_id, f"/schedules/{schedule.name}", moment)


async def run_scheduler(settings: Settings, topology: Topology) -> None:
    """Run until SIGTERM or Ctrl-C; what is in hand is finished then.

    Raises: ConfigurationError when there is no schedule or its data does not fit; ObjectMissing when the topology is
        not applied; BrokerError.
    """
    check_schedules(topology, publisher := Publisher(topology, settings))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with publisher:
        baton = Baton(settings, publisher)
        scheduler = Scheduler(topology, baton, publisher)
        running: list[asyncio.Task[None]] = []
        try:
            await baton.start()
            log.info("waiting for its turn", pid=os.getpid(), schedules=len(topology.schedules))
            running = [asyncio.create_task(baton.run()), asyncio.create_task(scheduler.run(stop))]
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in running:
                if task.done():
                    task.result()
        finally:
            for task in running:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*running, return_exceptions=True)
            await baton.close()
        log.info("ended", published=scheduler.published)


def check_schedules(topology: Topology, publisher: Publisher) -> None:
    """Make sure that every schedule's event can be written. Raises: ConfigurationError."""
    if not topology.schedules:
        raise ConfigurationError("the topology has no schedules; declare some under `schedules:`")
    for schedule in topology.schedules.values():
        try:
            publisher.codec.encode(event_of(schedule, utc_now()))
        except InvalidPayload as error:
            raise ConfigurationError(
                f"schedule {schedule.name}: its data does not fit {schedule.event}: {error}"
            ) from None
