"""How a benchmark talks with the programs it starts. In: one JSON argument. Out: "ready", then one line of JSON.

Only the standard library, as the peers' programs run in an environment that has nothing of ours. Times are those of
`time.monotonic()`, which all processes of a machine share.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

TALLY_FOLDER = "BENCH_TALLY"  # environment variable: where handlers of the peers keep count
_count = struct.Struct("<q")


def arguments() -> dict[str, Any]:
    """What this program is to do."""
    found: dict[str, Any] = json.loads(sys.argv[-1])
    return found


def ready() -> None:
    """Say that everything is connected, and wait for the start."""
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit("the benchmark is gone")


def report(**facts: Any) -> None:
    """Say how it went."""
    print(json.dumps(facts), flush=True)


class Clock:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._cpu = time.process_time()

    def report(self, count: int, **facts: Any) -> None:
        """Say that `count` were done by now."""
        ended = time.monotonic()
        cpu = time.process_time() - self._cpu
        report(began=self.began, ended=ended, cpu=cpu, count=count, **facts)


class Tally:
    """How many events a worker of any number of processes and threads has handled, for others to see.

    Each process counts in a file of its own, mapped into memory: it costs well under a microsecond.
    """

    def __init__(self) -> None:
        self._map: mmap.mmap | None = None
        self._number = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        """One more."""
        with self._lock:
            if self._map is None:  # not before the first event: worker processes are forked after this is made
                path = Path(os.environ[TALLY_FOLDER]) / f"{os.getpid()}.tally"
                path.write_bytes(bytes(_count.size))
                with path.open("r+b") as file:
                    self._map = mmap.mmap(file.fileno(), _count.size)
            self._number += 1
            _count.pack_into(self._map, 0, self._number)


def tallied(folder: Path) -> int:
    """The sum over all processes."""
    total = 0
    for path in folder.glob("*.tally"):
        data = path.read_bytes()
        if len(data) == _count.size:  # else it is being made
            total += _count.unpack(data)[0]
    return total
