"""What a user writes: a `Worker` and its handlers. In: decorated functions. Out: `Handler` values by event type."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin

from pipeline.errors import HandlerError
from pipeline.event import Event
from pipeline.worker.context import Context

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Handler:
    """One handler function and what its signature says.

    `data` is the annotation X of `Event[X]`, or None when it names none: then the topology's model counts.
    """

    function: Callable[..., Any]
    is_async: bool
    is_batch: bool
    takes_context: bool
    data: Any
    returns: Any

    @property
    def name(self) -> str:
        """Where the function is, for people."""
        return _name(self.function)


class Worker:
    """The handlers of one subscription.

    `tables` are SQLModel table classes that handlers write beside those their annotations and module name.
    """

    def __init__(self, subscription: str, tables: Sequence[type[Any]] = ()) -> None:
        self.subscription = subscription
        self.tables = tuple(tables)
        self.handlers: dict[str, Handler] = {}

    def handle(self, *event_types: str) -> Callable[[Function], Function]:
        """Make the decorated function the handler of these event types.

        It takes an `Event[...]` or, to work on many at once, a `list[Event[...]]`, and if it likes a `Context`. It may
        be async or not (then it runs in a thread). It returns None, table rows, `Upsert(row)`, an SQL statement,
        `Publish(...)`, a list of such things, or any JSON-able value; a batch handler returns a list with one of these
        for each event, in order.

        Raises: HandlerError when the signature can't be used or a type has a handler already.
        """
        if not event_types:
            raise HandlerError(
                f"worker {self.subscription!r}: handle() needs the event types, e.g. handle('order.created')"
            )

        def register(function: Function) -> Function:
            handler = inspect_handler(function)
            for event_type in event_types:
                if other := self.handlers.get(event_type):
                    raise HandlerError(
                        f"worker {self.subscription!r}: {event_type!r} is handled by {other.name} already, "
                        f"so {handler.name} can't be"
                    )
                self.handlers[event_type] = handler
            return function

        return register


def inspect_handler(function: Callable[..., Any]) -> Handler:
    """What the function's signature says. Raises: HandlerError when it can't be a handler."""
    name = _name(function)
    try:
        hints = typing.get_type_hints(_code(function))
    except (NameError, TypeError) as error:
        raise HandlerError(f"{name}: its annotations can't be read: {error}") from error
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    if not 1 <= len(parameters) <= 2 or any(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters):
        raise HandlerError(f"{name}: a handler takes an event (or a list of events) and, if it likes, a context")
    if len(parameters) == 2 and hints.get(parameters[1].name, Context) is not Context:
        raise HandlerError(f"{name}: its second argument must be a pipeline.Context")
    first = hints.get(parameters[0].name, Event)
    is_batch = get_origin(first) is list
    item = get_args(first)[0] if is_batch and get_args(first) else first
    if item is not Any and item is not Event and get_origin(item) is not Event:
        raise HandlerError(f"{name}: its first argument must be Event[...] or list[Event[...]], not {first!r}")
    data = get_args(item)[0] if get_origin(item) is Event else None
    return Handler(
        function,
        inspect.iscoroutinefunction(_code(function)),
        is_batch,
        len(parameters) == 2,
        None if isinstance(data, TypeVar) else data,
        hints.get("return"),
    )


def _code(function: Callable[..., Any]) -> Callable[..., Any]:
    """What is run when `function` is called, be it a partial or an object with `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


def _name(function: Callable[..., Any]) -> str:
    code = _code(function)
    return f"{code.__module__}.{code.__qualname__}"
