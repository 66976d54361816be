"""Schedulers through the real command line: each tick once, whoever of them dies, and what was missed as declared."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.amqp.publisher import Publisher
from pipeline.event import utc_now
from pipeline.scheduler.baton import Baton
from pipeline.scheduler.memory import Memory
from pipeline.topology.load import load_topology
from pipeline.topology.model import Topology
from tests.support.application import Application, Ended, ended
from tests.support.broker import TestVhost
from tests.support.proxy import proxy_to
from tests.support.rabbit import rabbit
from tests.support.topologies import until

TOPOLOGY = """\
version: 1
exchanges: {events: {}}
events: {tick.often: {}, tick.hourly: {}}
queues: {ticks: {}}
bindings: [{exchange: events, queue: ticks, routing_key: "tick.*"}]
schedules:
  often: {every: 1s, event: tick.often, data: {of: [1, 2]}}
"""
HOURLY = """\
  skipped: {every: 1h, event: tick.hourly, missed: skip}
  last: {every: 1h, event: tick.hourly, missed: once}
  each: {every: 1h, event: tick.hourly, missed: all}
  clock: {cron: "30 * * * *", timezone: Asia/Kathmandu, event: tick.hourly, missed: all}
"""


@pytest.fixture
def app(vhost: TestVhost, tmp_path: Path) -> Application:
    """The application, not applied yet."""
    app = Application(vhost, tmp_path)
    app.write("topology.yaml", TOPOLOGY)
    return app


class Running:
    """A `pipeline scheduler start` that runs; its log is read as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[dict[str, object]] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.log.append(json.loads(line))

    def said(self, event: str) -> list[dict[str, object]]:
        """The log lines that begin so."""
        return [line for line in self.log if str(line["event"]).startswith(event)]

    async def until_said(self, event: str, times: int = 1) -> None:
        """Wait for that many of them."""

        async def heard() -> bool:
            return len(self.said(event)) >= times

        await until(heard, f"{times} times {event!r} in a scheduler's log")

    async def stop(self) -> Ended:
        """SIGTERM, and how it ended."""
        self.process.terminate()
        await asyncio.wait_for(self._reading, 30)
        return await ended(self.process)


@asynccontextmanager
async def scheduler(app: Application) -> AsyncIterator[Running]:
    """A scheduler for the block."""
    process = await app.start("scheduler", "start", "--json")
    running = Running(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await running._reading  # noqa: SLF001 - its last lines


async def ticks_of(app: Application) -> list[str]:
    """The ids of the ticks so far, removed."""
    async with rabbit(app.vhost) as seen:
        return [str(each.message_id) for each in await seen.take("ticks")]


def moment(event_id: str) -> datetime:
    """When the tick was."""
    return datetime.fromisoformat(event_id.partition("@")[2])


async def test_of_two_schedulers_one_is_active_and_when_it_is_killed_the_other_goes_on(app: Application) -> None:
    await app.apply()
    # Given two schedulers, started at once
    async with scheduler(app) as one, scheduler(app) as other:
        for each in (one, other):
            await each.until_said("waiting for its turn")

        async def somebody() -> bool:
            return bool(one.said("active") or other.said("active"))

        await until(somebody, "an active scheduler")
        active, idle = (one, other) if one.said("active") else (other, one)
        await active.until_said("published", 2)
        assert idle.said("active") == []

        # When the active one is killed, then the other goes on
        active.process.kill()
        await idle.until_said("published", 3)

        # and SIGTERM ends it in good order
        done = await idle.stop()
        assert done.code == 0
        assert idle.said("ended")

    # Then every tick came, whoever published it; at most the one during which it was killed came twice, as one event
    found = await ticks_of(app)
    moments = sorted({moment(each) for each in found})
    assert {each.partition("@")[0] for each in found} == {"often"}
    assert len(moments) >= 5
    assert [later - earlier for earlier, later in pairwise(moments)] == [timedelta(seconds=1)] * (len(moments) - 1)
    assert max(Counter(found).values()) <= 2
    assert len(found) <= len(moments) + 1


async def test_a_tick_is_an_event_like_any_other(app: Application) -> None:
    await app.apply()
    async with scheduler(app) as running:
        await running.until_said("published")
        await running.stop()

    async with rabbit(app.vhost) as seen:
        first, *_ = await seen.take("ticks")
    assert first.message_id is not None
    assert json.loads(first.body) == {"of": [1, 2]}
    assert first.type == "tick.often"
    assert first.headers["cloudEvents_source"] == "/schedules/often"
    assert datetime.fromisoformat(str(first.headers["cloudEvents_time"])) == moment(first.message_id)


async def test_what_was_missed_is_made_up_for_as_declared(app: Application) -> None:
    # Given schedulers that were away since five hours and a half before now
    app.write(
        "topology.yaml", TOPOLOGY.replace("  often: {every: 1s, event: tick.often, data: {of: [1, 2]}}\n", HOURLY)
    )
    await app.apply()
    topology = load_topology(app.settings.topology).topology
    now = utc_now()
    since = now - timedelta(hours=5, minutes=30)
    await remember(app, topology, since)

    # When one starts again, twice
    async with scheduler(app) as running:
        await running.until_said("published", 3)
        await running.stop()
    async with scheduler(app) as running:
        await running.until_said("active")
        await running.stop()

    # Then each schedule made up for what it says, once
    found = Counter(await ticks_of(app))
    assert set(found.values()) == {1}
    names = Counter(each.partition("@")[0] for each in found)
    by_name = {name: sorted(moment(each) for each in found if each.startswith(f"{name}@")) for name in names}
    after = utc_now()
    assert by_name["each"] in (hours_between(since, now, 0), hours_between(since, after, 0))  # an hour may begin now
    assert by_name["last"][0] == hours_between(since, now, 0)[-1]
    assert by_name.get("skipped", []) in ([], hours_between(now - timedelta(minutes=1), after, 0))
    # Kathmandu's clock is 5:45 ahead: its half hours are our quarters to
    assert by_name["clock"] in (hours_between(since, now, 45), hours_between(since, after, 45))


async def test_a_new_schedule_begins_now(app: Application) -> None:
    app.write("topology.yaml", TOPOLOGY + HOURLY)
    await app.apply()
    began = utc_now()

    async with scheduler(app) as running:
        await running.until_said("published", 2)
        await running.stop()

    assert [each for each in await ticks_of(app) if moment(each) < began - timedelta(seconds=1)] == []


async def test_the_list_shows_the_next_ticks_without_a_broker(app: Application) -> None:
    app.write("topology.yaml", TOPOLOGY + HOURLY)

    table = (await app.good("scheduler", "list", "--next", "2")).out.splitlines()
    found = (await app.good("scheduler", "list", "--json")).json()

    assert len(table) == 1 + 2 * 5
    assert [each["name"] for each in found] == ["often", "skipped", "last", "each", "clock"]
    assert found[4]["rule"] == "30 * * * * Asia/Kathmandu"
    assert [datetime.fromisoformat(tick).minute for tick in found[4]["next"]] == [45, 45, 45]


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (
            ("schedules:\n  often: {every: 1s, event: tick.often, data: {of: [1, 2]}}\n", ""),
            2,
            "the topology has no schedules",
        ),
        (
            ("tick.often: {}", 'tick.often: {model: "datetime:date"}'),
            2,
            "schedule often: its data does not fit tick.often",
        ),
        (("every: 1s", "every: soon"), 2, "schedules.often.every: must be a duration"),
        (("", ""), 4, "queue pipeline.scheduler is not on the broker; `pipeline topology apply`"),
    ],
)
async def test_what_can_not_be_is_said_in_a_sentence(
    app: Application, change: tuple[str, str], code: int, said: str
) -> None:
    app.write("topology.yaml", TOPOLOGY.replace(*change) if change[0] else TOPOLOGY)

    done = await app.run("scheduler", "start")

    assert done.code == code, done.err
    assert said in done.err
    assert "Traceback" not in done.err


async def remember(app: Application, topology: Topology, tick: datetime) -> None:
    """What a scheduler left behind that did everything up to `tick`."""
    memory = Memory()
    for schedule in topology.schedules.values():
        memory = memory.after(schedule, tick)
    async with Publisher(topology, app.settings) as publisher:
        assert await Baton(app.settings, publisher).save(memory) is None


def hours_between(since: datetime, upto: datetime, minute: int) -> list[datetime]:
    """The full hours (and `minute`) behind `since`, up to `upto`."""
    first = since.astimezone(UTC).replace(minute=minute, second=0, microsecond=0)
    return [each for hours in range(8) if since < (each := first + timedelta(hours=hours)) <= upto]


async def test_a_scheduler_that_loses_its_connection_comes_back_and_misses_nothing(app: Application) -> None:
    # Given a scheduler at work behind a connection that can be cut
    await app.apply()
    async with proxy_to(app.vhost.amqp_url) as proxy:
        app.environ["PIPELINE_AMQP_URL"] = proxy.url
        async with scheduler(app) as running:
            await running.until_said("published", 2)

            # When it is cut
            proxy.cut()

            # Then it is active again, and its ticks go on without a gap
            await running.until_said("active", 2)
            await running.until_said("published", len(running.said("published")) + 2)
            assert (await running.stop()).code == 0

    moments = sorted({moment(each) for each in await ticks_of(app)})
    assert {later - earlier for earlier, later in pairwise(moments)} == {timedelta(seconds=1)}
