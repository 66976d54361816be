"""A circuit breaker. In: how calls ended. Out: whether the next one is worth its wait.

Closed, every call is tried. After some failures in a row it opens: no call is tried, but for one probe a pause. The
first success closes it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Opens after `failures` in a row; while open lets one call through every `pause` seconds."""

    def __init__(self, failures: int, pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = failures
        self._pause = pause
        self._clock = clock
        self._failures = 0
        self._probe_at = 0.0
        self._error = ""

    @property
    def is_open(self) -> bool:
        """Whether calls are held off."""
        return self._failures >= self._most

    @property
    def error(self) -> str | None:
        """Why it is open; None while it is closed."""
        return self._error if self.is_open else None

    def allows(self) -> bool:
        """Whether to make a call now. While open this is the probe, and the next one has to wait for its pause.

        A probe that never tells how it ended holds up nobody: its pause runs from here.
        """
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._probe_at:
            return False
        self._probe_at = now + self._pause
        return True

    def succeeded(self) -> None:
        """A call came back well."""
        self._failures = 0

    def failed(self, error: str) -> bool:
        """A call failed; whether it was this one that opened the breaker."""
        was_open = self.is_open
        self._failures += 1
        self._error = error
        self._probe_at = self._clock() + self._pause
        return self.is_open and not was_open
