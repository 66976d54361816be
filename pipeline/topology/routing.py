"""Where a message goes, as RabbitMQ would route it. In: exchanges and bindings. Out: the queues that would take it.

Used to warn of events nobody takes and of queues nothing reaches; headers and plugin exchanges are assumed to match.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.topology.model import Binding, EventType, Exchange

# Every virtual host has these from the start.
BUILTIN_EXCHANGES: Mapping[str, Exchange] = {
    name: Exchange(name, kind)
    for name, kind in {
        "amq.direct": "direct",
        "amq.fanout": "fanout",
        "amq.topic": "topic",
        "amq.headers": "headers",
        "amq.match": "headers",
    }.items()
}


def topic_matches(pattern: str, key: str) -> bool:
    """Whether a topic exchange sends `key` to a binding with `pattern`: `*` is one word, `#` any number of them."""
    words = key.split(".") if key else []
    # open[i]: the first i words can be matched by the pattern's parts so far
    matched = [True, *[False] * len(words)]
    for part in pattern.split(".") if pattern else []:
        if part == "#":
            first = matched.index(True) if True in matched else len(matched)
            matched = [index >= first for index in range(len(matched))]
        else:
            step = [before and part in ("*", word) for before, word in zip(matched, words, strict=False)]
            matched = [False, *step]
    return matched[-1]


def is_pattern(name: str) -> bool:
    """Whether `name` holds a topic wildcard as a word of its own."""
    return bool({"*", "#"} & set(name.split(".")))


def queues_reached(event: EventType, exchanges: Mapping[str, Exchange], bindings: Iterable[Binding]) -> set[str]:
    """The names of the queues that would take `event`, through exchange-to-exchange bindings too."""
    by_source: dict[str, list[Binding]] = {}
    for binding in bindings:
        by_source.setdefault(binding.source, []).append(binding)
    waiting, seen, queues = [event.exchange], {event.exchange}, set()
    while waiting:
        name = waiting.pop()
        kind = (exchanges.get(name) or BUILTIN_EXCHANGES.get(name) or Exchange(name)).type
        for binding in by_source.get(name, ()):
            if not _matches(kind, binding.routing_key, event.routing_key):
                continue
            if binding.destination_type == "queue":
                queues.add(binding.destination)
            elif binding.destination not in seen:
                seen.add(binding.destination)
                waiting.append(binding.destination)
    return queues


def _matches(exchange_type: str, binding_key: str, routing_key: str) -> bool:
    if exchange_type == "topic":
        return topic_matches(binding_key, routing_key)
    return exchange_type != "direct" or binding_key == routing_key
