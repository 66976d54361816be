"""A connection that comes back. In: settings. Out: the lane of the moment, reopened with backoff when it was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from pipeline.amqp.lane import Lane
from pipeline.errors import BrokerError, BrokerUnavailable
from pipeline.log import get_logger
from pipeline.settings import Settings

log = get_logger("session")

FIRST_WAIT = 0.2  # seconds; each further wait is a random part of twice the bound before
LONGEST_WAIT = 5.0  # seconds


def patiently(what: str, give_up: Callable[[], bool] = lambda: False) -> AsyncRetrying:
    """Retries for ever on BrokerError with random exponential backoff, logging each time, until `give_up()`."""

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "waiting for the broker",
            what=what,
            attempt=state.attempt_number,
            error=str(error),
            next_in=round(state.upcoming_sleep, 2),
        )

    return AsyncRetrying(
        retry=retry_if_exception_type(BrokerError),
        wait=wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
        stop=lambda _: give_up(),
        before_sleep=say,
        reraise=True,
    )


class Session:
    """Shares one lane among its users; whoever asks first after a loss reopens it, the others wait for that."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self._name = name
        self._lane: Lane | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def lane(self) -> Lane:
        """The open lane; one attempt to open it if there is none.

        Raises: BrokerError (BrokerUnavailable once the session was closed), ConfigurationError.
        """
        if self._lane is not None and not self._lane.is_lost:
            return self._lane
        async with self._opening:
            if self._lane is None or self._lane.is_lost:
                if self._lane is not None:
                    await self._lane.close()
                if not self._closed:
                    self._lane = await Lane.open(self.settings, self._name)
                if self._lane is None or self._closed:
                    await self.close()  # it may have been closed while the connection was under way
                    raise BrokerUnavailable(f"{self._name} was closed")
            return self._lane

    async def lane_patiently(self) -> Lane:
        """The open lane, however long the broker takes to come back."""
        return await patiently(f"connection {self._name}", lambda: self._closed)(self.lane)

    async def close(self) -> None:
        """End the connection. Never fails."""
        self._closed = True
        if self._lane is not None:
            await self._lane.close()

    async def __aenter__(self) -> Self:
        await self.lane()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
