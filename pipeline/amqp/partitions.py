"""Generations of partitions on the broker. In: their names. Out: which there are, whether they are empty, one less.

A generation that is switched on again must be empty: what an earlier time left in it is older than what the one between
holds, and would come after it. Of those before it only the last may hold something: no name tells which is older.
"""

from __future__ import annotations

import aiormq
from aio_pika.abc import AbstractConnection

from pipeline.amqp.declare import DECLARE_TIMEOUT, own_channel
from pipeline.amqp.management import Management
from pipeline.errors import BrokerUnavailable, ConfigurationError, ObjectMissing, TopologyDrift
from pipeline.settings import Settings
from pipeline.topology.event_log import marker_of
from pipeline.topology.model import Binding, Subscription
from pipeline.topology.partitions import generation, is_partition, is_past, partition_queues


async def older_partitions(settings: Settings, subscription: Subscription) -> list[list[str]]:
    """The queues of all other generations of this subscription that are there, by groups to be emptied in turn.

    Raises: TopologyDrift while it is catching up, for more is coming to the first of them; BrokerError.
    """
    ours = set(partition_queues(generation(subscription)))
    async with Management(settings) as management:
        names = [state.queue.name for state in await management.queues()]
    if (mark := marker_of(subscription.name)) in names:
        raise TopologyDrift(
            f"{subscription.name} is catching up, and can't be worked on in order before that has ended (queue {mark}"
            " is there until then); if nobody is at it, `pipeline topology apply` goes on with it"
        )
    others = sorted(name for name in names if name not in ours and is_partition(name, subscription.name))
    groups = ([name for name in others if is_past(name)], [name for name in others if not is_past(name)])
    return [group for group in groups if group]


async def require_switchable(switch: Binding, management: Management, connection: AbstractConnection) -> None:
    """Nothing may lie in a generation that is about to be switched on, nor in those before the one that is on.

    Raises: ConfigurationError, BrokerError.
    """
    await _require_empty(switch.destination, management, connection)
    owner = switch.source.removesuffix(".partitions")
    bound = [each.destination for each in await management.bindings() if each.source == switch.source]
    there = [state.queue.name for state in await management.queues()]
    others = {name.rpartition(".")[0] for name in there if is_partition(name, owner) and not is_past(name)}
    on = sorted(set(bound) - {switch.destination})
    # Two that are on were left by an `apply` that was killed between the two; nothing tells which is the later one.
    for each in sorted(others - {switch.destination} - set(on if len(on) == 1 else ())):
        await _require_empty(each, management, connection)


async def _require_empty(generation_name: str, management: Management, connection: AbstractConnection) -> None:
    for name in partition_queues(generation_name):
        try:
            async with own_channel(connection) as channel:
                found = await channel.queue_declare(name, passive=True, timeout=DECLARE_TIMEOUT)
            state = await management.queue(name)
        except (ObjectMissing, aiormq.ChannelNotFoundEntity):
            continue
        if not state.led:
            raise BrokerUnavailable(f"{name} has no leader now, so nobody knows what it holds; try again later")
        if messages := max(state.held, found.message_count or 0):
            raise ConfigurationError(
                f"{name} still holds {messages} message{'' if messages == 1 else 's'} of an earlier time, which could"
                " come after newer ones. Let the workers empty it and remove it (`pipeline topology apply --prune`)"
                " first"
            )


async def delete_exchange(name: str, connection: AbstractConnection) -> str:
    """Delete an exchange that nothing is bound to; the reason when it has to stay."""
    try:
        async with own_channel(connection) as channel:
            await channel.exchange_delete(name, if_unused=True, timeout=DECLARE_TIMEOUT)
    except aiormq.ChannelNotFoundEntity:
        return ""  # somebody else was faster
    except aiormq.ChannelPreconditionFailed:
        return "queues are still bound to it"
    return ""
