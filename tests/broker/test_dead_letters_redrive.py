"""Dead letters go back to their work queue: exactly the chosen, whole, once, and none is lost on the way."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import aio_pika
import pytest

from pipeline import message
from pipeline.amqp import dead_letter_queue
from pipeline.dead_letters import EVERYTHING, Progress, Selection, peek, redrive
from pipeline.errors import (
    BrokerUnavailable,
    ConfigurationError,
    Nacked,
    ObjectMissing,
    PublishInterrupted,
    PublishTimeout,
)
from pipeline.properties import Properties
from tests.support.broker import TestVhost
from tests.support.dead_letters import PAYMENTS, SUBSCRIPTIONS, Bench, bench, event_ids, letter, letters
from tests.support.proxy import proxy_to


@pytest.fixture
async def given(vhost: TestVhost, tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(vhost, tmp_path) as made:
        yield made


async def test_exactly_the_selected_move_and_the_others_stay_in_order(given: Bench) -> None:
    await given.declare()
    await given.declare(SUBSCRIPTIONS["inventory"])
    for number in range(90):
        await given.put(letter(number, error="app.CardStolen" if number % 3 == 0 else "ValueError"))

    report = await redrive(given.settings, PAYMENTS, Selection(errors=("cardstolen",)))

    assert (report.chosen, report.done, report.left) == (30, 30, 60)
    assert await given.ids("payments") == event_ids(range(0, 90, 3))
    assert await given.ids("payments.dlq") == event_ids(number for number in range(90) if number % 3)
    assert await given.count("inventory") == 0  # neighbours on the same exchange get no second copy


async def test_the_copy_has_a_whole_retry_budget_and_its_past(given: Bench) -> None:
    await given.declare()
    await given.put(letter(1, headers={message.NOT_BEFORE: 1, "user-header": "kept", message.REDRIVES: 1}))

    await redrive(given.settings, PAYMENTS, EVERYTHING)
    (copy,) = await given.take("payments")

    headers = copy.headers
    assert (copy.message_id, copy.type, copy.content_type) == ("order-00001", "order.created", "application/json")
    assert json.loads(copy.body) == {"order_id": 1}
    assert copy.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    gone = {message.ATTEMPT, message.NOT_BEFORE, message.ERROR, message.ERROR_MESSAGE, message.TRACEBACK}
    assert not headers.keys() & (gone | {message.REASON, message.LAST_FAILURE})
    assert headers["user-header"] == "kept"
    assert headers["cloudEvents_source"] == "shop"
    assert headers[message.REDRIVES] == 2
    assert headers[message.FIRST_FAILURE] == "2026-11-20T10:00:01+00:00"
    assert (headers[message.EXCHANGE], headers[message.ROUTING_KEY]) == ("events", "order.created")
    history = json.loads(str(headers[message.HISTORY]))
    assert [entry["error"] for entry in history] == ["ValueError"] * 3 + ["redriven"]


async def test_what_the_broker_dead_lettered_comes_back_without_its_marks(given: Bench) -> None:
    # given an event that RabbitMQ itself dead-lettered, with x-death headers
    await given.declare()
    await given.put(
        aio_pika.Message(b"{}", message_id="lost", headers={"cloudEvents_source": "shop"}), queue="payments"
    )
    work = await given.channel.get_queue("payments")
    taken = await work.get()
    await taken.reject(requeue=False)
    async with asyncio.timeout(10):
        while not await given.count("payments.dlq"):  # noqa: ASYNC110 the broker has no event for this
            await asyncio.sleep(0.02)

    await redrive(given.settings, PAYMENTS, Selection(reasons=frozenset({"rejected"})))
    (copy,) = await given.take("payments")

    assert not [name for name in copy.headers if name.startswith("x-")]
    history = json.loads(str(copy.headers[message.HISTORY]))
    assert [entry["error"] for entry in history] == ["rejected", "redriven"]
    assert copy.headers[message.FIRST_FAILURE]


async def test_a_dry_run_changes_nothing(given: Bench) -> None:
    await given.declare()
    await given.put(*letters(range(30)))

    report = await redrive(given.settings, PAYMENTS, Selection(ids=frozenset(event_ids([3, 5]))), dry_run=True)

    assert (report.chosen, report.done, report.left, report.dry_run) == (2, 0, 30, True)
    assert [each.id for each in report.first] == event_ids([3, 5])
    assert await given.count("payments") == 0
    assert await given.ids("payments.dlq") == event_ids(range(30))


async def test_ids_that_are_not_there_are_named(given: Bench) -> None:
    await given.declare()
    await given.put(*letters(range(3)))

    report = await redrive(given.settings, PAYMENTS, Selection(ids=frozenset({"order-00001", "nobody"})))

    assert (report.done, report.missing) == (1, ("nobody",))


async def test_letters_of_one_id_and_without_an_id_all_move(given: Bench) -> None:
    await given.declare()
    await given.put(*letters([7] * 5))
    await given.put_raw(*[(Properties(type="order.created"), b"{}")] * 3)

    report = await redrive(given.settings, PAYMENTS, EVERYTHING)

    assert report.done == 8
    assert await given.ids("payments") == event_ids([7] * 5) + [""] * 3


async def test_the_rate_is_kept(given: Bench) -> None:
    await given.declare()
    await given.put(*letters(range(31)))
    seen: list[Progress] = []

    began = time.monotonic()
    await redrive(given.settings, PAYMENTS, EVERYTHING, rate=50, watch=seen.append)
    took = time.monotonic() - began

    assert 0.6 <= took < 3  # the first five go at once, the last wait for 0.6 s
    assert [each.done for each in seen][-1] == 31
    assert len(seen) > 5


async def test_a_slow_redrive_that_lets_go_in_between_moves_each_once(
    given: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a limit on holding that a rate of 100 a second exceeds several times
    monkeypatch.setattr("pipeline.dead_letters.redriving.HOLD_LIMIT", 0.1)
    await given.declare()
    for number in range(120):
        await given.put(letter(number, kind="order.created" if number % 2 else "order.cancelled"))

    report = await redrive(given.settings, PAYMENTS, Selection(types=frozenset({"order.created"})), rate=100)

    assert (report.chosen, report.done, report.left) == (60, 60, 60)
    assert await given.ids("payments") == event_ids(range(1, 120, 2))
    assert await given.ids("payments.dlq") == event_ids(range(0, 120, 2))


async def test_what_dies_again_meanwhile_is_not_redriven_again(given: Bench) -> None:
    # given a consumer that rejects at once whatever comes back
    await given.declare()
    await given.put(*letters(range(200)))

    async def reject(each: aio_pika.abc.AbstractIncomingMessage) -> None:
        await each.reject(requeue=False)

    work = await given.channel.get_queue("payments")
    tag = await work.consume(reject)

    report = await redrive(given.settings, PAYMENTS, EVERYTHING, rate=400)
    async with asyncio.timeout(10):
        while await given.count("payments.dlq") < 200:  # noqa: ASYNC110 the broker has no event for this
            await asyncio.sleep(0.02)
    await work.cancel(tag)

    assert (report.done, report.left) == (200, 0)
    again = await peek(given.settings, PAYMENTS)
    assert sorted(each.id for each in again) == event_ids(range(200))
    assert {each.redrives for each in again} == {1}


async def test_without_the_work_queue_nothing_moves(given: Bench) -> None:
    await given.declare()
    await given.put(*letters(range(10)))
    await given.channel.queue_delete("payments")

    with pytest.raises(ObjectMissing, match="queue payments is not on the broker; `pipeline topology apply`"):
        await redrive(given.settings, PAYMENTS, EVERYTHING)

    assert await given.ids("payments.dlq") == event_ids(range(10))


async def test_a_work_queue_deleted_in_the_middle_keeps_the_rest_where_it_is(given: Bench) -> None:
    await given.declare()
    await given.put(*letters(range(60)))
    # given somebody who deletes the work queue after the first copies are there
    gone: list[asyncio.Task[object]] = []

    def delete(progress: Progress) -> None:
        if progress.done >= 20 and not gone:
            gone.append(asyncio.ensure_future(given.channel.queue_delete("payments")))

    with pytest.raises(ObjectMissing, match="work queue payments is gone"):
        await redrive(given.settings, PAYMENTS, EVERYTHING, rate=100, watch=delete)
    await asyncio.gather(*gone)

    left = await given.ids("payments.dlq")
    assert left
    assert left == event_ids(range(60))[-len(left) :]


async def test_a_full_work_queue_keeps_the_rest_where_it_is(given: Bench) -> None:
    # given a work queue that takes a few and then refuses (reject-publish)
    await given.declare(x_max_length=10)
    await given.put(*letters(range(800)))

    with pytest.raises(Nacked, match="work queue payments takes no more"):
        await redrive(given.settings, PAYMENTS, EVERYTHING)

    there = set(await given.ids("payments"))
    left = set(await given.ids("payments.dlq"))
    assert there
    assert there | left == set(event_ids(range(800)))
    assert not there & left


async def test_a_connection_cut_in_the_middle_loses_nothing(given: Bench) -> None:
    await given.declare()
    await given.put(*letters(range(400)))

    async with proxy_to(given.vhost.amqp_url) as proxy:
        settings = replace(given.settings, amqp_url=proxy.url)
        with pytest.raises((BrokerUnavailable, PublishInterrupted)):
            await redrive(settings, PAYMENTS, EVERYTHING, rate=500, watch=_after(100, proxy.cut))

    await _each_is_somewhere(given, 400)


async def test_a_broker_that_falls_silent_in_the_middle_loses_nothing(
    given: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letter_queue, "BROKEN_OFF_PATIENCE", 0.2)
    await given.declare()
    await given.put(*letters(range(400)))

    async with proxy_to(given.vhost.amqp_url) as proxy:
        settings = replace(given.settings, amqp_url=proxy.url, publish_deadline=0.5)
        with pytest.raises(PublishTimeout, match="may or may not have arrived"):
            await redrive(settings, PAYMENTS, EVERYTHING, rate=500, watch=_after(100, proxy.stall))

    await _each_is_somewhere(given, 400)


def _after(done: int, fault: Callable[[], None]) -> Callable[[Progress], None]:
    return lambda progress: fault() if progress.done >= done else None


async def _each_is_somewhere(given: Bench, letters_in_all: int) -> None:
    left = [each.id for each in await peek(given.settings, PAYMENTS)]
    there = await given.ids("payments")
    assert set(left) | set(there) == set(event_ids(range(letters_in_all)))
    assert 100 <= len(there) < letters_in_all


async def test_a_rate_must_be_above_nothing(given: Bench) -> None:
    with pytest.raises(ConfigurationError, match="rate is 0"):
        await redrive(given.settings, PAYMENTS, EVERYTHING, rate=0)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
async def test_a_redrive_broken_off_in_the_middle_loses_nothing(given: Bench, how: signal.Signals) -> None:
    # given a real process that is in the middle of 1,500 letters
    await given.declare()
    await given.put(*letters(range(1500)))
    process = await given.start("redrive", "payments", "--all", "--rate", "1000")
    async with asyncio.timeout(20):
        while await given.count("payments") < 300:  # noqa: ASYNC110 the broker has no event for this
            await asyncio.sleep(0.01)

    process.send_signal(how)
    _, err = await asyncio.wait_for(process.communicate(), 60)

    # then each letter is in one of the queues; at most one window of them is in both
    left = [each.id for each in await peek(given.settings, PAYMENTS)]
    there = await given.ids("payments")
    assert set(left) | set(there) == set(event_ids(range(1500)))
    assert len(there) < 1500
    assert len(set(left) & set(there)) <= 500
    assert len(left) == len(set(left))
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert f"interrupted: {1500 - len(left)} dead letters of payments redriven".encode() in err
    # and a second run brings the rest
    code, out, _ = await given.command("redrive", "payments", "--all")
    assert (code, out) == (0, f"{len(left)} dead letters of payments redriven; 0 left\n")
    assert set(there) | set(await given.ids("payments")) == set(event_ids(range(1500)))
