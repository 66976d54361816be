"""Routes held up because the broker refuses their events. In: refusals. Out: which are held, which to try again.

An event that nobody takes holds up those of its own route (exchange and routing key), so that their order stays, and
no others. A held route is tried with its first event, now and then.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.message import Message

Route: TypeAlias = tuple[str, str]  # exchange, routing key

FIRST_TRY = 0.5  # s until a held route is tried again; doubled each time
LONGEST = 15.0  # s


@dataclass(frozen=True, slots=True)
class Held:
    """Why a route is held, and when it is tried again (by the monotonic clock)."""

    error: str
    wait: float
    again: float


class HeldRoutes:
    """The routes held by one relay."""

    def __init__(self) -> None:
        self._held: dict[Route, Held] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def __contains__(self, route: Route) -> bool:
        return route in self._held

    @property
    def routes(self) -> dict[Route, str]:
        """The held ones, each with the broker's words."""
        return {route: held.error for route, held in self._held.items()}

    def hold(self, route: Route, error: str) -> None:
        """Hold the route, or longer if it is."""
        before = self._held.get(route)
        wait = FIRST_TRY if before is None else min(before.wait * 2, LONGEST)
        self._held[route] = Held(error, wait, time.monotonic() + wait)

    def let_go(self, route: Route) -> None:
        """Its events may go again."""
        self._held.pop(route, None)

    def clear(self) -> None:
        """Hold none: another relay may have published meanwhile."""
        self._held.clear()

    def due(self) -> list[Route]:
        """Those to be tried again now."""
        now = time.monotonic()
        return [route for route, held in self._held.items() if held.again <= now]


def route_of(message: Message) -> Route:
    """Where a message goes."""
    return message.exchange, message.routing_key
