"""Publish what nobody took when it was due, now that somebody does. In: settings. Out: how many went, how many stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.amqp.dead_letter_queue import open_dead_letter_queue
from pipeline.delayed.looking import ladder_of
from pipeline.message import BROKER_HEADERS, DELAY_BACK_TO, DELAY_TO, Delivery, Message
from pipeline.properties import encode_properties
from pipeline.settings import Settings
from pipeline.topology.delay import UNDELIVERABLE
from pipeline.topology.model import Topology

STEP = 500  # copies that are not confirmed yet, at most


@dataclass(frozen=True, slots=True)
class Resent:
    """`sent` are on their way; `left` are still taken by nobody, `why` says so of the first."""

    sent: int
    left: int
    why: str = ""


async def resend(settings: Settings, topology: Topology) -> Resent:
    """Publish every undeliverable event again, and take out what is confirmed: interrupting loses nothing.

    Raises: NoDelayLadder, ObjectMissing, ObjectLocked, BrokerError, PublishTimeout.
    """
    ladder_of(topology)
    sent, why = 0, ""
    async with open_dead_letter_queue(settings, UNDELIVERABLE) as queue, queue.hold() as hold:
        async for batch in hold.batches(queue.count):
            for part in _parts(batch):
                errors = await queue.copy([_again(delivery) for delivery in part])
                hold.remove([delivery for index, delivery in enumerate(part) if index not in errors])
                sent += len(part) - len(errors)
                why = why or next((str(error) for error in errors.values()), "")
        return Resent(sent, queue.count - sent, why)


def _parts(batch: Sequence[Delivery]) -> list[Sequence[Delivery]]:
    return [batch[start : start + STEP] for start in range(0, len(batch), STEP)]


def _again(delivery: Delivery) -> Message:
    """As it was first published, without the marks of the ladder."""
    properties = delivery.properties
    kept = {name: value for name, value in properties.headers.items() if not name.startswith(BROKER_HEADERS)}
    back, to = properties.headers.get(DELAY_BACK_TO), properties.headers.get(DELAY_TO, "")
    encoded = encode_properties(replace(properties, headers=kept))
    route = ("", str(back)) if back is not None else (str(to), delivery.routing_key)
    return Message(*route, delivery.body, encoded, properties.message_id)
