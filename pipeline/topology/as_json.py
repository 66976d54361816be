"""A topology as JSON data. In: `Topology`. Out: what the files say once resolved, and what it becomes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pipeline.topology.expand import expand
from pipeline.topology.model import Topology


def topology_json(topology: Topology) -> dict[str, Any]:
    """Events and subscriptions with every default filled in (durations in seconds), and all broker objects."""
    objects = expand(topology)
    return {
        "files": list(topology.files),
        "events": [asdict(event) for event in topology.events.values()],
        "subscriptions": [asdict(subscription) for subscription in topology.subscriptions.values()],
        "broker": {
            "exchanges": [asdict(exchange) for exchange in objects.exchanges.values()],
            "queues": [asdict(queue) for queue in objects.queues.values()],
            "bindings": [asdict(binding) for binding in objects.bindings],
            "policies": [asdict(policy) for policy in objects.policies.values()],
        },
    }
