"""Replay on a real broker, with real workers and the real command line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.event_log.choosing import Selection
from pipeline.event_log.replaying import Replay, replay
from pipeline.topology.load import load_topology
from tests.event_log.ledger import ids, ledger, publish, times
from tests.support.application import Application
from tests.support.broker import TestVhost
from tests.support.rabbit import rabbit
from tests.support.topologies import until

COUNT = 3000
KILLS = 3


async def lengths(application: Application, *queues: str) -> list[int]:
    async with rabbit(application.vhost) as broker:
        return [await broker.count(queue) for queue in queues]


async def until_committed(application: Application, total: int) -> None:
    async def reached() -> bool:
        return sum(times(application).values()) >= total

    await until(reached, f"{total} commits", 60)


async def test_a_replay_goes_to_one_subscription_and_its_inbox_drops_what_was_processed(
    vhost: TestVhost, tmp_path: Path
) -> None:
    application = ledger(vhost, tmp_path)
    await application.apply()
    await publish(application, ids(COUNT))
    async with application.worker("ledger") as worker:
        await application.until_count("ledger", COUNT)
        before = await lengths(application, "neighbour", "ledger")

        done = await application.good("events", "replay", "--to", "ledger", "--json")

        assert done.json()["copied"] == COUNT
        assert await until_drained(application) == 0
        assert await worker.drain() == 0
    assert before == [COUNT, 0]
    assert await lengths(application, "neighbour") == [COUNT], "the neighbour got nothing"
    assert set(times(application).values()) == {1}


async def until_drained(application: Application) -> int:
    async def empty() -> bool:
        return await lengths(application, "ledger") == [0]

    await until(empty, "an empty work queue", 60)
    return 0


async def test_a_forced_replay_killed_again_and_again_processes_each_event_just_once_more(
    vhost: TestVhost, tmp_path: Path
) -> None:
    application = ledger(vhost, tmp_path)
    await application.apply()
    await publish(application, ids(COUNT))
    await publish(application, ids(10, COUNT), "order.paid")
    command = ("events", "replay", "--to", "ledger", "--type", "order.created", "--force", "--rate", "1500", "--json")
    async with application.worker("ledger") as worker:
        await application.until_count("ledger", COUNT + 10)

        replays = set()
        for kill in range(KILLS):
            process = await application.start(*command)
            copied = await checkpoint_beyond(application, (kill + 1) * 300)
            process.kill()
            await process.wait()
            replays.add(copied)
        done = await application.good(*command)

        assert done.json()["before"] >= KILLS * 300, "it went on where it was"
        assert replays == {done.json()["replay"]}, "under the same id"
        await until_committed(application, 2 * COUNT + 10)
        assert await until_drained(application) == 0
        assert await worker.drain() == 0
    found = times(application)
    assert [found[each] for each in ids(COUNT)] == [2] * COUNT
    assert [found[each] for each in ids(10, COUNT)] == [1] * 10, "not of the type that was asked for"
    assert await lengths(application, "neighbour", "ledger.dlq") == [COUNT + 10, 0]

    # a second forced replay is another one
    again = await application.good(*command[:-3], "--since", str(COUNT - 1), "--json")
    assert again.json()["copied"] == 1
    assert again.json()["replay"] != done.json()["replay"]


async def checkpoint_beyond(application: Application, copied: int) -> str:
    """Wait until the replay's checkpoint says so many copies; its id."""

    async def beyond() -> str:
        for path in (application.folder / "state" / "replays").glob("*.json"):
            found = json.loads(path.read_text())
            if found["copied"] >= copied:
                return str(found["id"])
        return ""

    return await until(beyond, f"a checkpoint behind {copied} copies", 60)


async def test_a_replay_that_is_interrupted_by_hand_says_how_it_goes_on(vhost: TestVhost, tmp_path: Path) -> None:
    application = ledger(vhost, tmp_path)
    await application.apply()
    await publish(application, ids(1000))
    command = ("events", "replay", "--to", "ledger", "--rate", "500")
    process = await application.start(*command)
    await checkpoint_beyond(application, 100)

    process.send_signal(2)
    _, err = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 130, err
    assert b"the same command goes on" in err
    done = await application.good(*command[:-2], "--json")
    assert done.json()["copied"] == 1000
    assert 100 <= done.json()["before"] < 1000


async def test_what_is_chosen_is_what_is_replayed(vhost: TestVhost, tmp_path: Path) -> None:
    application = ledger(vhost, tmp_path)
    await application.apply()
    await publish(application, ids(100))
    await publish(application, ids(100, 100), "order.paid")
    where = "data.amount >= 150 and type == 'order.paid' and time > '2020-01-01'"

    dry = await application.good("events", "replay", "--to", "ledger", "--where", where, "--dry-run", "--json")
    assert dry.json()["copied"] == 50
    assert await lengths(application, "ledger") == [200]

    await application.good("events", "replay", "--to", "ledger", "--where", where, "--since", "1h")
    await application.good("events", "replay", "--to", "ledger", "--since", "190", "--until", "195")

    found = application.take_ids("ledger", 1000)
    assert [each for each, _ in found] == [*ids(200), *ids(50, 150), *ids(5, 190)]
    async with rabbit(vhost) as broker:
        await application.good("events", "replay", "--to", "ledger", "--since", "199")
        (copy,) = await broker.take("ledger")
    assert copy.headers.keys() - {"x-delivery-count"} == {
        *("cloudEvents_specversion", "cloudEvents_source", "cloudEvents_time"),
        *("pipeline-replay", "pipeline-exchange", "pipeline-routing-key"),
    }
    assert copy.type == "order.paid"


async def test_bad_input_is_answered_with_a_sentence(vhost: TestVhost, tmp_path: Path) -> None:
    application = ledger(vhost, tmp_path)
    await application.apply()
    await publish(application, ids(5))
    topology = load_topology(application.settings.topology).topology
    cases = [
        (Replay("legder", Selection()), "did you mean ledger?"),
        (Replay("ledger", Selection(since="yesterday")), "is none of: first, a duration"),
        (Replay("ledger", Selection(since="1h", until="2h")), "is not behind"),
        (Replay("ledger", Selection(where="data.a > and")), "a value is expected here"),
        (Replay("ledger", Selection(where="__import__('os')")), "is nothing of an event"),
        (Replay("ledger", Selection(types=("order.creatd",))), "did you mean order.created?"),
        (Replay("ledger", Selection(), rate=0.0), "must be above 0"),
        (Replay("ledger", Selection(), archive=tmp_path / "nowhere"), "holds no archive"),
        (Replay("ledger", Selection(since="100")), "there is no such offset yet"),
    ]
    for asked, answer in cases:
        with pytest.raises(PipelineError) as caught:
            await replay(application.settings, topology, asked)
        assert answer in str(caught.value), asked
        assert caught.value.exit_code in (2, 4)
    done = await application.run("events", "replay", "--to", "ledger", "--where", "data.a > and")
    assert done.code == 2
    assert "a value is expected here" in done.err
    assert "Traceback" not in done.err
    assert await lengths(application, "ledger") == [5]

    application.write("topology.yaml", "version: 1\nexchanges: {events: {}}\nevents: {order.created: {}}\n")
    done = await application.run("events", "tail")
    assert done.code == 2
    assert "add `event_log: {exchange: events}`" in done.err
