"""The processes of one node. In: /proc. Out: process ids, and signals to them.

A pid file goes stale: the number may belong to anybody by now. So none is trusted. A process is the node's when its
environment carries the node's name *and* its working directory is the node's folder. The kernel follows that
directory when the checkout is moved, and a copy of the checkout is another directory, so neither is mistaken.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

PROC = Path("/proc")
SERVER = "beam.smp"  # the Erlang virtual machine
PORT_MAPPER = "epmd"
POLL = 0.02  # s


def find(program: str, nodename: str, folder: Path) -> list[int]:
    """Ids of the running processes of `program` that belong to the node in `folder`, oldest first."""
    mark = f"RABBITMQ_NODENAME={nodename}".encode()
    ids = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
    return sorted(pid for pid in ids if _belongs(pid, program, mark, folder))


def end(pids: Sequence[int], first: signal.Signals, patience: float) -> None:
    """Signal the processes, wait until they are gone, and SIGKILL those still there after `patience` seconds."""
    _signal(pids, first)
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
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _belongs(pid: int, program: str, mark: bytes, folder: Path) -> bool:
    process = PROC / str(pid)
    try:
        argv = (process / "cmdline").read_bytes().split(b"\0")
        return (
            argv[0].rpartition(b"/")[2] == program.encode()
            and mark in (process / "environ").read_bytes().split(b"\0")
            and os.path.samefile(process / "cwd", folder)
        )
    except OSError:  # it ended just now, or is another user's
        return False


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
