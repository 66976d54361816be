"""Waiting for a database that does not answer. In: a call that may find it away. Out: what it returns, in the end.

That a database is away is nobody's failure: the call is made again for as long as it takes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from pipeline.errors import StoreUnavailable
from pipeline.log import get_logger

log = get_logger("store")

T = TypeVar("T")

FIRST_WAIT = 0.1  # seconds
LONGEST_WAIT = 5.0  # seconds


async def patiently(whose: str, call: Callable[[], Awaitable[T]]) -> T:
    """`call()`, again and again while the database is away; the log says `whose`, as a rule a subscription's."""
    try:
        return await call()  # as a rule it is there, and a retrying costs as much as the call
    except StoreUnavailable as error:
        log.warning("the database is away", subscription=whose, error=str(error))

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "waiting for the database",
            subscription=whose,
            attempt=state.attempt_number,
            error=str(error),
            next_in=round(state.upcoming_sleep, 2),
        )

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(StoreUnavailable),
        wait=wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
        before_sleep=say,
        reraise=True,
    )

    async def once() -> T:  # tenacity awaits only what is a coroutine function
        return await call()

    return await retrying(once)
