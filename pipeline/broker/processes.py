"""The processes of one node. In: /proc. Out: process ids, and signals to them.

A pid file goes stale: the number may belong to anybody by now. So none is trusted. A process is the node's
when its environment carries the node's name *and* its working directory is the node's folder. The kernel
follows that directory when the checkout is moved, and a copy of the checkout is another directory, so neither
is mistaken.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

PROC = Path("/proc")
SERVER = "beam.smp"  # the Erlang machine; beside it run its helpers, and before it the start script
PORT_MAPPER = "epmd"
POLL = 0.02  # s
STATE, THREADS = 0, 17  # places in /proc/<pid>/stat behind the program's name, see proc(5)


def find(nodename: str, folder: Path) -> dict[int, str]:
    """The node's running processes by id, each with its program's name."""
    mark = f"RABBITMQ_NODENAME={nodename}".encode()
    ids = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
    return {pid: program for pid in ids if (program := _program(pid, mark, folder))}


def end(pids: Sequence[int], number: signal.Signals, patience: float) -> None:
    """Signal the processes, wait until they are gone, and SIGKILL those still there after `patience` seconds."""
    _signal(pids, number)
    if not wait_gone(pids, patience):
        _signal(pids, signal.SIGKILL)
        wait_gone(pids, patience)


def wait_gone(pids: Sequence[int], patience: float) -> bool:
    """Whether all processes ended within `patience` seconds."""
    deadline = time.monotonic() + patience
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended but was not yet reaped by its parent does not."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return False
    fields = stat.rpartition(")")[2].split()
    # A killed process counts as a zombie while its last threads still end, and only then are its ports free.
    return fields[STATE] not in "ZX" or int(fields[THREADS]) > 1


def _program(pid: int, mark: bytes, folder: Path) -> str | None:
    """The program's name, None when the process is not the node's."""
    process = PROC / str(pid)
    try:
        if mark not in (process / "environ").read_bytes().split(b"\0"):
            return None
        if not (process / "cwd").samefile(folder):
            return None
        argv = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it ended just now, or is another user's
        return None
    return argv[0].rpartition(b"/")[2].decode(errors="replace") or None  # none is left of one that ended


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
