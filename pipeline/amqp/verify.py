"""The look at the broker before a worker starts. In: topology and subscriptions. Out: nothing, or `TopologyDrift`.

With the management API everything is compared; without it AMQP alone tells of queues and exchanges, and the log says
that bindings and policies were not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import aiormq
import structlog
from aio_pika.abc import AbstractConnection

from pipeline.amqp.connection import open_connection
from pipeline.amqp.declare import declare, own_channel
from pipeline.amqp.live import live_objects
from pipeline.errors import BrokerError, ConfigurationError, TopologyDrift
from pipeline.settings import Settings
from pipeline.topology.delay import delay_queues
from pipeline.topology.expand import concerning, expand, subscription_queues
from pipeline.topology.findings import did_you_mean
from pipeline.topology.model import BrokerObjects, Exchange, Queue, Topology
from pipeline.topology.plan import Step, plan

_SAID = {"create": "is missing", "change": "differs", "drift": "is too many", "immutable": "differs for good"}

log = structlog.get_logger("pipeline.topology")


async def verify(settings: Settings, topology: Topology, subscriptions: Sequence[str]) -> None:
    """Check that everything `subscriptions` stand on is on the broker as the files say.

    Raises: TopologyDrift naming each difference and the command that mends it; ConfigurationError on an unknown
    subscription; BrokerError and its kinds when the broker can't be asked.
    """
    for name in subscriptions:
        if name not in topology.subscriptions:
            hint = did_you_mean(name, topology.subscriptions)
            raise ConfigurationError(f"the topology has no subscription {name} ({hint})")
    queues = [queue.name for name in subscriptions for queue in subscription_queues(topology.subscriptions[name])]
    if topology.delay is not None:  # their retries and follow-up events may wait there
        queues += [queue.name for queue in delay_queues(topology.delay)]
    desired = concerning(expand(topology), queues)
    try:
        actual = await live_objects(settings)
    except BrokerError as error:
        steps = await _differences_over_amqp(settings, desired)
        log.warning("bindings and policies were not checked: the management API can't be used", reason=str(error))
    else:
        steps = list(plan(desired, actual).of("create", "change", "drift", "immutable"))
    if steps:
        raise TopologyDrift(_message(subscriptions, steps))


def _message(subscriptions: Sequence[str], steps: Sequence[Step]) -> str:
    lines = [f"the broker is not as the topology files say for {', '.join(subscriptions)}:"]
    for step in steps:
        detail = f": {step.detail}" if step.detail and step.kind != "create" else ""
        lines.append(f"  {step.object} {step.name} {_SAID[step.kind]}{detail}")
    kinds = {step.kind for step in steps}
    if kinds & {"create", "change"}:
        lines.append("`pipeline topology apply` mends it")
    if "drift" in kinds:
        lines.append("`pipeline topology apply --prune` removes what is too many")
    if "immutable" in kinds:
        lines.append(
            "what differs for good needs destruction, which is never done silently: see docs/topology.md, "
            "or bring the files back to what is on the broker"
        )
    return "\n".join(lines)


async def _differences_over_amqp(settings: Settings, desired: BrokerObjects) -> list[Step]:
    """Exchanges and queues that are missing or different."""
    targets: list[Exchange | Queue] = [*desired.exchanges.values(), *desired.queues.values()]
    async with open_connection(settings, "pipeline topology verify") as connection:
        steps = [await _difference(connection, target) for target in targets]
    return [step for step in steps if step]


async def _difference(connection: AbstractConnection, target: Exchange | Queue) -> Step | None:
    try:
        async with own_channel(connection) as channel:
            if isinstance(target, Exchange):
                await channel.exchange_declare(target.name, passive=True)
            else:
                await channel.queue_declare(target.name, passive=True)
            # It is there, so declaring it in full changes nothing and has the broker compare type and arguments.
            await declare(channel, target)
    except aiormq.ChannelNotFoundEntity:
        return Step("create", target)
    except aiormq.ChannelPreconditionFailed as error:
        return Step("immutable", target, str(error))
    except aiormq.ChannelAccessRefused:
        log.warning("its arguments were not checked: the user may not declare it", name=target.name)
    return None
