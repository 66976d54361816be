"""What is on the broker. In: settings. Out: `BrokerObjects` of the virtual host, over the management API."""

from __future__ import annotations

from pipeline.amqp.management import Management
from pipeline.settings import Settings
from pipeline.topology.expand import unique
from pipeline.topology.model import BrokerObjects


async def live_objects(settings: Settings) -> BrokerObjects:
    """All of the virtual host that somebody declared.

    Left out: what RabbitMQ brings along (`amq.*`, the default exchange and its bindings) and queues of one
    connection's own (exclusive, or named by the broker).

    Raises: BrokerError and its kinds.
    """
    async with Management(settings) as management:
        # One after the other: a queue that vanishes in between is missing, never half there.
        exchanges = await management.exchanges()
        states = await management.queues()
        bindings = await management.bindings()
        policies = await management.policies()
    queues = [state.queue for state in states if not state.exclusive and not state.queue.name.startswith("amq.")]
    hidden = {state.queue.name for state in states} - {queue.name for queue in queues}
    return BrokerObjects(
        {item.name: item for item in exchanges if item.name and not item.name.startswith("amq.")},
        {queue.name: queue for queue in queues},
        unique([binding for binding in bindings if binding.source and binding.destination not in hidden]),
        {policy.name: policy for policy in policies},
    )
