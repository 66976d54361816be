"""The relay of the outbox: everything accepted is published, in order, whatever is refused or away meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from pipeline.amqp.publisher import Publisher
from pipeline.errors import ConfigurationError
from pipeline.outbox import relay as relay_module
from pipeline.settings import load_settings
from pipeline.store.producer import ProducerStore
from tests.support.broker import TestVhost
from tests.support.outbox import KINDS, accept, check, consumed, empty, new_events, relaying
from tests.support.postgres import Databases
from tests.support.proxy import proxy_to
from tests.support.publishing import TOPOLOGY, publisher
from tests.support.rabbit import Rabbit, rabbit, settings_for
from tests.support.topologies import until

CREATED, FULL, LOST = KINDS
EVERY = [("events", "#")]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where the outbox is; tests that use it run on both kinds of database."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield f"sqlite+aiosqlite:///{tmp_path}/producer.db?timeout=30"
        else:
            databases: Databases = request.getfixturevalue("databases")
            yield stack.enter_context(databases.database()).url


@pytest.fixture
async def on_both(url: str) -> AsyncIterator[ProducerStore]:
    opened = await ProducerStore.open(url)
    yield opened
    await opened.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "producer.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[ProducerStore]:
    """For tests in which the kind of database makes no difference."""
    opened = await ProducerStore.open(f"sqlite+aiosqlite:///{file}?timeout=0.2")
    yield opened
    await opened.close()


async def ids(seen: Rabbit, queue: str) -> list[str]:
    return [each.message_id or "" for each in await seen.take(queue)]


async def test_what_was_accepted_goes_out_in_order(on_both: ProducerStore, vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as out:
        await seen.queue("work", bind=EVERY)
        # given events of three types, half of them accepted before a relay starts, half meanwhile
        events = new_events(3000, KINDS)
        await accept(on_both, events[:1500])
        async with relaying(on_both, out) as relay:
            for first in range(1500, 3000, 100):
                await accept(on_both, events[first : first + 100])
                relay.poke()
            # when nothing waits any more
            await empty(on_both)
        # then all are in the queue, in order and each once, and it is noted
        assert check(await consumed(seen, "work", {event.id for event in events}), events) == 0
        status = await on_both.status()
        assert (status.waiting, status.oldest, status.accepted, status.published) == (0, None, 3000, 3000)
        assert relay.published == 3000
        assert relay.last_error is None
        assert not relay.active


async def test_poked_it_looks_at_once(store: ProducerStore, vhost: TestVhost, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a relay that would look again by itself only after an hour
    monkeypatch.setattr(relay_module, "POLL", 3600.0)
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as out, relaying(store, out) as relay:
        await seen.queue("work", bind=EVERY)

        async def active() -> bool:
            return relay.active

        await until(active, "the lease")
        # when it is poked after an accept, then the event goes
        await accept(store, new_events(1))
        relay.poke()
        await seen.until_count("work", 1)
        await empty(store)


async def test_what_another_process_accepted_is_found(on_both: ProducerStore, url: str, vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as out, relaying(on_both, out):
        await seen.queue("work", bind=EVERY)
        # given an idle relay, when another process accepts an event and nobody pokes, then it goes out
        other = await ProducerStore.open(url)
        await accept(other, new_events(1))
        await seen.until_count("work", 1)
        await other.close()


async def test_the_broker_goes_away_and_comes_back(store: ProducerStore, vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url) as proxy:
        await seen.queue("work", bind=EVERY)
        settings = settings_for(vhost, amqp_url=proxy.url, publish_deadline=1.0)
        async with publisher(settings) as out, relaying(store, out) as relay:
            events = new_events(2000, KINDS)
            await accept(store, events[:500])
            await empty(store)
            # given a broker whose confirms are held up and which then is gone, when events are accepted all the same
            proxy.stall(up=False)
            await accept(store, events[500:1000])

            async def sent() -> bool:
                return await seen.count("work") > 500

            await until(sent, "events the relay does not know to be there")
            proxy.refusing = True
            proxy.cut()
            await accept(store, events[1000:])

            async def noticed() -> bool:
                return relay.last_error is not None

            await until(noticed, "the broker is missed")
            assert (await store.status()).waiting > 0
            # and it comes back, then all go out, in order; those sent before it went are there twice
            proxy.resume()
            proxy.refusing = False
            await empty(store, deadline=60)
            assert check(await consumed(seen, "work", {event.id for event in events}), events) > 0


async def test_a_locked_database_is_waited_for(store: ProducerStore, file: Path, vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as out, relaying(store, out):
        await seen.queue("work", bind=EVERY)
        events = new_events(100)
        await accept(store, events[:50])
        await empty(store)
        # given events that wait in a database that somebody locks
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            await accept(store, events[50:])
            other.execute("PRAGMA busy_timeout = 30000")
            other.execute("BEGIN IMMEDIATE")
            await seen.until_count("work", 100)
            await asyncio.sleep(0.5)  # longer than the store waits for the lock
            other.execute("COMMIT")
        # when the lock is gone, then what was published is noted, and nothing was lost
        await empty(store)
        check(await consumed(seen, "work", {event.id for event in events}), events)


async def test_one_relay_at_a_time(on_both: ProducerStore, url: str, vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as out:
        await seen.queue("work", bind=EVERY)
        other = await ProducerStore.open(url)
        events = new_events(2000, KINDS)
        async with relaying(on_both, out, "one") as first:

            async def active() -> bool:
                return first.active

            await until(active, "the first relay has the lease")
            async with relaying(other, out, "two") as second:
                # given two relays, when events are accepted, then the first publishes them, each once
                for at in range(0, 1000, 100):
                    await accept(on_both, events[at : at + 100])
                    second.poke()
                await empty(on_both)
                assert (first.published, second.published, second.active) == (1000, 0, False)
                assert await on_both.holder(relay_module.LEASE) == "one"
        # and when it ends, another takes over, and the rest is published, each once
        async with relaying(other, out, "three") as third:
            await accept(on_both, events[1000:])
            await empty(on_both)
            assert third.active
        assert check(await consumed(seen, "work", {event.id for event in events}), events) == 0
        await other.close()


async def test_a_relay_whose_lease_ran_out_publishes_no_more(
    store: ProducerStore, file: Path, vhost: TestVhost
) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as out, relaying(store, out, "late") as relay:
        await seen.queue("work", bind=EVERY)

        async def is_active() -> bool:
            return relay.active

        await until(is_active, "the lease")
        # given a relay whose lease somebody else has taken while it was held up
        with closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as other:
            other.execute("UPDATE pipeline_lease SET holder = 'another', expires_at = expires_at + 3600")

        async def is_idle() -> bool:
            return not relay.active

        await until(is_idle, "the loss is noticed")
        # when an event is accepted, then it leaves it to the other
        await accept(store, new_events(1))
        relay.poke()
        await asyncio.sleep(0.5)
        assert await seen.count("work") == 0
        # and stopping does not end the other's lease
    assert await store.holder(relay_module.LEASE) == "another"


async def test_a_relay_without_a_broker_ends_when_told(store: ProducerStore, vhost: TestVhost) -> None:
    async with proxy_to(vhost.amqp_url) as proxy:
        proxy.refusing = True
        # given a broker that never answers, and an event to publish
        await accept(store, new_events(1))
        away = Publisher(TOPOLOGY, settings_for(vhost, amqp_url=proxy.url))
        async with asyncio.timeout(60), relaying(store, away) as relay:

            async def tries() -> bool:
                return relay.active

            await until(tries, "the lease")
        # then it ends when it is told to, the event waits, and the lease is free
        assert len(await store.waiting(10)) == 1
        assert await store.holder(relay_module.LEASE) is None
        await away.close()


async def test_without_any_broker_configured_it_says_so(store: ProducerStore) -> None:
    nowhere = Publisher(TOPOLOGY, load_settings({"PIPELINE_STATE_DIR": "/nowhere"}))
    await accept(store, new_events(1))
    with pytest.raises(ConfigurationError):
        async with asyncio.timeout(30):
            await relay_module.Relay(store, nowhere, "x").run(asyncio.Event())
