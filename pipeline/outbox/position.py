"""From where to read the outbox. In: how far was handled. Out: a `seq` to read after.

As a rule that is the beginning: what is published is gone. Rows of held routes stay, though, and may be many; reading
past all of them for every batch would take long. So while there are some, reading begins behind what was handled a
while ago. Not behind what was handled just now: on PostgreSQL a row may become visible after others with a greater
`seq`, as late as its transaction lasts.
"""

from __future__ import annotations

import time

SETTLED = 30.0  # s; a transaction that takes longer is found by the look from the beginning, every so often


class Position:
    """Where reading begins."""

    def __init__(self) -> None:
        self.back()

    def back(self) -> None:
        """Begin at the beginning."""
        self._after = self._before = self._handled = 0
        self._turned = time.monotonic()

    def reached(self, seq: int) -> None:
        """All that was read up to this one is published or held."""
        self._handled = max(self._handled, seq)

    def begin(self, held: bool) -> int:
        """Read what is after this; `held` says whether rows are left behind on purpose."""
        if not held:
            self.back()
            return 0
        if time.monotonic() - self._turned < SETTLED:
            return self._after
        self._after, self._before = self._before, self._handled
        self._turned = time.monotonic()
        return 0
