"""The supervisor with small real processes: who is started again and when, and what ends all of them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.worker import supervisor
from pipeline.worker.supervisor import Supervisor

LATE = 10.0  # seconds
# Each process of a test runs the same shell script, with `--status DESCRIPTOR` behind it: it says `B` once it has begun
# and `E` when it ended in order. `starts` holds a line a start: its time.
BEGIN = "printf B >/proc/self/fd/$2;"
END = "printf E >/proc/self/fd/$2; exit 0;"
NUMBER = "n=$(wc -l <starts);"  # how many have been started


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the processes run; pauses are short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.05)
    return tmp_path


def supervising(script: str, processes: int = 1, drain_deadline: float = LATE) -> Supervisor:
    """A supervisor of processes that run this script."""
    return Supervisor(["/bin/sh", "-c", f"date +%s.%N >>starts; {script}", "sh"], processes, drain_deadline)


def lines_of(path: Path) -> list[str]:
    """The lines of a file that may not be there."""
    return path.read_text().splitlines() if path.exists() else []


def starts(folder: Path) -> list[float]:
    """When processes were started, in order."""
    return sorted(float(line) for line in lines_of(folder / "starts"))


async def run(subject: Supervisor) -> int:
    """Its exit code."""
    async with asyncio.timeout(LATE):
        return await subject.run()


async def until_there(path: Path, lines: int = 1) -> None:
    """Wait for a file with so many lines."""
    async with asyncio.timeout(LATE):
        while len(lines_of(path)) < lines:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)


async def test_it_ends_when_all_have_ended_in_order(folder: Path) -> None:
    assert await run(supervising(f"{BEGIN} {END}", processes=3)) == 0
    assert len(starts(folder)) == 3


@pytest.mark.parametrize("end", ["exit 0", "exit 1", "exit 2", "exit 3", "exit 4", "exit 5", "kill -KILL $$"])
async def test_one_that_died_is_started_again(folder: Path, end: str) -> None:
    # Whatever its exit code, for it may be a handler's: 0 as well, when it did not say that it ended in order.
    assert await run(supervising(f"{BEGIN} {NUMBER} [ $n -gt 2 ] && {{ {END} }}; {end}")) == 0
    assert len(starts(folder)) == 3


async def test_the_pause_grows_while_it_keeps_dying_young(folder: Path) -> None:
    assert await run(supervising(f"{BEGIN} {NUMBER} [ $n -gt 4 ] && {{ {END} }}; exit 1")) == 0
    pauses = [later - earlier for earlier, later in pairwise(starts(folder))]
    for pause, least in zip(pauses, [0.05, 0.1, 0.2, 0.4], strict=True):
        assert pause >= least


async def test_the_pause_has_a_bound_and_begins_anew_after_a_healthy_life(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given processes that live for a while, which counts as healthy
    monkeypatch.setattr(supervisor, "HEALTHY", 0.05)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", LATE)
    # When they die again and again, then ten of them do not take longer than ten times life and first pause
    assert await run(supervising(f"{BEGIN} sleep 0.1; {NUMBER} [ $n -gt 10 ] && {{ {END} }}; exit 1")) == 0
    assert len(starts(folder)) == 11


@pytest.mark.parametrize("code", [2, 3, 4, 5])
async def test_one_that_can_not_begin_ends_all(folder: Path, code: int) -> None:
    # Given two processes, of which the first waits to be ended and the other can't begin
    script = "trap 'echo >>ended; exit 0' TERM; mkdir first && { echo >>waits; while :; do sleep 0.05; done; }; "
    script += f"while [ ! -e waits ]; do sleep 0.01; done; exit {code}"
    # Then all end with its code, the first in order
    assert await run(supervising(script, processes=2)) == code
    assert (folder / "ended").exists()
    assert len(starts(folder)) == 2


@pytest.mark.parametrize("code", [2, 3, 4, 5])
async def test_once_one_has_begun_no_other_ends_it(folder: Path, code: int) -> None:
    # Given a process that has begun, and another that can't for the first three times: the broker went away, say
    script = (
        f"mkdir first && {{ {BEGIN} echo >>begun; while [ $(wc -l <starts) -lt 4 ]; do sleep 0.02; done; {END} }}; "
    )
    script += f"while [ ! -e begun ]; do sleep 0.01; done; {NUMBER} [ $n -ge 4 ] && {{ {END} }}; exit {code}"
    # Then it is tried until it can
    assert await run(supervising(script, processes=2)) == 0
    assert len(starts(folder)) == 4


async def test_an_unforeseen_death_before_the_beginning_is_no_reason_to_give_up(folder: Path) -> None:
    assert await run(supervising(f"{NUMBER} [ $n -gt 2 ] && {{ {BEGIN} {END} }}; exit 1")) == 0
    assert len(starts(folder)) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_stop_it_ends_its_processes_in_order(folder: Path, number: signal.Signals) -> None:
    # Given two processes that take a moment to drain
    script = f"trap 'sleep 0.1; echo >>drained; exit 0' TERM; {BEGIN} echo >>ready; while :; do sleep 0.02; done"
    running = asyncio.create_task(run(supervising(script, processes=2)))
    await until_there(folder / "ready", lines=2)
    # When it is told to stop, then it waits for them, and none is started again
    os.kill(os.getpid(), number)
    assert await running == 0
    assert (folder / "drained").read_text() == "\n\n"
    assert len(starts(folder)) == 2


async def test_one_that_does_not_drain_in_time_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "GRACE", 0.1)
    script = f"trap '' TERM; {BEGIN} echo $$ >ready; while :; do sleep 0.02; done"
    running = asyncio.create_task(run(supervising(script, drain_deadline=0.1)))
    await until_there(folder / "ready")
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines_of(folder / "ready")[0]), 0)


async def test_told_to_stop_between_two_lives_it_ends_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 3600.0)
    running = asyncio.create_task(run(supervising(f"{BEGIN} exit 1")))
    await until_there(folder / "starts")
    began = time.monotonic()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
    assert time.monotonic() - began < LATE / 2


async def test_processes_do_not_share_its_terminal(folder: Path) -> None:
    # Ctrl-C reaches all of a terminal's foreground processes; the supervisor alone must hear of it.
    assert await run(supervising(f"{BEGIN} cut -d ' ' -f 6 /proc/$$/stat >session; echo $$ >>session; {END}")) == 0
    session, pid = (folder / "session").read_text().split()
    assert session == pid
