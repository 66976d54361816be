"""Handler modules → `Worker`s. In: subscriptions. Out: for each its worker and the tables it may write."""

from __future__ import annotations

import difflib
import importlib
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from pipeline.codec import Codec, Payload, from_annotation
from pipeline.errors import ConfigurationError, HandlerError
from pipeline.store.writes import is_table
from pipeline.topology.model import Subscription, Topology
from pipeline.worker.registry import Handler, Worker


@dataclass(frozen=True, slots=True)
class LoadedWorker:
    """A subscription, ready to run: its handlers and payloads by event type, and its tables."""

    subscription: Subscription
    handlers: dict[str, Handler]
    payloads: dict[str, Payload]
    tables: tuple[type[Any], ...]


def pick(topology: Topology, names: tuple[str, ...]) -> list[Subscription]:
    """The subscriptions called `names`; all that have a handler when none is named. Raises: ConfigurationError."""
    if not names:
        found = [each for each in topology.subscriptions.values() if each.handler]
        if not found:
            raise ConfigurationError("no subscription of the topology has a handler")
        return found
    chosen = []
    for name in names:
        subscription = topology.subscriptions.get(name)
        if subscription is None:
            near = difflib.get_close_matches(name, topology.subscriptions, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(topology.subscriptions) or 'none'}"
            raise ConfigurationError(f"no subscription is called {name!r}; {hint}")
        if not subscription.handler:
            raise ConfigurationError(f"subscription {name!r} has no `handler:` in the topology file")
        chosen.append(subscription)
    return chosen


def load_worker(subscription: Subscription, codec: Codec) -> LoadedWorker:
    """Import the subscription's handler module and take its worker.

    Raises: HandlerError when the module, its worker or a handler of an event is missing or broken.
    """
    module = _import(subscription)
    worker = _find(module, subscription)
    _check_coverage(worker, subscription)
    payloads = {
        event_type: codec.payload(event_type)
        if handler.data is None and event_type in subscription.events
        else from_annotation(Any if handler.data is None else handler.data)
        for event_type, handler in worker.handlers.items()
    }
    return LoadedWorker(subscription, dict(worker.handlers), payloads, _tables(module, worker))


def _import(subscription: Subscription) -> ModuleType:
    try:
        return importlib.import_module(subscription.handler)
    except ModuleNotFoundError as error:
        if error.name is not None and subscription.handler.startswith(error.name):
            raise HandlerError(
                f"handler module {subscription.handler!r} of subscription {subscription.name!r} is not found in "
                f"{Path.cwd()} or the environment"
            ) from error
        raise HandlerError(f"handler module {subscription.handler!r} needs {error.name!r}, which is missing") from error
    except HandlerError:
        raise
    except Exception as error:  # whatever a user's module may raise when imported
        raise HandlerError(
            f"handler module {subscription.handler!r} can't be imported: {type(error).__name__}: {error} "
            f"({_place(error)})"
        ) from error


def _place(error: Exception) -> str:
    """file:line where a module failed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"


def _find(module: ModuleType, subscription: Subscription) -> Worker:
    workers = [each for each in vars(module).values() if isinstance(each, Worker)]
    for worker in workers:
        if worker.subscription == subscription.name:
            return worker
    others = ", ".join(repr(worker.subscription) for worker in workers)
    raise HandlerError(
        f"module {subscription.handler!r} has no Worker({subscription.name!r})"
        + (f"; it has one for {others}" if others else "")
    )


def _check_coverage(worker: Worker, subscription: Subscription) -> None:
    missing = [event for event in subscription.events if event not in worker.handlers]
    if missing:
        raise HandlerError(
            f"subscription {subscription.name!r} receives {', '.join(map(repr, missing))}, but "
            f"{subscription.handler} has no handler for it: add @worker.handle({missing[0]!r})"
        )


def _tables(module: ModuleType, worker: Worker) -> tuple[type[Any], ...]:
    """Declared tables, those in the handlers' return annotations, and those the module names."""
    found: dict[type[Any], None] = dict.fromkeys(worker.tables)
    for handler in worker.handlers.values():
        for annotation in _leaves(handler.returns):
            if is_table(annotation):
                found[annotation] = None
    for value in vars(module).values():
        if is_table(value):
            found[value] = None
    return tuple(found)


def _leaves(annotation: Any) -> list[Any]:
    inner = get_args(annotation)
    return [leaf for each in inner for leaf in _leaves(each)] if inner else [annotation]
