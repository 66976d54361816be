"""`pipeline outbox` and `pipeline db` as processes: killed, stopped, two at once, with brokers and databases away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from pipeline.broker.node import Node
from pipeline.store.producer import ProducerStore
from tests.support.application import LOG_SHOWN, Application, RunningWorker
from tests.support.broker import TestVhost, new_vhost, wait_until_registered
from tests.support.outbox import KINDS, accept, check, consumed, empty, new_events
from tests.support.postgres import Database
from tests.support.rabbit import rabbit
from tests.support.topologies import until

EVERY = [("events", "#")]
PATIENCE = 60.0  # s for what takes a lease's time or a broker's start on a busy machine
# Nobody waits long for a broker that is known to be dead.
IMPATIENT = {"PIPELINE_PUBLISH_DEADLINE": "2", "PIPELINE_CONNECT_TIMEOUT": "2"}
COUNT = 15_000  # events, enough that a relay can't be done with them before it is killed
TOPOLOGY = """\
version: 1
exchanges: {events: {type: topic}}
events: {order.created: {exchange: events}}
subscriptions:
  payments: {events: [order.created]}
  audit: {events: [order.created]}
"""


def application(vhost: TestVhost, folder: Path) -> Application:
    app = Application(vhost, folder)
    app.environ |= {"PIPELINE_PRODUCER_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/producer.db?timeout=30"}
    app.environ |= IMPATIENT
    return app


@asynccontextmanager
async def relay_process(app: Application) -> AsyncIterator[RunningWorker]:
    """`pipeline outbox relay` for the block, then killed unless it ended before."""
    running = RunningWorker(await app.start("outbox", "relay", "--json"))
    try:
        yield running
    except BaseException:
        print(*running.log[-LOG_SHOWN:], "".join(running.noise), sep="\n")  # noqa: T201 - pytest shows it
        raise
    finally:
        await running.kill()


@asynccontextmanager
async def opened(app: Application) -> AsyncIterator[ProducerStore]:
    store = await ProducerStore.open(app.settings.producer_database_url)
    try:
        yield store
    finally:
        await store.close()


async def test_a_relay_is_killed_in_the_middle(vhost: TestVhost, tmp_path: Path) -> None:
    app = application(vhost, tmp_path)
    events = new_events(COUNT, KINDS)
    async with rabbit(vhost) as seen, opened(app) as store:
        await seen.queue("work", bind=EVERY)
        # given a relay at work on many events, and another one standing by
        async with relay_process(app) as one:
            await one.until_said("this relay is the active one")
            async with relay_process(app) as two:
                await two.until_said("relaying")
                accepting = asyncio.create_task(accept(store, events))

                async def some_went() -> bool:
                    return await seen.count("work") > 0

                await until(some_went, "the first events", PATIENCE)
                # when it is killed
                os.kill(one.process.pid, signal.SIGKILL)
                await one.process.wait()
                await accepting
                left = len(await store.waiting(100_000))
                assert left > 0, "the relay was done before it could be killed"
                # then the other takes over, within its lease and a bit, and publishes the rest
                await two.until_said("this relay is the active one")
                await empty(store, PATIENCE)
                assert await two.drain() == 0
                assert two.said("ended")[0]["published"] > 0
        # and everything is there, in order; what was in the dead one's hands is there twice, with the same ids
        doubles = check(await consumed(seen, "work", {event.id for event in events}, PATIENCE), events)
        assert doubles <= 4096  # at most what may be unconfirmed
        status = await store.status()
        assert (status.waiting, status.accepted, status.published) == (0, COUNT, COUNT)


async def test_a_relay_that_is_frozen_is_replaced(vhost: TestVhost, tmp_path: Path) -> None:
    app = application(vhost, tmp_path)
    events = new_events(600, KINDS)
    async with rabbit(vhost) as seen, opened(app) as store, relay_process(app) as one:
        await seen.queue("work", bind=EVERY)
        await one.until_said("this relay is the active one")
        # given a relay that stands still, as a paused machine's would
        one.process.send_signal(signal.SIGSTOP)
        async with relay_process(app) as two:
            await accept(store, events)
            await empty(store, PATIENCE)
            # when it wakes up after another has taken over, then it leaves the outbox to that one
            one.process.send_signal(signal.SIGCONT)
            await one.until_said("this relay is not the active one any more")
            await accept(store, new_events(100, KINDS, first=1000))
            await empty(store, PATIENCE)
            assert await one.drain() == 0
            assert await two.drain() == 0
            assert one.said("ended")[0]["published"] == 0
        all_events = [*events, *new_events(100, KINDS, first=1000)]
        assert check(await consumed(seen, "work", {event.id for event in all_events}), all_events) == 0


async def test_two_relays_at_once_and_in_order_ended(vhost: TestVhost, tmp_path: Path, database: Database) -> None:
    # given two relays on one PostgreSQL
    app = application(vhost, tmp_path)
    app.environ["PIPELINE_PRODUCER_DATABASE_URL"] = database.url
    events = new_events(4000, KINDS)
    async with rabbit(vhost) as seen, opened(app) as store, relay_process(app) as one, relay_process(app) as two:
        await seen.queue("work", bind=EVERY)
        for first in range(0, 2000, 200):
            await accept(store, events[first : first + 200])
        await empty(store, PATIENCE)
        active, other = (one, two) if one.said("this relay is the active one") else (two, one)
        assert not other.said("this relay is the active one")
        # when the one at work is told to end, then it does, and the other goes on at once
        assert await active.drain() == 0
        await accept(store, events[2000:])
        await empty(store, PATIENCE)
        assert await other.drain() == 0
        assert active.said("ended")[0]["published"] + other.said("ended")[0]["published"] == 4000
        # and nothing was published twice
        assert check(await consumed(seen, "work", {event.id for event in events}), events) == 0


async def test_the_broker_is_killed_and_started(private_node: Node, tmp_path: Path) -> None:
    with new_vhost(private_node.start()) as vhost:
        app = application(vhost, tmp_path)
        events = new_events(3000, KINDS)
        async with rabbit(vhost) as seen:
            await seen.queue("work", bind=EVERY)
        await asyncio.to_thread(wait_until_registered, private_node, vhost.name, ["work"])
        async with opened(app) as store, relay_process(app) as relay:
            await accept(store, events[:1000])
            await empty(store, PATIENCE)
            # given a broker that is killed, when events are accepted, then they wait
            await asyncio.to_thread(private_node.kill)
            await accept(store, events[1000:2000])
            status = json.loads((await app.good("outbox", "status", "--json")).out)
            assert (status["waiting"], status["accepted"], status["published"]) == (1000, 2000, 1000)
            assert status["oldest_age"] >= 0
            assert status["relay"].split()[1] == str(relay.process.pid)
            # and once it is back they go out, in order
            await asyncio.to_thread(private_node.start)
            await accept(store, events[2000:])
            await empty(store, PATIENCE)
            assert await relay.drain() == 0
        async with rabbit(vhost) as seen:
            check(await consumed(seen, "work", {event.id for event in events}), events)


async def test_status_and_forget(vhost: TestVhost, tmp_path: Path) -> None:
    app = application(vhost, tmp_path)
    async with opened(app) as store:
        # given three events, of which two are published
        await accept(store, new_events(3))
        await store.mark_published((await store.waiting(2))[:2])
    # when it is looked at, then that is what it says
    shown = (await app.good("outbox", "status")).out
    assert [line.split()[0] for line in shown.splitlines()] == ["waiting", "accepted", "published", "relay"]
    assert [line.split()[1] for line in shown.splitlines()] == ["1,", "3", "2", "none"]
    # and what is old enough and published may be forgotten
    assert (await app.good("outbox", "forget", "--older-than", "1h")).out == "0 published events forgotten\n"
    done = await app.good("outbox", "forget", "--older-than", "0s", "--json")
    assert done.json() == {"forgotten": 2}
    assert (await app.good("outbox", "status", "--json")).json() | {"oldest": 0, "oldest_age": 0} == {
        "waiting": 1, "oldest": 0, "oldest_age": 0, "accepted": 1, "published": 0, "relay": None,
    }  # fmt: skip
    # and nonsense is said to be that
    refused = await app.run("outbox", "forget", "--older-than", "soon")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--older-than is 'soon'" in refused.err


async def test_a_database_that_is_away_at_the_start_is_said_in_a_sentence(vhost: TestVhost, tmp_path: Path) -> None:
    app = application(vhost, tmp_path)
    app.environ["PIPELINE_PRODUCER_DATABASE_URL"] = "postgresql://me:secret@127.0.0.1:1/shop"
    for command in (["outbox", "relay"], ["outbox", "status"]):
        done = await app.run(*command)
        assert done.code == 5
        assert "the database postgresql://me@127.0.0.1:1/shop can't be reached" in done.err
        assert "secret" not in done.err + done.out
        assert "Traceback" not in done.err


async def test_databases_are_upgraded_and_looked_at(vhost: TestVhost, tmp_path: Path, database: Database) -> None:
    app = application(vhost, tmp_path)
    app.write("topology.yaml", TOPOLOGY)
    app.environ["PIPELINE_PRODUCER_DATABASE_URL"] = database.url
    # given nothing, when it is looked at, then nothing is made
    done = await app.good("db", "status", "--json")
    assert [each["condition"] for each in done.json()["databases"]] == ["empty"] * 3
    assert not (tmp_path / "data").exists()
    # when all is upgraded, twice, then every subscription's database and the producer's are current
    upgraded = (await app.good("db", "upgrade", "--json")).json()["databases"]
    assert [(each["for"], each["was"], each["to"]) for each in upgraded] == [
        (["payments"], "empty", "worker_0001"),
        (["audit"], "empty", "worker_0001"),
        (["producer"], "empty", "producer_0001"),
    ]
    assert "is current (producer_0001)" in (await app.good("db", "upgrade")).out
    assert database.url.split("@")[0].split(":")[2] not in (await app.good("db", "status")).out
    # and subscriptions that share a database are upgraded once
    app.environ["PIPELINE_DATABASE_URL"] = database.url
    shared = (await app.good("db", "upgrade", "--json")).json()["databases"]
    assert [each["for"] for each in shared] == [["payments", "audit"], ["producer"]]


async def test_databases_that_need_an_upgrade_or_are_away(vhost: TestVhost, tmp_path: Path) -> None:
    app = application(vhost, tmp_path)
    app.write("topology.yaml", TOPOLOGY)
    await app.good("db", "upgrade")
    # given a database of before there were revisions, then the status says what to do, and doing it helps
    path = tmp_path / "data" / "audit.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE pipeline_alembic_worker")
    done = await app.run("db", "status")
    assert done.code == 1
    assert done.out.count("run `pipeline db upgrade`") == 1
    await app.good("db", "upgrade")
    await app.good("db", "status")
    # and given one that can't be reached, then it is said, and the others are done all the same
    app.environ["PIPELINE_DATABASE_URL_PAYMENTS"] = "postgresql://me:secret@127.0.0.1:1/shop"
    for command in ("status", "upgrade"):
        done = await app.run("db", command)
        assert done.code == 5
        assert "can't be reached" in done.out
        assert "secret" not in done.out + done.err
        assert "audit" in done.out
    # and one of a later version is left alone
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE pipeline_alembic_worker SET version_num = 'worker_9999'")
    assert (await app.run("db", "status", environ={"PIPELINE_DATABASE_URL_PAYMENTS": ""})).code == 1
    done = await app.run("db", "upgrade", environ={"PIPELINE_DATABASE_URL_PAYMENTS": ""})
    assert done.code == 2
    assert "which this version does not know" in done.out
