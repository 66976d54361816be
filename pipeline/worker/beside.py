"""What runs beside a subscription's stages and may fail without harm. In: parts. Out: they ran while the block did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

PATIENCE = 2.0  # s for all of them to tell what is left, at the end


class Part(Protocol):
    """One thing that is told to a database or a cache, best effort."""

    async def run(self) -> None:
        """Until `end`. Never fails."""

    def end(self) -> None:
        """Finish, soon."""


@asynccontextmanager
async def beside(parts: Sequence[Part]) -> AsyncIterator[None]:
    """Run the parts during the block; at its end wait for them, not for long."""
    tasks = [asyncio.create_task(part.run(), name=type(part).__name__) for part in parts]
    try:
        yield
    finally:
        for part in parts:
            part.end()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=PATIENCE)
            for task in late:
                task.cancel()
