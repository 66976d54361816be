"""Guards dead letters against RabbitMQ's delivery limit. In: settings and a queue's name. Out: nothing, or an error.

Every look at a quorum queue counts as a delivery of each message. A queue whose messages may be delivered only so often
loses them after that many looks, so it must have no limit that is ever reached (`topology apply` sees to it).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import structlog

from pipeline.amqp.management import Management
from pipeline.errors import BrokerError, TopologyDrift
from pipeline.settings import Settings
from pipeline.topology.model import Policy, Queue

FEW = 1_000_000  # deliveries; a limit below may be reached by looking
DEFAULT_LIMIT = 20  # of RabbitMQ 4.0 and later; before there was none
ANSWER_DEADLINE = 3.0  # s for the management API; without an answer looking goes on

log = structlog.get_logger("pipeline.dead_letters")


async def refuse_low_limit(settings: Settings, name: str) -> None:
    """Make sure that looking at `name` costs no message. Without the management API it can't be known.

    Raises: TopologyDrift.
    """
    try:
        async with asyncio.timeout(ANSWER_DEADLINE), Management(settings) as management:
            queue = (await management.queue(name)).queue
            policies = await management.policies()
            version = str((await management.overview())["rabbitmq_version"])
    except (BrokerError, TimeoutError) as error:
        log.info("the delivery limit was not checked: the management API can't be used", reason=str(error))
        return
    limit = delivery_limit(queue, policies, version)
    if limit is not None and limit < FEW:
        raise TopologyDrift(
            f"{name} has a delivery limit of {limit}: RabbitMQ would drop dead letters after that many looks, so "
            "nothing was looked at; `pipeline topology apply` sets a policy without it (unless a higher one wins)"
        )


def delivery_limit(queue: Queue, policies: Sequence[Policy], version: str) -> int | None:
    """How often RabbitMQ `version` delivers a message of the quorum queue; None for no limit."""
    fitting = [
        policy
        for policy in policies
        if policy.apply_to in ("queues", "quorum_queues", "all") and re.search(policy.pattern, queue.name)
    ]
    winner = max(fitting, key=lambda policy: policy.priority, default=None)  # RabbitMQ applies just one
    candidates = [queue.arguments.get("x-delivery-limit"), winner.definition.get("delivery-limit") if winner else None]
    limits = [each for each in candidates if isinstance(each, int)]
    if not limits:
        return DEFAULT_LIMIT if int(version.partition(".")[0]) >= 4 else None
    return min((each for each in limits if each >= 0), default=None)  # RabbitMQ 4: -1 is none
