"""What a worker process tells its supervisor. In: a pipe. Out: whether it had begun, and whether it ended by itself.

The exit code alone does not say: a handler may end its process with any code, 0 included.
"""

from __future__ import annotations

import os
from contextlib import suppress

BEGAN = b"B"  # consuming; what ends the process from now on is no matter of configuration
ENDED = b"E"  # in order: drained, or nothing left to do
NOBODY = -1  # descriptor: no supervisor listens


def tell(descriptor: int, word: bytes) -> None:
    """Write `word` to the supervisor's pipe. Never fails: a process outlives its supervisor long enough to drain."""
    if descriptor != NOBODY:
        with suppress(OSError):
            os.write(descriptor, word)


def heard(descriptor: int) -> bytes:
    """The words in the pipe now."""
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, 64)
    except BlockingIOError:  # none, and the other end is open
        return b""
