"""Looking at dead letters changes nothing: not their number, not their order, not after a crash in the middle."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aio_pika
import pytest

from pipeline.amqp import dead_letter_hold, dead_letter_queue
from pipeline.amqp.dead_letter_queue import open_dead_letter_queue
from pipeline.dead_letters import DeadLetter, Selection, look_over, peek
from pipeline.errors import ConfigurationError, ObjectLocked, ObjectMissing, TopologyDrift
from pipeline.topology.model import Policy
from tests.support.broker import TestVhost
from tests.support.dead_letters import PAYMENTS, SUBSCRIPTIONS, Bench, bench, event_ids, letter, letters


@pytest.fixture
async def given(vhost: TestVhost, tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(vhost, tmp_path) as made:
        yield made


async def test_every_look_shows_the_same_and_leaves_the_queue_as_it_was(given: Bench) -> None:
    await given.declare()
    await given.put(*letters(range(300)))

    looks = [await peek(given.settings, PAYMENTS) for _ in range(3)]
    counts = await given.count("payments.dlq")

    assert [each.id for each in looks[0]] == event_ids(range(300))
    assert looks[0] == looks[1] == looks[2]
    assert counts == 300
    assert await given.ids("payments.dlq") == event_ids(range(300))


async def test_two_thousand_letters_keep_their_order_in_the_queue(given: Bench) -> None:
    await given.declare()
    # given letters that died in another order than they lie in: the queue's own order must survive as well
    lying = [number * 7 % 2000 for number in range(2000)]
    await given.put(*letters(lying))

    looks = [[each.id for each in await peek(given.settings, PAYMENTS)] for _ in range(3)]

    assert looks[0] == looks[1] == looks[2] == event_ids(range(2000))
    assert await given.ids("payments.dlq") == event_ids(lying)


async def test_the_order_survives_many_small_windows_on_several_channels(
    given: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given windows so small that one channel's consumers do not suffice
    monkeypatch.setattr(dead_letter_hold, "LARGEST_WINDOW", 10)
    monkeypatch.setattr(dead_letter_hold, "FIRST_WINDOW", 10)
    await given.declare()
    await given.put(*letters(range(605)))

    for _ in range(2):
        assert len(await peek(given.settings, PAYMENTS)) == 605

    assert await given.ids("payments.dlq") == event_ids(range(605))


async def test_a_letter_that_arrives_during_a_look_lies_behind_the_others(given: Bench) -> None:
    await given.declare()
    await given.put(*letters(range(50)))

    async with open_dead_letter_queue(given.settings, "payments.dlq") as queue, queue.hold() as hold:
        seen = [len(batch) async for batch in hold.batches(queue.count)]
        await given.put(letter(50))

    assert sum(seen) == 50
    assert await given.ids("payments.dlq") == event_ids(range(51))


async def test_a_look_killed_in_the_middle_loses_nothing(given: Bench) -> None:
    await given.declare()
    await given.put(*letters(range(400)))
    before = await peek(given.settings, PAYMENTS)
    # given a process that holds the whole queue
    holding = """
import asyncio, sys
from pipeline.amqp.dead_letter_queue import open_dead_letter_queue
from pipeline.settings import load_settings
async def hold():
    async with open_dead_letter_queue(load_settings(), "payments.dlq") as queue, queue.hold() as held:
        async for batch in held.batches(300): pass
        print("holding", flush=True)
        await asyncio.Event().wait()
asyncio.run(hold())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", holding, env=given.environ, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"holding\n"
    assert await given.count("payments.dlq") == 100

    process.send_signal(signal.SIGKILL)
    await process.wait()

    assert await peek(given.settings, PAYMENTS) == before
    assert await given.count("payments.dlq") == 400


async def test_two_looks_at_once_take_turns(given: Bench) -> None:
    await given.declare()
    await given.put(*letters(range(40)))

    both = await asyncio.gather(*[peek(given.settings, PAYMENTS) for _ in range(3)])

    assert [[each.id for each in found] for found in both] == [event_ids(range(40))] * 3


async def test_a_look_does_not_wait_for_ever_for_another(given: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_queue, "LOCK_PATIENCE", 0.2)
    await given.declare()

    async with open_dead_letter_queue(given.settings, "payments.dlq"):
        with pytest.raises(ObjectLocked, match=r"another `pipeline dlq` command is reading payments\.dlq"):
            await peek(given.settings, PAYMENTS)

    assert await peek(given.settings, PAYMENTS) == []


async def test_a_program_that_consumes_dead_letters_is_named(given: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_queue, "SETTLE_PATIENCE", 0.2)
    await given.declare()
    foreign = await given.channel.get_queue("payments.dlq")
    await foreign.consume(_keep, consumer_tag="foreign")

    with pytest.raises(ObjectLocked, match=r"1 other consumer\(s\) take messages from payments\.dlq"):
        await peek(given.settings, PAYMENTS)


async def _keep(_: object) -> None: ...


async def test_a_queue_that_would_drop_what_is_looked_at_is_left_alone(given: Bench) -> None:
    # given somebody's policy that limits deliveries and goes before ours
    await given.declare()
    await given.put(*letters(range(10)))
    given.set_policy(Policy("everything", ".*", {"delivery-limit": 3}, priority=99))

    with pytest.raises(TopologyDrift, match=r"payments\.dlq has a delivery limit of 3"):
        await peek(given.settings, PAYMENTS)

    # when the policy that `topology apply` makes counts, any number of looks costs nothing
    given.set_policy(Policy("everything", ".*", {"delivery-limit": 3}, priority=0))
    for _ in range(25):
        assert len(await peek(given.settings, PAYMENTS)) == 10
    assert await given.ids("payments.dlq") == event_ids(range(10))


async def test_without_the_management_api_looking_goes_on(given: Bench) -> None:
    await given.declare()
    await given.put(letter(1))

    assert len(await peek(replace(given.settings, management_url="http://127.0.0.1:1"), PAYMENTS)) == 1


async def test_what_is_not_there_is_said(given: Bench) -> None:
    with pytest.raises(ObjectMissing, match=r"payments\.dlq is not on the broker; `pipeline topology apply`"):
        await peek(given.settings, PAYMENTS)
    with pytest.raises(ConfigurationError, match="audit keeps no dead letters"):
        await peek(given.settings, SUBSCRIPTIONS["audit"])


async def test_a_message_that_kills_its_worker_is_explained(given: Bench) -> None:
    # given a work queue with a delivery limit of 1 and a worker that dies twice while it holds the event
    await given.declare(x_delivery_limit=1)
    await given.put(aio_pika.Message(b"{}", message_id="killer", type="order.created"), queue="payments")
    for _ in range(2):
        await _die_while_holding(given)
    await _until_there(given, "payments.dlq", 1)

    (found,) = await peek(given.settings, PAYMENTS, whole=True)

    assert (found.id, found.type, found.reason, found.error) == (
        "killer",
        "order.created",
        "delivery_limit",
        "delivery_limit",
    )
    assert "a worker died or lost its connection while holding it" in found.message
    assert found.first_failure is not None
    assert found.first_failure == found.last_failure
    assert found.routing_key == "payments"


async def _die_while_holding(given: Bench) -> None:
    taken = asyncio.Event()

    async def take(_: object) -> None:
        taken.set()

    async with await aio_pika.connect(given.vhost.amqp_url) as connection:
        channel = await connection.channel()
        await (await channel.get_queue("payments")).consume(take)
        await asyncio.wait_for(taken.wait(), 60)


async def _until_there(given: Bench, queue: str, messages: int) -> None:
    async with asyncio.timeout(10):
        while await given.count(queue) < messages:  # noqa: ASYNC110 the broker has no event for this
            await asyncio.sleep(0.02)


async def test_figures_of_a_mixed_queue(given: Bench) -> None:
    await given.declare()
    await given.put(*letters(range(5)), *letters(range(5, 8), error="app.errors.CardStolen", kind="card.stolen"))

    found = await look_over(given.settings, PAYMENTS)

    assert found.count == 8
    assert found.errors == (("ValueError", 5), ("app.errors.CardStolen", 3))
    assert found.types == (("order.created", 5), ("card.stolen", 3))
    assert str(found.oldest) == "2026-11-20 10:00:00+00:00"
    assert str(found.newest) == "2026-11-20 10:00:07+00:00"


async def test_only_the_selected_are_shown_and_whole_ones_with_everything(given: Bench) -> None:
    await given.declare()
    await given.put(*letters(range(20)))

    found = await peek(given.settings, PAYMENTS, Selection(ids=frozenset(event_ids([7]))), whole=True)

    assert [each.id for each in found] == event_ids([7])
    assert json.loads(found[0].body) == {"order_id": 7}
    assert "in take_payment" in found[0].traceback
    assert [past.attempt for past in found[0].history] == [1, 2, 3]
    assert found[0].attributes == {"source": "shop", "specversion": "1.0"}


async def test_bodies_of_a_megabyte_are_looked_at_in_small_portions(given: Bench) -> None:
    await given.declare()
    large = bytes(range(256)) * 4096
    await given.put(*letters(range(40), body=large))

    found: list[DeadLetter] = await peek(given.settings, PAYMENTS)

    assert [each.size for each in found] == [len(large)] * 40
    assert await given.ids("payments.dlq") == event_ids(range(40))
