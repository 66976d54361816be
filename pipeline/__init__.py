"""Event pipelines on RabbitMQ: a topology file, handlers, one command line.

What a user needs, and nothing else; imported when first asked for, so that `pipeline --help` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Context": "pipeline.worker.context",
    "Event": "pipeline.event",
    "Publish": "pipeline.worker.context",
    "PipelineError": "pipeline.errors",
    "Publisher": "pipeline.amqp.publisher",
    "Reject": "pipeline.retry",
    "Result": "pipeline.worker.context",
    "Retry": "pipeline.retry",
    "Upsert": "pipeline.store.writes",
    "Worker": "pipeline.worker.registry",
    "publish": "pipeline.amqp.publisher",
}

__all__ = [
    "Context",
    "Event",
    "PipelineError",
    "Publish",
    "Publisher",
    "Reject",
    "Result",
    "Retry",
    "Upsert",
    "Worker",
    "publish",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
