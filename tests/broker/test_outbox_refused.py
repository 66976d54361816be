"""Events that the broker refuses wait, in order; the relay publishes all others meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.outbox import held
from pipeline.outbox import relay as relay_module
from pipeline.store.producer import ProducerStore
from tests.support.broker import TestVhost
from tests.support.outbox import KINDS, accept, check, consumed, empty, new_events, relaying
from tests.support.publishing import publisher
from tests.support.rabbit import rabbit, settings_for
from tests.support.topologies import until

CREATED, FULL, LOST = KINDS
EVERY = [("events", "#")]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ProducerStore]:
    opened = await ProducerStore.open(f"sqlite+aiosqlite:///{tmp_path}/producer.db")
    yield opened
    await opened.close()


async def test_a_type_that_nobody_takes_waits_and_others_go_on(store: ProducerStore, vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as out:
        # given a queue for two of three types
        await seen.queue("work", bind=[("events", CREATED), ("events", FULL)])
        events = new_events(600, KINDS)
        taken = [event for event in events if event.type != LOST]
        lost = [event for event in events if event.type == LOST]
        await accept(store, events)
        async with relaying(store, out) as relay:
            # when the relay runs, then those two go out whole, and so does what comes later
            assert check(await consumed(seen, "work", {event.id for event in taken}), taken) == 0
            later = new_events(300, (CREATED,), first=1000)
            await accept(store, later)
            assert check(await consumed(seen, "work", {event.id for event in later}), later) == 0

            async def rest() -> bool:
                return [row.event_id for row in await store.waiting(1000)] == [event.id for event in lost]

            await until(rest, "just the lost ones wait")
            # and it says what is wrong
            assert list(relay.held) == [("events", LOST)]
            assert "no queue for routing key 'order.lost'" in relay.held["events", LOST]
            # and once somebody takes them, they go, in order
            await seen.queue("lost", bind=[("events", LOST)])
            await empty(store)
            assert check(await consumed(seen, "lost", {event.id for event in lost}), lost) == 0
            assert not relay.held


async def test_a_full_queue_holds_up_its_own_type_only(store: ProducerStore, vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as out:
        # given a queue that refuses more than a few messages, and one that takes all
        await seen.queue(
            "full", bind=[("events", FULL)], x_queue_type="classic", x_max_length=5, x_overflow="reject-publish"
        )
        await seen.queue("work", bind=[("events", CREATED)])
        events = new_events(200, (CREATED, FULL))
        refused = {event.id for event in events if event.type == FULL}
        others = [event for event in events if event.type == CREATED]
        await accept(store, events)
        async with relaying(store, out) as relay:
            # when the relay runs, then the others all go
            assert check(await consumed(seen, "work", {event.id for event in others}), others) == 0

            async def full_is_held() -> bool:
                return list(relay.held) == [("events", FULL)]

            await until(full_is_held, "the full queue's events wait")
            # and all of the full queue's go once somebody takes what is in it
            got: list[str] = []

            async def all_came() -> bool:
                got.extend(each.message_id or "" for each in await seen.take("full"))
                return set(got) == refused and not await store.waiting(1)

            await until(all_came, "all of the full queue's events", deadline=60)


async def test_an_exchange_that_is_not_there_holds_up_its_own_events_only(
    store: ProducerStore, vhost: TestVhost
) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as out:
        await seen.queue("work", bind=EVERY)
        # given events in the middle that go to an exchange which does not exist: the broker ends the whole channel
        before, after = new_events(40), new_events(40, first=100)
        nowhere = new_events(3, (LOST,), exchange="nowhere")
        await accept(store, [*before, *nowhere, *after])
        async with relaying(store, out) as relay:
            # when the relay runs, then all others go out in order, some maybe twice
            others = [*before, *after]
            check(await consumed(seen, "work", {event.id for event in others}, deadline=60), others)

            async def held_alone() -> bool:
                return list(relay.held) == [("nowhere", LOST)]

            await until(held_alone, "the missing exchange is found out")
            # and the three go once it is there
            await seen.queue("late", bind=[("nowhere", "#")])
            await empty(store, deadline=60)
            check(await consumed(seen, "late", {event.id for event in nowhere}), nowhere)


async def test_many_held_events_do_not_hide_those_behind_them(
    store: ProducerStore, vhost: TestVhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given more events that nobody takes than are read at a time, and a relay that often begins anew
    monkeypatch.setattr(relay_module, "BATCH", 50)
    monkeypatch.setattr("pipeline.outbox.position.SETTLED", 0.2)
    monkeypatch.setattr(held, "FIRST_TRY", 600.0)
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as out, relaying(store, out):
        await seen.queue("work", bind=[("events", CREATED)])
        await accept(store, new_events(300, (LOST,)))
        # when others come behind them, now and later, then they go out
        for first in range(5):
            events = new_events(60, (CREATED,), first=first * 100)
            await accept(store, events)
            assert check(await consumed(seen, "work", {event.id for event in events}), events) == 0
            await asyncio.sleep(0.15)  # the place from which is read moves on meanwhile
        assert len(await store.waiting(1000)) == 300
