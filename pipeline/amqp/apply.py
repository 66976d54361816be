"""Brings the broker to the files. In: a `Plan`. Out: what was done and what was left.

Exchanges, queues and bindings are declared over AMQP, policies put through the management API. Every step is
idempotent, so two may apply at once; the declarations of the slower one find everything there.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiormq
from aio_pika.abc import AbstractConnection

from pipeline.amqp.connection import open_connection
from pipeline.amqp.declare import DECLARE_TIMEOUT, declare, own_channel, unbind
from pipeline.amqp.management import Management
from pipeline.amqp.partitions import delete_exchange, require_switchable
from pipeline.amqp.queue_length import true_lengths
from pipeline.errors import ConfigurationError, ObjectMissing
from pipeline.settings import Settings
from pipeline.topology.model import Binding, CatchUp, Exchange, Policy, Queue
from pipeline.topology.partitions import is_switch
from pipeline.topology.plan import EXIT_CHANGES, EXIT_DESTRUCTION, EXIT_NOTHING, Plan, Step


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply_plan` did. `kept`: what was to be pruned and why it was not; `left`: what apply never does."""

    done: tuple[Step, ...]
    pruned: tuple[Step, ...]
    kept: tuple[tuple[Step, str], ...]
    left: tuple[Step, ...]

    @property
    def exit_code(self) -> int:
        """0 the broker is as the files say, 2 something is left to prune, 3 something needs destruction."""
        if any(step.kind == "immutable" for step in self.left):
            return EXIT_DESTRUCTION
        return EXIT_CHANGES if self.left or self.kept else EXIT_NOTHING

    def to_json(self) -> dict[str, Any]:
        """The same as JSON data."""

        def shown(step: Step) -> dict[str, str]:
            return {"kind": step.kind, "object": step.object, "name": step.name, "detail": step.detail}

        return {
            "exit_code": self.exit_code,
            "done": [shown(step) for step in self.done],
            "pruned": [shown(step) for step in self.pruned],
            "kept": [{**shown(step), "reason": reason} for step, reason in self.kept],
            "left": [shown(step) for step in self.left],
        }


# Brings a new subscription up to date from the event log, and makes it live by the call it is given.
CatchingUp = Callable[[CatchUp, Callable[[], Awaitable[None]]], Awaitable[None]]


async def apply_plan(
    settings: Settings, plan: Plan, prune: bool = False, catch_up: CatchingUp | None = None
) -> Applied:
    """Create what is missing and change what can change; with `prune`, remove what the plan calls prunable.

    What only destruction could change is left and named. A queue is pruned only when it is empty and nobody consumes
    it. Quorum queues know no conditional delete, so that is looked up first: stop the workers that still use a queue.
    Bindings of a subscription that is to catch up are made by `catch_up`, which a plan with such a step needs.

    Raises: BrokerError and its kinds; what was done until then stays done.
    """
    steps = plan.of("create", "change")
    leftovers = tuple(step for step in plan.of("drift", "unmanaged") if step.prunable and prune)
    left = tuple(step for step in plan.of("immutable", "drift") if step not in leftovers)
    pruned: list[Step] = []
    kept: list[tuple[Step, str]] = []
    if steps or leftovers:
        async with (
            Management(settings) as management,
            open_connection(settings, "pipeline topology apply") as connection,
        ):
            behind = {step.target.name: step.target for step in steps if isinstance(step.target, CatchUp)}
            await _make([step for step in steps if not _held_by(behind, step)], management, connection)
            for name, asked in behind.items():
                if catch_up is None:
                    raise ConfigurationError(f"{name} must catch up first: use `pipeline topology apply`")
                own = [step for step in steps if _held_by([name], step) and step.target is not asked]
                await catch_up(asked, partial(_make, own, management, connection))
            for step in sorted(leftovers, key=_prune_order):
                if reason := await _prune(step, management, connection):
                    kept.append((step, reason))
                else:
                    pruned.append(step)
    return Applied(steps, tuple(pruned), tuple(kept), left)


def _held_by(subscriptions: Collection[str], step: Step) -> bool:
    """Whether a step waits until one of these has what it missed: its catching-up, and whatever is bound to it."""
    match step.target:
        case CatchUp(name=name) | Binding(destination=name, destination_type="queue"):
            return name in subscriptions
        case Binding(source=source, destination=name):  # of an ordered one: into its entrance, and on from there
            return any(f"{each}.partitions" in (source, name) for each in subscriptions)
    return False


async def _make(steps: Sequence[Step], management: Management, connection: AbstractConnection) -> None:
    async with own_channel(connection) as channel:
        for step in steps:
            if isinstance(step.target, Policy):
                await management.put_policy(step.target)
            elif step.kind == "change" and isinstance(step.target, Binding):
                await unbind(channel, step.target)
            elif not isinstance(step.target, CatchUp):
                if isinstance(step.target, Binding) and is_switch(step.target):
                    await require_switchable(step.target, management, connection)
                await declare(channel, step.target)


def _prune_order(step: Step) -> int:
    """Bindings first, so that nothing comes any more; a queue's policy goes after its queue."""
    return {"binding": 0, "queue": 1, "policy": 2, "exchange": 3}.get(step.object, 4)


async def _prune(step: Step, management: Management, connection: AbstractConnection) -> str:
    """Remove the step's object; the reason when it has to stay."""
    match step.target:
        case Binding():
            async with own_channel(connection) as channel:
                await unbind(channel, step.target)
        case Queue(name=name):
            return await _prune_queue(name, management, connection)
        case Exchange(name=name):
            return await delete_exchange(name, connection)
        case Policy():
            return await _prune_policy(step.target, management)
    return ""


async def _prune_queue(name: str, management: Management, connection: AbstractConnection) -> str:
    try:
        # Statistics lag by seconds but know of messages that somebody holds unacked or that are being dead-lettered;
        # the passive declare knows the present.
        state = await management.queue(name)
        if not state.led:
            return "it has no leader now, so nobody knows what it holds; try again when its nodes are back"
        async with own_channel(connection) as channel:
            ready, consumers = await true_lengths(
                lambda: channel.queue_declare(name, passive=True, timeout=DECLARE_TIMEOUT), name
            )
            messages = max(state.held, ready)
            if messages:
                return f"it holds {messages} message{'' if messages == 1 else 's'}"
            if consumers:
                return f"it has {consumers} consumer{'' if consumers == 1 else 's'}"
            await channel.queue_delete(name, timeout=DECLARE_TIMEOUT)
    except (ObjectMissing, aiormq.ChannelNotFoundEntity):
        return ""  # somebody else was faster
    return ""


async def _prune_policy(policy: Policy, management: Management) -> str:
    for state in await management.queues():
        if re.search(policy.pattern, state.queue.name):
            return f"queue {state.queue.name} is still there"
    try:
        await management.delete_policy(policy.name)
    except ObjectMissing:
        return ""  # somebody else was faster
    return ""
