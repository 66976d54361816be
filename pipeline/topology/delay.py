"""The delay ladder: how long, in which queues, which way. In: the topology. Out: exchanges, queues, bindings; paths.

    exchange 3 ──bit true──► queue 8s ──(8 s later)──► exchange 2
        └────────bit false──────────────────────────► exchange 2 ──► ... ──► due ──► the event's own exchange

A message says for each level whether it waits there (`pipeline-delay-<level>`), so every delay is a sum of waits, each
in a queue where all wait equally long: nothing is held in memory, and no short wait stands behind a long one. The
routing key stays what it is. Reasons in docs/decisions/0015-delay-ladder.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from pipeline.message import DELAY_BACK_TO, DELAY_MARK, DELAY_PREFIX, DELAY_TO
from pipeline.topology.findings import Findings
from pipeline.topology.model import Binding, Delay, Exchange, Policy, Queue, Topology

PREFIX = "pipeline.delay"
DUE_EXCHANGE = f"{PREFIX}.due"
# What nobody takes when it is due. In the ladder it would hold up the others: RabbitMQ has 32 dead letters of a queue
# on their way at once, and tries those that it can't hand on again only after three minutes.
UNDELIVERABLE = f"{PREFIX}.undeliverable"
# Subscriptions' policies are pipeline.<name>, and no name begins with an underscore.
POLICY = "pipeline._delay"
PATTERN = r"^pipeline\.delay\.([0-9]+s(\.[0-9]+)?|undeliverable)$"

DAY = 86_400  # seconds
LONGEST = 366 * DAY
DEFAULT_LONGEST = 30 * DAY
# RabbitMQ keeps a queue's TTL in 32 bits of milliseconds, 49 days: 2^22 s is the highest power of two below. Levels
# above the 22nd wait just as long as it.
TOP = 22
LEVELS = TOP + LONGEST // 2**TOP  # 29, enough for a year


def wait_of(level: int) -> int:
    """Seconds a message waits on a level."""
    return int(2 ** min(level, TOP))


def levels_of(delay: Delay) -> int:
    """How many levels the ladder has queues for."""
    longest, levels = 0, 0
    while longest < delay.longest:
        longest += wait_of(levels)
        levels += 1
    return levels


def path_of(seconds: int) -> tuple[int, ...]:
    """The levels, the first one first, whose waits sum up to just `seconds` (0 to `LONGEST`)."""
    rounds, rest = divmod(seconds, 2**TOP)
    high = [TOP + extra for extra in reversed(range(rounds))]
    return (*high, *(level for level in reversed(range(TOP)) if rest >> level & 1))


def exchange_of(level: int) -> str:
    """The exchange before a level."""
    return f"{PREFIX}.{level}"


def queue_of(level: int) -> str:
    """The queue of a level: `pipeline.delay.8s`; `pipeline.delay.4194304s.2` and so on for the equal ones."""
    return f"{PREFIX}.{wait_of(level)}s" + (f".{level - TOP + 1}" if level > TOP else "")


def header_of(level: int) -> str:
    """The header that says whether a message waits on a level."""
    return f"{DELAY_PREFIX}{level}"


def delay_exchanges() -> list[Exchange]:
    """The exchanges of all levels, whatever the longest delay: with them, what waits finds its way also after the
    longest delay was made shorter.
    """
    levels = [Exchange(exchange_of(level), "headers") for level in range(LEVELS)]
    due = Exchange(DUE_EXCHANGE, "headers", internal=True, arguments={"alternate-exchange": UNDELIVERABLE})
    return [*levels, due, Exchange(UNDELIVERABLE, "headers", internal=True)]


def delay_queues(delay: Delay) -> list[Queue]:
    """A quorum queue a level, each with the TTL of its level, and one for what nobody takes when it is due."""
    queues = []
    for level in range(levels_of(delay)):
        arguments = {
            "x-queue-type": "quorum",
            # RabbitMQ reckons in whole milliseconds: without one more, a wait could be a part of one too short.
            "x-message-ttl": wait_of(level) * 1000 + 1,
            "x-dead-letter-exchange": _next(level),  # with the message's own routing key
            # At-least-once: what can't be handed on stays here, and RabbitMQ tries again.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        queues.append(Queue(queue_of(level), arguments=arguments, role="delay"))
    return [*queues, Queue(UNDELIVERABLE, arguments={"x-queue-type": "quorum"}, role="delay")]


def delay_bindings(topology: Topology, work_queues: Collection[str]) -> list[Binding]:
    """From level to level, and from `due` to the exchanges of the events and to the work queues."""
    assert topology.delay is not None
    bindings = [_binding(UNDELIVERABLE, UNDELIVERABLE, "queue", DELAY_MARK, True)]
    for level in range(LEVELS):
        bindings.append(_binding(exchange_of(level), _next(level), "exchange", header_of(level), False))
        if level < levels_of(topology.delay):
            bindings.append(_binding(exchange_of(level), queue_of(level), "queue", header_of(level), True))
    targets = event_exchanges(topology)
    bindings += [_binding(DUE_EXCHANGE, exchange, "exchange", DELAY_TO, exchange) for exchange in targets]
    bindings += [_binding(DUE_EXCHANGE, queue, "queue", DELAY_BACK_TO, queue) for queue in work_queues]
    return bindings


def event_exchanges(topology: Topology) -> list[str]:
    """The exchanges that events are published to."""
    return list(dict.fromkeys(event.exchange for event in topology.events.values()))


def delay_policies(topology: Topology, definition: Mapping[str, Any], priority: int) -> list[Policy]:
    """Of the ladder's queues: keeps policies of the whole virtual host away, for a shorter TTL in one would make events
    early. Of the events' exchanges: what they can't route and came through the ladder, and nothing else, is kept.
    """
    policies = [Policy(POLICY, PATTERN, definition, "queues", priority)]
    if targets := event_exchanges(topology):
        pattern = f"^({'|'.join(map(re.escape, targets))})$"
        policies.append(Policy(f"{POLICY}.due", pattern, {"alternate-exchange": UNDELIVERABLE}, "exchanges", priority))
    return policies


def resolve_delay(data: Mapping[str, Any] | None, findings: Findings) -> Delay | None:
    """The declared ladder; None when there is none."""
    if data is None or findings.broken(("delay",)):
        return None
    milliseconds: int = data.get("max", DEFAULT_LONGEST * 1000)
    return Delay(-(-milliseconds // 1000))


def check_delay_names(topology: Topology, queues: Collection[str], findings: Findings) -> None:
    """Refuse exchanges and queues that are named like the ladder's own."""
    if topology.delay is None:
        return
    own = {exchange.name for exchange in delay_exchanges()}
    for exchange in own & topology.exchanges.keys():
        findings.error(("exchanges", exchange), "the delay ladder has an exchange of this name", "rename it", key=True)
    for queue in {queue.name for queue in delay_queues(topology.delay)} & set(queues):
        section = "queues" if queue in topology.queues else "subscriptions"
        findings.error((section, queue), "the delay ladder has a queue of this name", "rename it", key=True)


def _next(level: int) -> str:
    return exchange_of(level - 1) if level else DUE_EXCHANGE


def _binding(source: str, destination: str, kind: str, header: str, value: Any) -> Binding:
    return Binding(source, destination, "", kind, {"x-match": "all", header: value})
