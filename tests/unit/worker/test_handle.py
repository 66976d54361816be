"""The handle stage: handlers that wait overlap, each has its time, and whatever one does is an outcome of its event."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pipeline import Context, Event, Publish, Reject, Retry
from pipeline.errors import StoreUnavailable
from pipeline.worker import handle
from tests.unit.worker.models import PaymentRow
from tests.unit.worker.works import LATE, handling, works


async def outcomes_of(function: Callable[..., Any], data: list[Any], **settings: Any) -> dict[str, str]:
    """How each event ended: "handled", or the kind of its failure."""
    async with handling(**settings) as (stage, outcomes):
        stage.add(works(function, data))
        await outcomes.all(len(data))
        assert stage.idle or outcomes.failed  # a runner may be busy still with a handler nobody waits for
    return {
        event_id: outcomes.failed[event_id].failure.kind if event_id in outcomes.failed else "handled"
        for event_id in outcomes.order
    }


# --- concurrency -------------------------------------------------------------------------------------------------


async def test_handlers_that_wait_overlap_up_to_the_concurrency() -> None:
    # Given handlers that end when ten of them wait at once, and no more than ten may
    at_once = most = 0
    all_here = asyncio.Event()

    async def wait(event: Event[int]) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 10:
            all_here.set()
        await all_here.wait()
        await asyncio.sleep(0)
        at_once -= 1

    # When a hundred events come, then all are handled, never more than ten at a time
    ended = await outcomes_of(wait, list(range(100)), concurrency=10)
    assert set(ended.values()) == {"handled"}
    assert most == 10


async def test_handlers_that_do_not_wait_need_no_task_each() -> None:
    tasks = set()

    async def quick(event: Event[int]) -> None:
        tasks.add(asyncio.current_task())

    ended = await outcomes_of(quick, list(range(500)))
    assert set(ended.values()) == {"handled"}
    assert len(tasks) == 1


async def test_one_that_waits_does_not_hold_up_the_others() -> None:
    release = asyncio.Event()

    async def sometimes(event: Event[int]) -> None:
        if event.data == 0:
            await release.wait()

    async with handling() as (stage, outcomes):
        stage.add(works(sometimes, range(200)))
        await outcomes.all(199)
        assert "e0" not in outcomes.order
        release.set()
        await outcomes.all(200)


async def test_the_event_loop_gets_its_turns() -> None:
    # Given many events whose handlers never wait
    turns = 0
    done = False

    async def quick(event: Event[int]) -> None: ...

    async def count_turns() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    async with handling() as (stage, outcomes):
        counting = asyncio.create_task(count_turns())
        stage.add(works(quick, range(1000)))
        await outcomes.all(1000)
        done = True
        await counting
    # Then others get a turn every `TURN` events at the latest
    assert turns >= 1000 // handle.TURN


async def test_works_may_come_while_others_run() -> None:
    async def short(event: Event[int]) -> None:
        await asyncio.sleep(0.001)

    async with handling(concurrency=3) as (stage, outcomes):
        for work in works(short, range(50)):
            stage.add([work])
            await asyncio.sleep(0)
        await outcomes.all(50)


# --- outcomes ----------------------------------------------------------------------------------------------------


class Odd(BaseException):
    """As the panics of extensions written in Rust: not an Exception."""


class Speechless(Exception):
    """Can't even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


ERRORS: dict[str, tuple[Callable[[], BaseException], str]] = {
    "plain": (lambda: ValueError("x"), "ValueError"),
    "reject": (lambda: Reject("x"), "pipeline.retry.Reject"),
    "retry": (lambda: Retry(after=3), "pipeline.retry.Retry"),
    "exit": (lambda: SystemExit(0), "SystemExit"),
    "interrupt": (lambda: KeyboardInterrupt(), "KeyboardInterrupt"),
    "odd": (lambda: Odd(), "tests.unit.worker.test_handle.Odd"),
    "cancelled": (lambda: asyncio.CancelledError(), "RuntimeError"),
    "stop": (lambda: StopIteration(), "RuntimeError"),
    "speechless": (lambda: Speechless(), "tests.unit.worker.test_handle.Speechless"),
    "group": (lambda: BaseExceptionGroup("g", [Odd()]), "BaseExceptionGroup"),
    "timeout": (lambda: TimeoutError(), "TimeoutError"),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_whatever_an_async_handler_raises_is_its_events_failure(name: str) -> None:
    make, kind = ERRORS[name]

    async def fail(event: Event[int]) -> None:
        if event.data == 1:
            raise make()

    assert await outcomes_of(fail, [0, 1, 2]) == {"e0": "handled", "e1": kind, "e2": "handled"}


@pytest.mark.parametrize("name", ERRORS)
async def test_whatever_a_sync_handler_raises_is_its_events_failure(name: str) -> None:
    make, kind = ERRORS[name]

    def fail(event: Event[int]) -> None:
        if event.data == 1:
            raise make()

    ended = await outcomes_of(fail, [0, 1, 2])
    assert ended["e1"] == kind
    assert ended["e0"] == ended["e2"] == "handled"


async def test_something_the_handler_awaited_was_cancelled() -> None:
    async def await_cancelled(event: Event[int]) -> None:
        task = asyncio.create_task(asyncio.sleep(LATE))
        task.cancel()
        await task

    async with handling() as (stage, outcomes):
        stage.add(works(await_cancelled, [0]))
        await outcomes.all(1)
    assert outcomes.failed["e0"].failure.message == "something the handler awaited was cancelled"


async def test_a_value_that_can_not_be_kept_is_its_events_failure() -> None:
    values = [1, object(), Publish("no.such.event", 1), [PaymentRow(order_id=1), 1]]

    async def give(event: Event[int]) -> Any:
        return values[event.data]

    assert await outcomes_of(give, [0, 1, 2, 3]) == {
        "e0": "handled",
        "e1": "pipeline.errors.InvalidPayload",
        "e2": "pipeline.errors.UnknownEventType",
        "e3": "pipeline.errors.InvalidPayload",
    }


async def test_the_context_knows_its_delivery_and_queries_the_database() -> None:
    async def query(statement: object) -> list[Any]:
        return [statement]

    async def ask(event: Event[int], context: Context) -> Any:
        assert (context.subscription, context.event_id, context.attempt) == ("payments", "e0", 2)
        context.publish("order.noted", "note")
        return await context.query("select")

    async with handling(query=query) as (stage, outcomes):
        stage.add(works(ask, [0], attempt=2))
        await outcomes.all(1)
    effects = outcomes.handled["e0"].effects
    assert effects.result == b'["select"]'
    assert len(effects.outgoing) == 1


async def test_a_database_that_is_away_is_not_the_events_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a database that is away for the first two questions
    monkeypatch.setattr(handle, "PAUSE", 0.01)
    asked = 0

    async def query(statement: object) -> list[Any]:
        nonlocal asked
        asked += 1
        if asked <= 2:
            raise StoreUnavailable("locked")
        return [asked]

    async def ask(event: Event[int], context: Context) -> Any:
        return [*await context.query("select"), context.attempt]

    # Then the event is handled again until it is there, and that is still its first attempt
    async with handling(query=query) as (stage, outcomes):
        stage.add(works(ask, [0]))
        assert not stage.idle
        await outcomes.all(1)
        assert outcomes.handled["e0"].effects.result == b"[3,1]"


# --- time --------------------------------------------------------------------------------------------------------


async def test_a_handler_over_its_time_fails_and_no_other() -> None:
    cleaned_up = []

    async def slow(event: Event[int]) -> None:
        try:
            await asyncio.sleep(LATE if event.data == 1 else 0.01)
        finally:
            cleaned_up.append(event.data)

    ended = await outcomes_of(slow, [0, 1, 2], seconds=0.4)
    assert ended == {"e0": "handled", "e2": "handled", "e1": "pipeline.retry.HandlerTimeout"}
    assert cleaned_up == [0, 2, 1]


async def test_the_time_is_that_of_one_event_not_of_its_runner() -> None:
    async def slow(event: Event[int]) -> None:
        await asyncio.sleep(0.1)

    ended = await outcomes_of(slow, list(range(7)), seconds=0.5, concurrency=1)  # 0.7 s in all
    assert set(ended.values()) == {"handled"}


async def test_a_handler_that_swallows_its_cancellation_has_failed_all_the_same() -> None:
    async def stubborn(event: Event[int]) -> str:
        try:
            await asyncio.sleep(LATE)
        except asyncio.CancelledError:
            return "as if nothing had happened"
        return ""

    async def translating(event: Event[int]) -> str:
        try:
            await asyncio.sleep(LATE)
        except asyncio.CancelledError:
            raise ValueError("it is something else") from None
        return ""

    assert await outcomes_of(stubborn, [0], seconds=0.1) == {"e0": "pipeline.retry.HandlerTimeout"}
    assert await outcomes_of(translating, [0], seconds=0.1) == {"e0": "ValueError"}


async def test_a_handler_that_can_not_be_stopped_holds_up_nobody() -> None:
    # Given one runner, and a handler that swallows every cancellation
    release, ended = asyncio.Event(), asyncio.Event()

    async def endless(event: Event[int]) -> None:
        while event.data == 0 and not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        if event.data == 0:
            asyncio.get_running_loop().call_soon(ended.set)

    # When two more events wait behind it, then it fails, they are handled, and its late end is no second outcome
    async with handling(concurrency=1, seconds=0.1) as (stage, outcomes):
        stage.add(works(endless, [0, 1, 2]))
        await outcomes.all(3)
        assert outcomes.failed["e0"].failure.kind == "pipeline.retry.HandlerTimeout"
        assert set(outcomes.handled) == {"e1", "e2"}
        release.set()
        await ended.wait()
    assert outcomes.order == ["e0", "e1", "e2"]


async def test_closing_does_not_wait_for_a_handler_that_can_not_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle, "CLOSE_PATIENCE", 0.05)
    release = asyncio.Event()

    async def endless(event: Event[int]) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with asyncio.timeout(LATE):
        async with handling() as (stage, outcomes):
            stage.add(works(endless, [0]))
            await asyncio.sleep(0)
        assert outcomes.order == []
        release.set()


# --- threads -----------------------------------------------------------------------------------------------------


async def test_sync_handlers_run_beside_the_event_loop_and_overlap() -> None:
    # Given sync handlers that end when five of them run at once
    together = threading.Barrier(5, timeout=LATE)

    def wait(event: Event[int]) -> int:
        together.wait()
        return threading.get_ident()

    async with handling() as (stage, outcomes):
        stage.add(works(wait, range(5)))
        await outcomes.all(5)
    threads = {done.effects.result for done in outcomes.handled.values()}
    assert len(threads) == 5
    assert str(threading.get_ident()).encode() not in threads


async def test_waiting_for_a_thread_is_not_time_of_the_handler() -> None:
    def slow(event: Event[int]) -> None:
        time.sleep(0.1)

    # All are given to threads at once; the last ones begin long after the timeout.
    count = 6 * handle.THREADS
    ended = await outcomes_of(slow, list(range(count)), seconds=0.4, concurrency=count)
    assert set(ended.values()) == {"handled"}


async def test_sync_handlers_that_never_return_do_not_use_up_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given two threads, and two handlers that block them
    monkeypatch.setattr(handle, "THREADS", 2)
    release = threading.Event()

    def block(event: Event[int]) -> str:
        if event.data < 2:
            release.wait(LATE)
        return "done"

    # Then they fail when their time is over, and the others are handled
    async with handling(seconds=0.2) as (stage, outcomes):
        stage.add(works(block, range(6)))
        await outcomes.all(6)
        assert set(outcomes.failed) == {"e0", "e1"}
        release.set()


async def test_a_decorated_coroutine_function_is_awaited() -> None:
    async def inner(event: Event[int]) -> str:
        await asyncio.sleep(0)
        return "awaited"

    def hidden(event: Event[int]) -> Any:
        return inner(event)

    async with handling() as (stage, outcomes):
        stage.add(works(hidden, [0]))
        await outcomes.all(1)
    assert outcomes.handled["e0"].effects.result == b'"awaited"'


# --- batches -----------------------------------------------------------------------------------------------------


async def test_a_batch_handler_gets_many_and_answers_each() -> None:
    sizes = []

    async def double(events: list[Event[int]]) -> list[int]:
        sizes.append(len(events))
        return [2 * event.data for event in events]

    async with handling() as (stage, outcomes):
        stage.add(works(double, range(1200)))
        await outcomes.all(1200)
    assert sizes == [500, 500, 200]
    assert outcomes.handled["e1199"].effects.result == b"2398"


async def test_a_batch_handler_may_return_nothing() -> None:
    def note(events: list[Event[int]], context: Context) -> None:
        assert (context.event_id, context.attempt) == ("", 1)

    assert set((await outcomes_of(note, [0, 1])).values()) == {"handled"}


async def test_a_failing_batch_finds_the_guilty() -> None:
    calls = []

    async def some_fail(events: list[Event[int]]) -> list[int]:
        calls.append([event.data for event in events])
        if any(event.data == 2 for event in events):
            raise ValueError("two")
        return [event.data for event in events]

    ended = await outcomes_of(some_fail, [0, 1, 2, 3])
    assert ended == {"e0": "handled", "e1": "handled", "e2": "ValueError", "e3": "handled"}
    assert calls == [[0, 1, 2, 3], [0], [1], [2], [3]]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ([1], "got 3 events and must return a list with one value for each, or None; it returned list"),
        ({"a": 1}, "it returned dict"),
        ("abc", "it returned str"),
    ],
)
async def test_a_batch_handler_of_wrong_length_is_told_so(answer: Any, told: str) -> None:
    async def short(events: list[Event[int]]) -> Any:
        return answer if len(events) > 1 else "wrong again"

    async with handling() as (stage, outcomes):
        stage.add(works(short, range(3)))
        await outcomes.all(3)
    assert {failed.failure.kind for failed in outcomes.failed.values()} == {"TypeError"}
    assert "must return a list with one value for each" in outcomes.failed["e0"].failure.message


async def test_one_bad_answer_of_a_batch_is_one_events_failure() -> None:
    async def answers(events: list[Event[int]]) -> list[Any]:
        return [1, object(), Publish("no.such.event", 1), Publish("order.noted", 1)]

    ended = await outcomes_of(answers, [0, 1, 2, 3])
    assert ended == {
        "e0": "handled",
        "e1": "pipeline.errors.InvalidPayload",
        "e2": "pipeline.errors.UnknownEventType",
        "e3": "handled",
    }


async def test_a_batch_waits_for_its_database_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle, "PAUSE", 0.01)
    sizes = []

    async def ask(events: list[Event[int]]) -> None:
        sizes.append(len(events))
        if len(sizes) == 1:
            raise StoreUnavailable("locked")

    assert set((await outcomes_of(ask, [0, 1, 2])).values()) == {"handled"}
    assert sizes == [3, 3]


async def test_a_process_ends_though_a_sync_handler_never_returns() -> None:
    """In a process of its own: Python must not wait for the thread at its end."""
    code = (
        "import asyncio, time\n"
        "from tests.unit.worker.works import handling, works\n"
        "from pipeline import Event\n"
        "def block(event: Event) -> None:\n    time.sleep(3600)\n"
        "async def main():\n"
        "    async with handling() as (stage, outcomes):\n"
        "        stage.add(works(block, [0]))\n"
        "        await asyncio.sleep(0.05)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    async with asyncio.timeout(LATE):
        assert await process.wait() == 0
