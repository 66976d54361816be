"""Which processes are a box's. In: a place, a box's name, /proc. Out: process ids; and their end.

No pid file is trusted, for the number may belong to anybody by now. Every process that is started carries the place's
identity and the box's name in its environment, and so do the processes it starts in turn.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

from pipeline.broker.processes import end, is_alive, wait_gone
from scripts.up.place import Place

PROC = Path("/proc")
VARIABLE = "PIPELINE_UP_BOX"
BY_ITSELF = 2.0  # s that what is left of a dead box has to notice and to end
PATIENCE = 5.0  # s after SIGTERM
DRAIN = 45.0  # s: workers finish what is in hand
PARENT = 1  # place in /proc/<pid>/stat behind the program's name, see proc(5)


def mark(place: Place, box: str) -> dict[str, str]:
    """What a box's processes carry in their environment."""
    return {VARIABLE: f"{place.identity}/{box}"}


def find(place: Place, box: str) -> list[int]:
    """The processes of a box that run, the oldest first."""
    return sorted(pid for pid, name in find_all(place).items() if name == box)


def find_all(place: Place) -> dict[int, str]:
    """All processes of the place by id, each with its box."""
    wanted = f"{VARIABLE}={place.identity}/".encode()
    found = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # it ended just now, or is another user's
            for variable in (entry / "environ").read_bytes().split(b"\0"):
                if variable.startswith(wanted) and is_alive(int(entry.name)):
                    found[int(entry.name)] = variable[len(wanted) :].decode(errors="replace")
    return found


def end_leftovers(place: Place, box: str, first: signal.Signals = signal.SIGTERM) -> None:
    """End what a box that died has left behind: most of it notices by itself."""
    left = find(place, box)
    if left and not wait_gone(left, BY_ITSELF):
        end(find(place, box), first, PATIENCE)


def end_orderly(place: Place, box: str) -> None:
    """End a box that runs without its supervisor: its first process, and what is left after that."""
    end(_roots(find(place, box)), _signal_of(box), DRAIN)
    end_leftovers(place, box)


def _roots(pids: list[int]) -> list[int]:
    """Those among the processes that none of the others started: the server itself, not its helpers."""
    return [pid for pid in pids if _parent(pid) not in pids]


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[PARENT])
    return 0


def _signal_of(box: str) -> signal.Signals:
    return signal.SIGINT if box.endswith("-db") else signal.SIGTERM  # PostgreSQL waits for its clients at SIGTERM
