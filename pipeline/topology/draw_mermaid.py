"""A topology as a Mermaid flowchart. In: `Topology`. Out: text that GitHub, GitLab and many editors draw."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.topology.model import Topology
from pipeline.topology.picture import Lane, Picture, picture

_CLASSES = """\
classDef event fill:#e0ecff,stroke:#3b76d6,color:#12305f
classDef exchange fill:#ece6ff,stroke:#7a5bd0,color:#35206f
classDef queue fill:#dcf5ec,stroke:#1f9d76,color:#0b4a36
classDef retry fill:#fff2d6,stroke:#c98a12,color:#5f4104
classDef dead fill:#ffe3e3,stroke:#cf4747,color:#6b1717
classDef handler fill:#f1f3f6,stroke:#7b8694,color:#2a323c"""


def mermaid(topology: Topology) -> str:
    """The flowchart, left to right: events, exchanges, queues, handlers, dead letters."""
    facts = picture(topology)
    lines = ["flowchart LR", *_front(facts)]
    for index, lane in enumerate(facts.lanes):
        lines += _lane(index, lane, facts)
    return "\n".join([*lines[:1], *(f"  {line}" for line in [*lines[1:], *_CLASSES.splitlines()])]) + "\n"


def _front(facts: Picture) -> Iterator[str]:
    for index, (name, kind) in enumerate(facts.exchanges):
        yield f"x{index}[/{_label(name, kind)}/]:::exchange"
    for index, event in enumerate(facts.events):
        yield f"e{index}({_label(event.name)}):::event --> x{_exchange(event.exchange, facts)}"
    for link in facts.links:
        source, destination = _exchange(link.source, facts), _exchange(link.destination, facts)
        yield f"x{source} -->|{_label(link.routing_key or 'all')}| x{destination}"


def _lane(index: int, lane: Lane, facts: Picture) -> Iterator[str]:
    queue = f"q{index}"
    yield f"{queue}[({_label(lane.queue, lane.order if lane.subscription else lane.queue_type)})]:::queue"
    by_exchange: dict[str, list[str]] = {}
    for exchange, key in lane.keys:
        by_exchange.setdefault(exchange, []).append(key or "all")
    for exchange, keys in by_exchange.items():
        yield f"x{_exchange(exchange, facts)} -->|{_label(*keys)}| {queue}"
    if lane.subscription is None:
        return
    handler = f"h{index}"
    yield f"{queue} --> {handler}[{_label(lane.subscription.handler or 'other programs')}]:::handler"
    if lane.delays:
        attempts = f"{lane.subscription.retry.attempts} attempts"
        yield f"{handler} -. failed .-> r{index}[{_label('wait ' + ', '.join(lane.delays), attempts)}]:::retry"
        yield f"r{index} -.-> {queue}"
    if lane.dead_letters:
        yield f"{handler} -. failed for good .-> d{index}[({_label(lane.dead_letters)})]:::dead"


def _exchange(name: str, facts: Picture) -> int:
    return [exchange for exchange, _ in facts.exchanges].index(name)


def _label(*parts: str) -> str:
    """A quoted label; what Mermaid or HTML would read as markup is written as an entity."""
    return '"' + "<br>".join(_escaped(part) for part in parts if part) + '"'


def _escaped(text: str) -> str:
    return "".join(char if char.isalnum() or char in " ._-:,/()" else f"#{ord(char)};" for char in text)
