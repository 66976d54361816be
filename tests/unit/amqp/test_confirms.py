"""Confirms against a naive broker: whatever order and bulk its answers come in, every caller hears what is true."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.header import ContentHeader

from pipeline.amqp.confirms import ConfirmChannel, Receipt
from pipeline.amqp.frames import USUAL_FRAME_MAX
from pipeline.amqp.lane import Lane
from pipeline.errors import (
    BrokerError,
    BrokerUnavailable,
    Nacked,
    ProtocolViolation,
    PublishError,
    PublishInterrupted,
    Unroutable,
)
from pipeline.field_table import short_string
from pipeline.message import Message
from pipeline.properties import Properties, encode_properties

FATES = {"routed": None, "lost": Unroutable, "full": Nacked}  # what becomes of a message, by its routing key


class Wire:
    """A lane whose other end is the test: what is written is kept."""

    def __init__(self) -> None:
        self.frame_max = USUAL_FRAME_MAX
        self.written = b""
        self.lost: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self.is_lost = False

    def write(self, data: bytes) -> None:
        self.written += data


@dataclass(frozen=True)
class Published:
    """A message as a broker sees it."""

    tag: int
    message_id: str
    key: str


def as_the_broker_sees(raw: bytes, first_tag: int) -> list[Published]:
    """The messages in what was written."""
    found: list[Published] = []
    key = ""
    while raw:
        size, _, unmarshalled = pamqp.frame.unmarshal(raw)
        raw = raw[size:]
        match unmarshalled:
            case commands.Basic.Publish():
                key = unmarshalled.routing_key
            case ContentHeader():
                found.append(Published(first_tag + len(found), str(unmarshalled.properties.message_id), key))
    return found


def message(message_id: str, key: str) -> Message:
    return Message("events", key, b"{}", encode_properties(Properties(message_id=message_id)), message_id)


def send_back(channel: ConfirmChannel, each: Published) -> None:
    route = short_string("events") + short_string(each.key)
    channel.returned(312, "NO_ROUTE", route, encode_properties(Properties(message_id=each.message_id)), b"{}")


def answer(channel: ConfirmChannel, published: Sequence[Published], data: st.DataObject) -> None:
    """Confirm all as a broker may: returns in order and before their confirm; confirms in any bulk and order."""
    waiting = list(published)
    returned = 0  # of `published`: all before were sent back where they had to be
    while waiting:
        each = waiting.pop(data.draw(st.integers(0, min(len(waiting) - 1, 2))))
        for earlier in published[returned:]:
            if earlier.tag > each.tag:
                break
            if earlier.key == "lost":
                send_back(channel, earlier)
            returned += 1
        ack = each.key != "full"
        same = [other for other in waiting if other.tag < each.tag]
        multiple = all((other.key != "full") == ack for other in same) and data.draw(st.booleans())
        channel.confirmed(each.tag, multiple, ack)
        if multiple:
            waiting = [other for other in waiting if other not in same]
        channel.flush()


batches = st.lists(
    st.lists(st.tuples(st.sampled_from(["same", "a", "b"]), st.sampled_from(sorted(FATES))), max_size=6), max_size=6
)


@given(batches, st.data())
def test_every_caller_hears_what_became_of_its_own(
    given_batches: list[list[tuple[str, str]]], data: st.DataObject
) -> None:
    async def story() -> None:
        wire = Wire()
        channel = ConfirmChannel(cast(Lane, wire))
        tag = 1
        # Two rounds, so that what is remembered of the first is there in the second.
        for _ in range(2):
            receipts = [channel.publish([message(*each) for each in batch]) for batch in given_batches]
            await asyncio.sleep(0)
            published = as_the_broker_sees(wire.written, tag)
            wire.written = b""
            tag += len(published)
            assert channel.outstanding == len(published) == sum(len(batch) for batch in given_batches)

            answer(channel, published, data)

            assert channel.outstanding == 0
            for receipt, batch in zip(receipts, given_batches, strict=True):
                assert receipt.complete
                assert receipt.done.done()
                assert ends(receipt) == [FATES[key] for _, key in batch]

    asyncio.run(story())


def ends(receipt: Receipt) -> list[type[PublishError] | None]:
    return [type(receipt.errors[at]) if at in receipt.errors else None for at in range(len(receipt.messages))]


@given(st.integers(1, 6), st.integers(0, 6), st.booleans())
def test_what_is_open_when_the_connection_goes_is_reported(count: int, acked: int, multiple: bool) -> None:
    async def story() -> None:
        wire = Wire()
        channel = ConfirmChannel(cast(Lane, wire))
        wire.lost.add_done_callback(channel._lane_lost)  # noqa: SLF001 - what `open` does
        receipt = channel.publish([message(str(number), "routed") for number in range(count)])
        if 0 < acked <= count:
            channel.confirmed(acked, multiple, True)

        wire.is_lost = True
        wire.lost.set_result(BrokerUnavailable("gone"))
        async with asyncio.timeout(5):
            await receipt.done
            await asyncio.sleep(0)  # done already if all were confirmed

        told = set() if acked > count else set(range(1, acked + 1)) if multiple else {acked}
        assert ends(receipt) == [None if tag in told else PublishInterrupted for tag in range(1, count + 1)]
        with pytest.raises(BrokerUnavailable):
            channel.publish([message("late", "routed")])
        await channel.room(1)

    asyncio.run(story())


async def test_a_confirm_for_what_was_never_published_changes_nothing() -> None:
    channel = ConfirmChannel(cast(Lane, Wire()))
    channel.confirmed(2**63, True, True)
    receipt = channel.publish([message("a", "routed")])

    channel.confirmed(7, False, True)
    assert not receipt.complete
    channel.confirmed(1, False, True)

    assert ends(receipt) == [None]


async def test_a_return_of_what_was_never_published_is_not_passed_over() -> None:
    channel = ConfirmChannel(cast(Lane, Wire()))
    channel.publish([message("a", "lost")])

    with pytest.raises(ProtocolViolation, match="not published here"):
        send_back(channel, Published(1, "b", "lost"))


async def test_a_window_that_is_full_makes_room_when_confirms_come() -> None:
    channel = ConfirmChannel(cast(Lane, Wire()))
    channel.publish([message(str(number), "routed") for number in range(10)])
    waiting = [asyncio.create_task(channel.room(10)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)

    channel.confirmed(1, False, True)
    channel.flush()

    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
