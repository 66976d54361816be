"""Desired and actual → steps. In: two `BrokerObjects`. Out: `Plan`. Pure: nothing is asked of a broker here.

What each kind of step means:
    create      missing on the broker
    change      there, but different in what can change in place: policies, and the switch of an ordered subscription
    drift       on the broker and not in the files, where it alters what the files say: a binding too many
    immutable   there, but different in what only destruction could change; named, never done
    unmanaged   on the broker and not in the files, and harmless to what they say
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.topology.delay import PREFIX as LADDER
from pipeline.topology.event_log import OVERRIDDEN, marker_of, unfinished
from pipeline.topology.expand import POLICY_PRIORITY, binding_key
from pipeline.topology.model import Binding, BrokerObjects, CatchUp, Exchange, Policy, Queue
from pipeline.topology.partitions import former_selves, ordered_names, owner_of, superseded, with_past
from pipeline.topology.resolve import POLICY_PREFIX
from pipeline.topology.scalars import duration_ms

StepKind = Literal["create", "change", "drift", "immutable", "unmanaged"]
KINDS: tuple[StepKind, ...] = ("create", "change", "drift", "immutable", "unmanaged")
BrokerObject = Exchange | Queue | Binding | Policy | CatchUp

EXIT_NOTHING, EXIT_CHANGES, EXIT_DESTRUCTION = 0, 2, 3


@dataclass(frozen=True, slots=True)
class Step:
    """One difference. `prunable`: it was made for these files once, and `apply --prune` may remove it."""

    kind: StepKind
    target: BrokerObject  # as desired; as it is on the broker for drift and unmanaged
    detail: str = ""
    prunable: bool = False

    @property
    def object(self) -> str:
        """exchange, queue, binding or policy."""
        return type(self.target).__name__.lower()

    @property
    def name(self) -> str:
        """The object's name; of a binding `source → destination (routing key)`."""
        return object_name(self.target)


@dataclass(frozen=True, slots=True)
class Plan:
    """All differences between files and broker, those to be made first in the order they are made."""

    steps: tuple[Step, ...]

    def of(self, *kinds: StepKind) -> tuple[Step, ...]:
        """The steps of these kinds."""
        return tuple(step for step in self.steps if step.kind in kinds)

    @property
    def exit_code(self) -> int:
        """0 nothing to do, 2 changes, 3 something only destruction could change."""
        if self.of("immutable"):
            return EXIT_DESTRUCTION
        return EXIT_CHANGES if self.of("create", "change", "drift") else EXIT_NOTHING

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON data."""
        return {
            "exit_code": self.exit_code,
            "summary": {kind: len(self.of(kind)) for kind in KINDS},
            "steps": [
                {
                    "kind": step.kind,
                    "object": step.object,
                    "name": step.name,
                    "detail": step.detail,
                    "prunable": step.prunable,
                    "target": asdict(step.target),
                }
                for step in self.steps
            ],
        }


def plan(desired: BrokerObjects, actual: BrokerObjects) -> Plan:
    """What it takes to bring `actual` to `desired`.

    Creation is ordered so that nothing can arrive in a queue before its policy and its dead-letter queue are there:
    exchanges, policies, queues with the last in line first, bindings. An ordered subscription that is to catch up gets
    partitions for what it missed; they are wanted until it has caught up.
    """
    desired = with_past(desired, [each.name for each in unfinished(desired, actual)])
    steps = [
        *_exchanges(desired, actual),
        *_policies(desired, actual),
        *_queues(desired, actual),
        *_bindings(desired, actual),
        *_catch_ups(desired, actual),
        *_unmanaged(desired, actual),
    ]
    return Plan(tuple(sorted(steps, key=lambda step: KINDS.index(step.kind))))


def object_name(target: BrokerObject) -> str:
    """The name people know it by."""
    if isinstance(target, Binding):
        key = f" ({target.routing_key})" if target.routing_key else ""
        return f"{target.source} → {target.destination}{key}"
    return target.name


def _exchanges(desired: BrokerObjects, actual: BrokerObjects) -> Iterator[Step]:
    for name, exchange in desired.exchanges.items():
        there = actual.exchanges.get(name)
        if there is None:
            yield Step("create", exchange, exchange.type)
        elif differences := [
            *_fields(exchange, there, "type", "durable", "auto_delete", "internal"),
            *_arguments(exchange.arguments, there.arguments),
        ]:
            yield Step("immutable", exchange, "; ".join(differences))


OWN_ROLES = ("delay", "scheduler", "log")  # queues of the library that belong to no subscription
_ROLE_ORDER = {"plain": 0, "dead_letter": 1, "retry": 2, "work": 3}


def _queues(desired: BrokerObjects, actual: BrokerObjects) -> Iterator[Step]:
    for queue in sorted(desired.queues.values(), key=lambda queue: _ROLE_ORDER.get(queue.role, 0)):
        there = actual.queues.get(queue.name)
        if there is None:
            yield Step("create", queue, str(queue.arguments.get("x-queue-type", "classic")))
        elif differences := [
            *_fields(queue, there, "durable", "auto_delete"),
            *_arguments(_typed(queue), _typed(there, OVERRIDDEN if queue.role == "log" else ())),
        ]:
            yield Step("immutable", queue, "; ".join(differences))


def _policies(desired: BrokerObjects, actual: BrokerObjects) -> Iterator[Step]:
    for name, policy in desired.policies.items():
        there = actual.policies.get(name)
        if there is None:
            yield Step("create", policy, _definition(policy))
        elif differences := [
            *_fields(policy, there, "pattern", "apply_to", "priority"),
            *_arguments(policy.definition, there.definition),
        ]:
            yield Step("change", policy, "; ".join(differences))
    yield from _overriding(desired, actual)


def _overriding(desired: BrokerObjects, actual: BrokerObjects) -> Iterator[Step]:
    """Policies of somebody else that take a subscription's queue away from ours: RabbitMQ applies just one."""
    for other in actual.policies.values():
        if other.name in desired.policies or other.apply_to not in ("queues", "all", "quorum_queues"):
            continue
        if other.priority < POLICY_PRIORITY:
            continue
        taken = [each.name for each in desired.queues.values() if each.subscription or each.role in OWN_ROLES]
        if taken := [name for name in taken if _matches(other.pattern, name)]:
            more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
            detail = f"priority {other.priority} takes queue {taken[0]}{more} away from ours; lower it, or delete it"
            yield Step("immutable", other, detail)


def _bindings(desired: BrokerObjects, actual: BrokerObjects) -> Iterator[Step]:
    there = {binding_key(binding) for binding in actual.bindings}
    wanted = {binding_key(binding) for binding in desired.bindings}
    for binding in desired.bindings:
        if binding_key(binding) not in there:
            yield Step("create", binding)
    for binding in actual.bindings:
        managed = desired.queues if binding.destination_type == "queue" else desired.exchanges
        # What somebody else binds to our exchanges is theirs; what is bound to our queues changes what we get.
        if binding.destination in managed and binding_key(binding) not in wanted:
            if binding.source.startswith(f"{LADDER}."):  # files of before `delay:`, or after it: both get on with it
                yield Step("unmanaged", binding, "of the delay ladder")
            else:
                yield Step("drift", binding, "not in the files", prunable=True)
    for binding in superseded(desired, actual):
        yield Step("change", binding, "unbound once the new partitions are bound; workers empty the old ones first")
    for was, why in former_selves(desired, actual):
        yield Step("immutable", was, why)


def _catch_ups(desired: BrokerObjects, actual: BrokerObjects) -> Iterator[Step]:
    for each in unfinished(desired, actual):
        again = marker_of(each.name) in actual.queues
        yield Step("create", each, f"{'goes on' if again else 'catches up'} from {each.start} in {each.stream}")


def _unmanaged(desired: BrokerObjects, actual: BrokerObjects) -> Iterator[Step]:
    ordered = ordered_names(desired)
    for name, exchange in actual.exchanges.items():
        if name not in desired.exchanges:
            yield Step("unmanaged", exchange, exchange.type, prunable=bool(owner_of(name, ordered)))
    subscriptions = {queue.subscription for queue in desired.queues.values() if queue.subscription}
    marks = {marker_of(each.name) for each in desired.catch_ups}
    for name, queue in actual.queues.items():
        if name not in desired.queues and name not in marks:
            yield Step(
                "unmanaged",
                queue,
                _type(queue),
                prunable=_was_ours(name, subscriptions) or bool(owner_of(name, ordered)),
            )
    overriding = {step.name for step in _overriding(desired, actual)}
    for name, policy in actual.policies.items():
        if name not in desired.policies and name not in overriding:
            own = [f"{POLICY_PREFIX}{owner}.{role}" for owner in subscriptions for role in ("retry", "dlq")]
            yield Step("unmanaged", policy, _definition(policy), prunable=name in own)


def _was_ours(queue: str, subscriptions: set[str]) -> bool:
    """Whether a queue outside the files can only have been made for files like these."""
    if queue.startswith(f"{LADDER}."):
        return True
    owner, retry, delay = queue.rpartition(".retry.")
    if retry and owner in subscriptions and duration_ms(delay) is not None:
        return True
    return queue.endswith(".dlq") and queue.removesuffix(".dlq") in subscriptions


def _fields(desired: object, actual: object, *names: str) -> Iterator[str]:
    for name in names:
        want, have = getattr(desired, name), getattr(actual, name)
        if want != have:
            yield f"{name} {_shown(have)} → {_shown(want)}"


def _arguments(desired: Mapping[str, Any], actual: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*desired, *actual]):
        if name not in desired:
            yield f"{name} {_shown(actual[name])} → none"
        elif name not in actual:
            yield f"{name} none → {_shown(desired[name])}"
        elif desired[name] != actual[name] or isinstance(desired[name], bool) != isinstance(actual[name], bool):
            yield f"{name} {_shown(actual[name])} → {_shown(desired[name])}"


def _type(queue: Queue) -> str:
    return str(queue.arguments.get("x-queue-type", "classic"))


def _typed(queue: Queue, overridden: tuple[str, ...] = ()) -> dict[str, Any]:
    arguments = {name: value for name, value in queue.arguments.items() if name not in overridden}
    return {"x-queue-type": _type(queue), **arguments}


def _definition(policy: Policy) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in policy.definition.items())


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return '""' if value == "" else str(value)


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False  # an Erlang expression that Python can't read
