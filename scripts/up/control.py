"""`up` and `down` from outside the supervisor. In: a place. Out: a supervisor that runs, or none.

The supervisor holds a lock for as long as it lives, so there is one a place.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from pipeline.broker.node import Node
from pipeline.broker.processes import end, is_alive
from pipeline.errors import PipelineError
from scripts.up import marks
from scripts.up.place import PROJECT, Place
from scripts.up.supervisor import OWN

START_PATIENCE = 900.0  # s: the first time, packages are downloaded
STOP_PATIENCE = 120.0  # s: workers may drain for 30
POLL = 0.1  # s
# The shell puts it in the background and ends, so that it is nobody's child.
LAUNCH = 'output=$1; shift; "$@" </dev/null >"$output" 2>&1 & echo $!'
SHOWN = 15  # lines of the log, when it could not start


class UpError(PipelineError):
    """The picture did not come up."""


class AlreadyUp(UpError):
    """Another supervisor runs here."""


@contextmanager
def only_one(place: Place) -> Iterator[None]:
    """Be the supervisor of the place for the block. Raises: AlreadyUp."""
    with (place.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however it ends
        except BlockingIOError:
            raise AlreadyUp(f"a supervisor runs already in {place.folder}") from None
        yield


def read_status(place: Place) -> dict[str, Any]:
    """What the supervisor wrote last; empty before the first time."""
    try:
        said = json.loads(place.status.read_text())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def supervisors(place: Place) -> list[int]:
    """The supervisor's process, if it runs."""
    return marks.find(place, OWN)


def up(place: Place, arguments: list[str]) -> dict[str, Any]:
    """Have everything running and ready; its status. Idempotent. Raises: UpError with the end of the log."""
    running = supervisors(place)
    pid = running[0] if running else _launch(place, arguments)
    deadline = time.monotonic() + START_PATIENCE
    while time.monotonic() < deadline:
        said = read_status(place)
        if said.get("pid") == pid and said["state"] == "ready":
            return said
        if not is_alive(pid):
            break
        time.sleep(POLL)
    raise UpError(_why(place, pid))


def _why(place: Place, pid: int) -> str:
    """What is known of a supervisor that did not bring everything up."""
    said = read_status(place)
    noise = (place.folder / "supervisor.out").read_text(errors="replace").splitlines()
    log = place.log.read_text(errors="replace").splitlines() if place.log.exists() else []
    why = str(said.get("why", "")) if said.get("pid") == pid else ""
    box = why.split(" ")[0]
    # What a box said itself, before everything else was ended.
    own = [line for line in log if line.split()[1:2] == [box]]
    return "\n".join(
        [*(own or log)[-SHOWN:], *noise[-SHOWN:], f"it did not come up: {why or 'see the log'}", f"log: {place.log}"]
    )


def down(place: Place) -> bool:
    """End everything, in order; data stays. False when nothing ran."""
    running = supervisors(place)
    end(running, signal.SIGTERM, STOP_PATIENCE)
    return sweep(place) or bool(running)


def sweep(place: Place) -> bool:
    """End what a killed supervisor left running: front to back, as it would have. False when there was nothing."""
    left = {box for box in marks.find_all(place).values() if box != OWN}
    stores = {box for box in left if box.endswith(("-db", "-cache"))}
    with ThreadPoolExecutor(max_workers=max(1, len(left))) as together:
        for stage in (left & {"haproxy"}, left - stores - {"haproxy"}, stores):
            list(together.map(lambda box: marks.end_orderly(place, box), sorted(stage)))
    return Node(place.folder).stop() or bool(left)


def _launch(place: Place, arguments: list[str]) -> int:
    """Start a supervisor that outlives us."""
    output = place.folder / "supervisor.out"
    started = subprocess.run(
        ["/bin/sh", "-c", LAUNCH, "sh", str(output), sys.executable, "-m", "scripts.up", "run", *arguments],
        cwd=PROJECT,
        env={**os.environ, **marks.mark(place, OWN)},
        stdout=subprocess.PIPE,
        check=True,
        start_new_session=True,
    )
    return int(started.stdout)
