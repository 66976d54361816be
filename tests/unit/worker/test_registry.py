"""What a handler's signature says, and which signatures can't be used."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from pipeline import Context, Event, Worker
from pipeline.errors import HandlerError
from pipeline.worker.registry import inspect_handler
from tests.unit.worker.models import PaymentRow, PaymentTaken

T = TypeVar("T")


async def plain(event: Event[PaymentTaken]) -> PaymentRow | None: ...


async def with_context(event: Event[PaymentTaken], context: Context) -> None: ...


def sync(event: Event[dict[str, int]], context: Context) -> None: ...


async def batch(events: list[Event[PaymentTaken]]) -> list[PaymentRow] | None: ...


def sync_batch(events: list[Event[Any]], context: Context) -> None: ...


async def untyped(event, context): ...  # type: ignore[no-untyped-def]


async def bare(event: Event) -> None: ...  # type: ignore[type-arg]


async def generic(event: Event[T]) -> None: ...


async def anything(event: Any) -> None: ...


async def with_default(event: Event[int], factor: int = 2, *, more: int = 3, **rest: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "is_async", "is_batch", "takes_context", "data"),
    [
        (plain, True, False, False, PaymentTaken),
        (with_context, True, False, True, PaymentTaken),
        (sync, False, False, True, dict[str, int]),
        (batch, True, True, False, PaymentTaken),
        (sync_batch, False, True, True, Any),
        (untyped, True, False, True, None),
        (bare, True, False, False, None),
        (generic, True, False, False, None),
        (anything, True, False, False, None),
        (with_default, True, False, False, int),
    ],
)
def test_annotations_are_read_though_they_are_strings(
    function: Callable[..., Any], is_async: bool, is_batch: bool, takes_context: bool, data: Any
) -> None:
    handler = inspect_handler(function)

    assert (handler.is_async, handler.is_batch, handler.takes_context) == (is_async, is_batch, takes_context)
    assert handler.data == data


def test_the_return_annotation_is_kept_for_finding_tables() -> None:
    assert inspect_handler(plain).returns == PaymentRow | None
    assert inspect_handler(batch).returns == list[PaymentRow] | None


def nothing() -> None: ...


def three(event: Event[int], context: Context, more: int) -> None: ...


def keyword(event: Event[int], *, context: Context) -> None: ...


def not_an_event(order: PaymentTaken) -> None: ...


def not_events(orders: list[PaymentTaken]) -> None: ...


def not_a_context(event: Event[int], second: Event[int]) -> None: ...


def unknown_name(event: Event[Missing]) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (nothing, "takes an event (or a list of events) and, if it likes, a context"),
        (three, "takes an event (or a list of events) and, if it likes, a context"),
        (keyword, "takes an event (or a list of events) and, if it likes, a context"),
        (not_an_event, "its first argument must be Event[...] or list[Event[...]], not <class"),
        (not_events, "its first argument must be Event[...] or list[Event[...]], not list["),
        (not_a_context, "its second argument must be a pipeline.Context"),
        (unknown_name, "its annotations can't be read: name 'Missing' is not defined"),
    ],
)
def test_a_signature_that_can_not_be_used_is_named(function: Callable[..., Any], words: str) -> None:
    with pytest.raises(HandlerError) as caught:
        inspect_handler(function)
    assert str(caught.value).startswith(f"tests.unit.worker.test_registry.{function.__name__}: ")
    assert words in str(caught.value)


def test_a_worker_keeps_its_handlers_by_event_type() -> None:
    worker = Worker("payments")
    decorated = worker.handle("order.created", "order.changed")(plain)

    assert decorated is plain
    assert set(worker.handlers) == {"order.created", "order.changed"}


def test_an_event_type_has_one_handler() -> None:
    worker = Worker("payments")
    worker.handle("order.created")(plain)
    with pytest.raises(HandlerError, match=r"'order.created' is handled by .*plain already, so .*sync can't be"):
        worker.handle("order.created")(sync)


def test_a_handler_needs_an_event_type() -> None:
    with pytest.raises(HandlerError, match=r"handle\(\) needs the event types, e.g. handle\('order.created'\)"):
        Worker("payments").handle()


class Callee:
    """Not a function, but can be called like one."""

    async def __call__(self, event: Event[int], context: Context) -> None: ...


def test_what_is_called_like_a_function_is_as_good_as_one() -> None:
    assert inspect_handler(Callee()).is_async
    assert inspect_handler(Callee()).takes_context
    assert inspect_handler(functools.partial(with_default, factor=3)).is_async
    assert "Callee" in inspect_handler(Callee()).name
