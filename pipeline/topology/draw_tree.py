"""A topology as a tree for the terminal. In: `Topology`. Out: `Branch`es, or their text with box-drawing lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.topology.model import Subscription, Topology, duration_text
from pipeline.topology.picture import EventFact, Lane, Picture, picture


@dataclass(frozen=True, slots=True)
class Branch:
    """One line and those under it. `kind` is for colours: title, event, exchange, queue, retry or dead_letter."""

    label: str
    note: str = ""
    kind: str = ""
    children: tuple[Branch, ...] = ()


def tree(topology: Topology) -> Branch:
    """The whole topology: its events, its subscriptions, its plain queues."""
    facts = picture(topology)
    subscriptions = [lane for lane in facts.lanes if lane.subscription]
    plain = [lane for lane in facts.lanes if not lane.subscription]
    branches = [
        Branch("events", kind="title", children=tuple(_exchange(name, kind, facts) for name, kind in facts.exchanges)),
        Branch(
            "subscriptions",
            kind="title",
            children=tuple(_subscription(lane, lane.subscription) for lane in subscriptions if lane.subscription),
        ),
        Branch("plain queues", kind="title", children=tuple(_plain(lane) for lane in plain)),
        Branch(
            "plain policies",
            kind="title",
            children=tuple(
                Branch(
                    policy.name,
                    f"{policy.pattern} on {policy.apply_to}: "
                    + ", ".join(f"{key} {value}" for key, value in policy.definition.items()),
                )
                for policy in topology.policies.values()
            ),
        ),
    ]
    counted = f"{_count(len(facts.events), 'event')}, {_count(len(subscriptions), 'subscription')}"
    return Branch("topology", counted, "title", tuple(branch for branch in branches if branch.children))


def tree_text(branch: Branch) -> str:
    """The tree as plain text, one line a branch."""
    return "\n".join([_line(branch), *_lines(branch.children, "")])


def _exchange(name: str, kind: str, facts: Picture) -> Branch:
    events = [_event(event) for event in facts.events if event.exchange == name]
    links = [
        Branch(f"→ {link.destination}", link.routing_key, "exchange") for link in facts.links if link.source == name
    ]
    return Branch(name, f"{kind} exchange", "exchange", (*events, *links))


def _event(event: EventFact) -> Branch:
    return Branch(event.name, f"→ {', '.join(event.takers)}" if event.takers else "nobody takes it", "event")


def _subscription(lane: Lane, subscription: Subscription) -> Branch:
    name, retry = subscription.name, subscription.retry
    consumer = subscription.handler or "consumed by other programs"
    limits = f"prefetch {subscription.prefetch}, timeout {duration_text(subscription.timeout)}"
    children = [Branch(key, f"from {exchange}", "event") for exchange, key in lane.keys]
    if lane.order:
        then = "is parked" if subscription.on_dead == "park" else "goes on"
        children.append(Branch(lane.order, f"one event of a key after another; after a dead letter it {then}", "queue"))
    if lane.delays:
        repeats = ", the last repeats" if retry.attempts - 1 > len(retry.delays) else ""
        waits = ", ".join(duration_text(delay) for delay in retry.delays)
        where = "retried in place" if lane.order else f"{name}.retry.*"
        children.append(Branch(where, f"{retry.attempts} attempts, after {waits}{repeats}", "retry"))
    else:
        children.append(Branch("no retries", "1 attempt", "retry"))
    if lane.dead_letters:
        note = f"what failed for good, or was delivered {subscription.delivery_limit} times to workers that died"
        children.append(Branch(lane.dead_letters, note, "dead_letter"))
    else:
        children.append(Branch("no dead letters", "what failed for good is dropped", "dead_letter"))
    return Branch(name, f"{consumer}; {limits}", "queue", tuple(children))


def _plain(lane: Lane) -> Branch:
    return Branch(
        lane.queue,
        lane.queue_type,
        "queue",
        tuple(Branch(key or '""', f"from {exchange}", "event") for exchange, key in lane.keys),
    )


def _lines(branches: tuple[Branch, ...], indent: str) -> Iterator[str]:
    for index, branch in enumerate(branches):
        last = index == len(branches) - 1
        yield f"{indent}{'└─ ' if last else '├─ '}{_line(branch)}"
        yield from _lines(branch.children, f"{indent}{'   ' if last else '│  '}")


def _line(branch: Branch) -> str:
    return f"{branch.label}  {branch.note}" if branch.note else branch.label


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
