"""Topology values → AMQP declarations. In: an open connection. Out: objects on the broker, or the broker's refusal.

A refusal closes the channel it came on, so what may be refused gets a channel of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq
from aio_pika.abc import AbstractConnection

from pipeline.errors import BrokerUnavailable, ConfigurationError
from pipeline.topology.model import Binding, Exchange, Queue
from pipeline.topology.plan import object_name

DECLARE_TIMEOUT = 30.0  # seconds; a quorum queue needs an election, and a cluster short of nodes never answers


@asynccontextmanager
async def own_channel(connection: AbstractConnection) -> AsyncIterator[aiormq.abc.AbstractChannel]:
    """A channel that is closed afterwards, also when the broker closed it first."""
    channel = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
    try:
        yield channel
    finally:
        if not channel.is_closed:
            await channel.close()


async def declare(channel: aiormq.abc.AbstractChannel, target: Exchange | Queue | Binding) -> None:
    """Declare one object; nothing happens when it is there already, just so.

    Raises: aiormq's errors (precondition failed when it is there, but different); BrokerUnavailable when the broker
    does not answer; ConfigurationError on an exchange type it does not know.
    """
    try:
        match target:
            case Exchange():
                await _declare_exchange(channel, target)
            case Queue():
                await _declare_queue(channel, target)
            case Binding():
                await _bind(channel, target)
    except TimeoutError as error:
        message = f"no answer within {DECLARE_TIMEOUT:.0f} s to declaring {object_name(target)}"
        raise BrokerUnavailable(f"{message}; is a majority of the cluster's nodes up?") from error
    except (aiormq.exceptions.ConnectionCommandInvalid, aiormq.ChannelPreconditionFailed) as error:
        if "unknown exchange type" not in str(error):  # 3.x closes the connection over it, 4.x the channel
            raise
        raise ConfigurationError(
            f"the broker refused {object_name(target)}: {error}; is the plugin that brings its type enabled?"
        ) from error


async def unbind(channel: aiormq.abc.AbstractChannel, binding: Binding) -> None:
    """Remove the binding; nothing happens when it is gone already."""
    arguments = dict(binding.arguments)
    if binding.destination_type == "exchange":
        await channel.exchange_unbind(
            binding.destination, binding.source, binding.routing_key, arguments=arguments, timeout=DECLARE_TIMEOUT
        )
    else:
        await channel.queue_unbind(
            binding.destination, binding.source, binding.routing_key, arguments=arguments, timeout=DECLARE_TIMEOUT
        )


async def _declare_exchange(channel: aiormq.abc.AbstractChannel, exchange: Exchange) -> None:
    await channel.exchange_declare(
        exchange.name,
        exchange_type=exchange.type,
        durable=exchange.durable,
        auto_delete=exchange.auto_delete,
        internal=exchange.internal,
        arguments=dict(exchange.arguments),
        timeout=DECLARE_TIMEOUT,
    )


async def _declare_queue(channel: aiormq.abc.AbstractChannel, queue: Queue) -> None:
    await channel.queue_declare(
        queue.name,
        durable=queue.durable,
        auto_delete=queue.auto_delete,
        arguments=dict(queue.arguments),
        timeout=DECLARE_TIMEOUT,
    )


async def _bind(channel: aiormq.abc.AbstractChannel, binding: Binding) -> None:
    arguments = dict(binding.arguments)
    if binding.destination_type == "exchange":
        await channel.exchange_bind(
            binding.destination, binding.source, binding.routing_key, arguments=arguments, timeout=DECLARE_TIMEOUT
        )
    else:
        await channel.queue_bind(
            binding.destination, binding.source, binding.routing_key, arguments=arguments, timeout=DECLARE_TIMEOUT
        )
