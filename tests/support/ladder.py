"""A delay ladder without a broker: follows a message the way RabbitMQ's headers exchanges would send it.

In: the expanded topology and a message. Out: the queues it waits in, and the end of its way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.codec.delay import LADDER, set_out
from pipeline.message import Message
from pipeline.properties import decode_properties
from pipeline.topology.model import Binding, BrokerObjects


def journey(objects: BrokerObjects, message: Message) -> tuple[list[str], tuple[str, str]]:
    """The queues a message of the ladder waits in, and where it comes out: (exchange or queue, its name)."""
    assert message.exchange == LADDER
    message = set_out(message)
    headers = decode_properties(message.properties).headers
    place = message.exchange
    queues: list[str] = []
    while place in objects.exchanges and objects.exchanges[place].type == "headers":
        (binding,) = [each for each in objects.bindings if each.source == place and fits(each, headers)]
        if binding.destination_type == "queue" and binding.destination in objects.queues:
            queue = objects.queues[binding.destination]
            if queue.role != "delay":
                return queues, ("queue", queue.name)
            queues.append(queue.name)
            place = queue.arguments["x-dead-letter-exchange"]
        else:
            place = binding.destination
    return queues, ("exchange", place)


def fits(binding: Binding, headers: Mapping[str, Any]) -> bool:
    """Whether a headers exchange sends it along, as `x-match: all` says."""
    wanted = {name: value for name, value in binding.arguments.items() if not name.startswith("x-")}
    assert binding.arguments["x-match"] == "all"
    return all(name in headers and headers[name] == value for name, value in wanted.items())


def waits(objects: BrokerObjects, queues: list[str]) -> int:
    """Whole seconds of waiting in these queues, by their TTLs."""
    return sum(objects.queues[name].arguments["x-message-ttl"] // 1000 for name in queues)
