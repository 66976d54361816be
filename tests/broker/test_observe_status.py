"""Where an event is: asked while it waits, is processed, is tried again, is dead, and when the database can't tell."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.observe.status import EventStatuses, SubscriptionStatus
from pipeline.store import Store
from pipeline.store.failures import FailureNote
from pipeline.topology.load import load_topology
from tests.support.application import Application
from tests.support.broker import TestVhost
from tests.support.rabbit import rabbit
from tests.support.topologies import until

TOPOLOGY = """\
version: 1
exchanges:
  events: {type: topic}
events:
  order.created: {exchange: events}
subscriptions:
  payments:
    events: [order.created]
    handler: handlers
    retry: {attempts: 2, delays: [100ms]}
    delivery_limit: 3
  shipping:
    events: [order.created]
    handler: handlers
    retry: {attempts: 2, delays: [1h]}
"""
HANDLERS = """\
import os, signal
from pathlib import Path
from pipeline import Context, Event, Reject, Worker

payments, shipping = Worker("payments"), Worker("shipping")

@payments.handle("order.created")
async def pay(event: Event[str], context: Context) -> dict:
    if event.data == "slow" and context.attempt == 1:
        raise ValueError("not at once")
    if event.data == "never" and not Path("mended").exists():
        raise ValueError("never")
    if event.data == "killer":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"paid": event.id}

@shipping.handle("order.created")
async def ship(event: Event[str]) -> None:
    if event.data == "slow":
        raise RuntimeError("the truck is away")
    if event.data == "never":
        raise Reject("stolen")
"""


@pytest.fixture
async def app(vhost: TestVhost, tmp_path: Path) -> Application:
    """An application whose topology is on the broker."""
    made = Application(vhost, tmp_path)
    made.write("topology.yaml", TOPOLOGY)
    made.write("handlers.py", HANDLERS)
    await made.apply()
    return made


async def publish(app: Application, *words: str) -> None:
    """Publish an order for each word; the word is its id, too."""
    lines = [{"specversion": "1.0", "id": word, "type": "order.created", "data": word} for word in words]
    app.write("orders.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    await app.good("publish", "--file", "orders.jsonl")


def open_statuses(app: Application) -> EventStatuses:
    return EventStatuses.open(app.settings, load_topology(app.settings.topology).topology)


async def until_states(statuses: EventStatuses, event_id: str, *states: str) -> list[SubscriptionStatus]:
    """The statuses of payments and shipping, once they are these."""

    async def right() -> list[SubscriptionStatus]:
        found = await statuses.of(event_id, "order.created")
        return found if [each.state for each in found] == list(states) else []

    return await until(right, f"{event_id} to be {' and '.join(states)}")


async def test_an_event_is_followed_to_its_end(app: Application) -> None:
    statuses = open_statuses(app)
    began = datetime.now(UTC) - timedelta(seconds=1)

    # given events that were published, and no worker yet, then they wait
    await publish(app, "good", "slow", "never")
    waiting = [SubscriptionStatus("payments", "waiting"), SubscriptionStatus("shipping", "waiting")]
    assert await statuses.of("good", "order.created") == waiting
    assert await statuses.of("good", "order.unknown") == []

    async with app.worker("payments", "shipping") as running:
        # when a worker takes them, then one that is processed says when, and has its result, if there is any
        for each in await until_states(statuses, "good", "processed", "processed"):
            assert each.at is not None
            assert began < each.at < datetime.now(UTC)
        assert json.loads(await statuses.result("payments", "good") or b"") == {"paid": "good"}
        assert await statuses.result("shipping", "good") is None

        # even where a note of an earlier attempt came late, or never went
        note = FailureNote("good", "order.created", "dead", 1, None, "exhausted", "ValueError: old", datetime.now(UTC))
        store = await Store.open(app.settings.database_of("shipping"), "shipping")
        await store.note_failures([note])
        await store.close()
        await until_states(statuses, "good", "processed", "processed")

        # and one that is tried again says why and when; where the second attempt did it, it is processed
        _, slow = await until_states(statuses, "slow", "processed", "retrying")
        assert (slow.attempt, slow.error, slow.reason) == (1, "RuntimeError: the truck is away", "")
        assert slow.next_at is not None
        assert timedelta(minutes=59) < slow.next_at - datetime.now(UTC) <= timedelta(hours=1)

        # and one that is dead says after how many attempts, and why
        tired, refused = await until_states(statuses, "never", "dead", "dead")
        assert (tired.attempt, tired.reason, tired.error) == (2, "exhausted", "ValueError: never")
        assert (refused.attempt, refused.reason, refused.error) == (1, "rejected", "pipeline.retry.Reject: stolen")
        assert refused.next_at is None

        # and what failed and is processed is no longer noted
        async def forgotten() -> bool:
            return app.rows("payments", "SELECT event_id FROM pipeline_failure") == [("never",)]

        await until(forgotten, "the note of `slow` to go")
        assert await running.drain() == 0
    await statuses.close()


async def test_a_message_that_killed_its_worker_is_found_in_the_dead_letter_queue(app: Application) -> None:
    # given a message that was taken and given back so often that the broker made it a dead letter, past any worker
    statuses = open_statuses(app)
    await publish(app, "killer", "other")
    async with rabbit(app.vhost) as broker:
        queue = await broker.channel.get_queue("payments", ensure=False)
        while (message := await queue.get(fail=False)) is not None:
            await message.reject(requeue=message.message_id == "killer")
        await broker.until_count("payments.dlq", 2)

    # when it is asked for, then the database can't know, and only a look into the queue tells
    assert [each.state for each in await statuses.of("killer", "order.created")] == ["waiting", "waiting"]
    found, other = await statuses.of("killer", "order.created", deep=True)
    assert (found.state, found.reason) == ("dead", "delivery_limit")
    assert other.state == "waiting"
    assert [each.state for each in await statuses.of("nobody", "order.created", deep=True)] == ["waiting", "waiting"]

    # and the look takes nothing away
    async with rabbit(app.vhost) as broker:
        await broker.until_count("payments.dlq", 2)

    # when the queue is too long for a look, then it is not looked into
    async with rabbit(app.vhost) as broker:
        await broker.put("payments.dlq", *[b"{}"] * 1000)
        await broker.until_count("payments.dlq", 1002)
    assert (await statuses.of("killer", "order.created", deep=True))[0].state == "waiting"
    await statuses.close()


async def test_of_a_message_that_kills_its_worker_the_last_try_is_known(app: Application) -> None:
    # given two messages that were taken and given back so often that they have one try left; one kills its worker
    statuses = open_statuses(app)
    await publish(app, "killer", "unlucky")
    async with rabbit(app.vhost) as broker:
        queue = await broker.channel.get_queue("payments", ensure=False)
        for _ in range(3):
            taken = [await queue.get(), await queue.get()]
            for message in taken:
                await message.reject(requeue=True)
    await publish(app, "good")

    # when the broker has made the first a dead letter, and the others are processed
    async with app.worker("payments") as running, rabbit(app.vhost) as broker:
        await broker.until_count("payments.dlq", 1)
        for each in ("unlucky", "good"):
            await until_states(statuses, each, "processed", "waiting")

        # then it tells what was found out before its last try, and a look into the queue tells that this was it
        killer, _ = await statuses.of("killer", "order.created")
        assert (killer.state, killer.reason, killer.attempt) == ("retrying", "worker_died", 1)
        assert killer.error.endswith("while holding it; now it is handled alone, 4 of 4")
        killer, _ = await statuses.of("killer", "order.created", deep=True)
        assert (killer.state, killer.reason) == ("dead", "delivery_limit")

        # and nothing is kept of the one that was taken for such a message
        async def forgotten() -> bool:
            return app.rows("payments", "SELECT event_id FROM pipeline_failure") == [("killer",)]

        await until(forgotten, "the note of `unlucky` to go")
        assert await running.drain() == 0
    await statuses.close()


async def test_what_people_do_to_a_dead_letter_is_told(app: Application) -> None:
    # given an event that is dead for both
    statuses = open_statuses(app)
    async with app.worker("payments", "shipping") as running:
        await publish(app, "never")
        dead, _ = await until_states(statuses, "never", "dead", "dead")
        assert await running.drain() == 0

    # when one discards it, then it says so, and when, and why it had died
    await app.good("dlq", "discard", "shipping", "--all", "--yes")
    _, gone = await until_states(statuses, "never", "dead", "discarded")
    assert (gone.attempt, gone.reason, gone.error) == (1, "rejected", "pipeline.retry.Reject: stolen")
    assert gone.at is not None
    assert dead.at is not None
    assert dead.at < gone.at < datetime.now(UTC)

    # when the other sends it back, then it waits, is tried again, and is processed
    app.write("mended", "")
    await app.good("dlq", "redrive", "payments", "--all")
    await until_states(statuses, "never", "waiting", "discarded")
    async with app.worker("payments") as running:
        await until_states(statuses, "never", "processed", "discarded")
        assert await running.drain() == 0
    await statuses.close()


async def test_a_letter_that_was_sent_back_in_vain_is_dead_again(app: Application) -> None:
    statuses = open_statuses(app)
    async with app.worker("payments", "shipping") as running:
        await publish(app, "never")
        first, _ = await until_states(statuses, "never", "dead", "dead")
        # when it is sent back while a worker is there, which fails it at once
        await app.good("dlq", "redrive", "payments", "--all")

        async def dead_again() -> bool:
            now = (await statuses.of("never", "order.created"))[0]
            return now.state == "dead" and now.at != first.at

        await until(dead_again, "its second end to be told")
        assert await running.drain() == 0
    await statuses.close()


async def test_a_database_that_is_away_hides_no_other(app: Application) -> None:
    # given one database that is no database
    statuses = open_statuses(app)
    data = app.folder / "data"
    data.mkdir()
    (data / "shipping.db").write_text("this is no database" * 100)

    # when an event is asked for, then the other one answers
    payments, shipping = await statuses.of("x", "order.created")
    assert payments.state == "waiting"
    assert shipping.state == "unknown"
    assert "shipping.db" in shipping.error

    # and once it is there again, so does this one
    (data / "shipping.db").unlink()
    await until_states(statuses, "x", "waiting", "waiting")
    await statuses.close()


async def test_notes_wait_for_a_database_and_nothing_waits_for_them(app: Application) -> None:
    # given a worker whose database somebody else has locked for longer than it waits
    app.environ["PIPELINE_DATABASE_URL"] += "?timeout=0.2"
    statuses = open_statuses(app)
    async with app.worker("shipping") as running:
        await publish(app, "good")
        await app.until_count("shipping", 1)
        with closing(sqlite3.connect(app.folder / "data" / "shipping.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            await publish(app, "never")
            # when an event fails, then it is settled all the same
            async with rabbit(app.vhost) as broker:
                await broker.until_count("shipping.dlq", 1)
            other.execute("ROLLBACK")

        # and told of when the lock is gone
        async def dead() -> bool:
            return (await statuses.of("never", "order.created"))[1].state == "dead"

        await until(dead, "`never` to be dead")
        assert await running.drain() == 0
    await statuses.close()
