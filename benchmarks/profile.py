"""Where the time goes: a flame graph and a table of the worker, or the publisher, under load.

    .venv/bin/pip install -e '.[bench]'
    python -m benchmarks.profile worker                  flat out, 15 s
    python -m benchmarks.profile worker --rate 8000      at an offered rate
    python -m benchmarks.profile publisher --native      with the frames of C and Rust code

Needs py-spy and the right to look into one's own processes: root, or `sysctl kernel.yama.ptrace_scope=0`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import psutil

from benchmarks import path
from benchmarks.payload import SIZE
from benchmarks.place import PROJECT, STATE, Place, place
from benchmarks.processes import BenchmarkError, Program, program, python
from benchmarks.report.terminal import aligned
from pipeline.broker.locate import find_broker
from pipeline.errors import PipelineError

FLAT_OUT = 14_000  # events/s that are published for each second of profiling when no rate is given
SAMPLES = 250  # a second
SHOWN = 40
WAITING = ("_worker (concurrent/futures/", "_connection_worker_thread (aiosqlite/")

Stack: TypeAlias = tuple[str, ...]


def main() -> None:
    """Profile what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description="Where the time goes.")
    parser.add_argument("who", choices=["worker", "publisher"])
    parser.add_argument("--rate", type=int, help="events a second; flat out without")
    parser.add_argument("--seconds", type=int, default=15, help="of load; a third of it each for table and picture")
    parser.add_argument("--native", action="store_true", help="frames of C and Rust code, too")
    parser.add_argument("--subscription", default="billing", help="ledger: a row of a table of its own as the result")
    wanted = parser.parse_args()
    spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if spy is None:
        raise BenchmarkError("py-spy is missing: .venv/bin/pip install -e '.[bench]'")
    broker = find_broker(STATE, os.environ, print, PROJECT / "compose.yaml").address
    target = STATE / "bench" / "profile"
    target.mkdir(parents=True, exist_ok=True)
    with place(broker, [wanted.subscription]) as here:
        count = (wanted.rate or FLAT_OUT) * wanted.seconds
        used, stacks = _run(here, wanted, count, [spy, "record", *(["--native"] if wanted.native else [])], target)
    print(f"\n{wanted.who}: {sum(used.values()):.1f} µs of processor time an event, by thread and by function\n")
    for lines in (_by_thread(stacks, used), _functions(stacks, used)):
        print("\n".join(aligned(lines)), end="\n\n")
    print(f"flame graph: {os.path.relpath(target / f'{wanted.who}.svg')}")


def _run(
    here: Place, wanted: argparse.Namespace, count: int, spy: list[str], target: Path
) -> tuple[dict[int, float], Counter[Stack]]:
    """(processor µs an event by thread, samples by stack)."""
    with ExitStack() as stack:
        command = [sys.executable, "-m", "pipeline", "worker", "run-process", wanted.subscription, "--json"]
        working = stack.enter_context(program(command, here.environment(), "worker", here.folder, talks=False))
        working.wait_for_log('"event": "working"')
        publisher = _publisher(here, wanted.rate, wanted.seconds, count, stack)
        observed = working if wanted.who == "worker" else publisher
        before = _threads(working)
        publisher.go()
        window = max(1, wanted.seconds // 3)
        raw = here.folder / "stacks"
        _record(spy, observed, window, "raw", raw)
        _record(spy, observed, window, "flamegraph", target / f"{wanted.who}.svg")
        report = publisher.result()
        path.wait_until_committed(here, count, working)
        if wanted.who == "publisher":
            used = {publisher.pid: float(report["cpu"])}  # it has one thread
        else:
            used = {thread: seconds - before.get(thread, 0.0) for thread, seconds in _threads(working).items()}
        return {thread: seconds / count * 1e6 for thread, seconds in used.items()}, _stacks(raw)


def _threads(running: Program) -> dict[int, float]:
    """Processor seconds of each thread, by the kernel's count."""
    return {each.id: each.user_time + each.system_time for each in psutil.Process(running.pid).threads()}


def _publisher(here: Place, rate: int | None, seconds: int, count: int, stack: ExitStack) -> Program:
    if rate is None:
        return stack.enter_context(path.publishing(here, count))
    command = python("benchmarks.programs.offer", {"rate": rate, "seconds": seconds, "size": SIZE, "single": False})
    running = stack.enter_context(program(command, here.environment(), "publisher", here.folder))
    running.expect_ready()
    return running


def _record(command: list[str], observed: Program, seconds: int, form: str, file: Path) -> None:
    options = ["--function", "--threads", "--rate", str(SAMPLES), "--duration", str(seconds), "--format", form]
    done = subprocess.run(
        [*command, *options, "--output", str(file), "--pid", str(observed.pid)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode and not file.exists():
        raise BenchmarkError(f"py-spy failed: {done.stderr[-1000:]}")


def _stacks(raw: Path) -> Counter[Stack]:
    """Samples by stack; the first of a stack is the thread, the last where it was. Without those that only waited."""
    found: Counter[Stack] = Counter()
    for text in raw.read_text().splitlines():
        frames, _, number = text.rpartition(" ")
        stack = tuple(frames.split(";"))
        if not _waits(stack):
            found[stack] += int(number)
    return found


def _waits(stack: Stack) -> bool:
    """py-spy takes a thread for busy that waits for work, if it was woken lately."""
    at = max((index for index, frame in enumerate(stack) if frame.startswith(WAITING)), default=None)
    return at is not None and not any(".py:" in frame for frame in stack[at + 1 :])


def _by_thread(stacks: Counter[Stack], used: dict[int, float]) -> list[list[str]]:
    names = {_thread(stack): stack[0].partition(": ")[2] for stack in stacks}
    rows = sorted(((cost, names.get(thread, "")) for thread, cost in used.items()), reverse=True)
    return [["µs", "thread"], *([f"{cost:.1f}", name] for cost, name in rows if cost >= 0.05)]


def _functions(stacks: Counter[Stack], used: dict[int, float]) -> list[list[str]]:
    samples: Counter[int] = Counter()
    for stack, number in stacks.items():
        samples[_thread(stack)] += number
    own: dict[str, float] = defaultdict(float)
    whole: dict[str, float] = defaultdict(float)
    for stack, number in stacks.items():
        thread = _thread(stack)
        cost = used.get(thread, 0.0) * number / samples[thread]
        own[stack[-1]] += cost
        for frame in set(stack[1:]):
            whole[frame] += cost
    most = sorted(own.items(), key=lambda item: -item[1])[:SHOWN]
    return [
        ["self µs", "total µs", "function"],
        *([f"{cost:.2f}", f"{whole[frame]:.2f}", frame] for frame, cost in most),
    ]


def _thread(stack: Stack) -> int:
    """The kernel's number of the thread, out of `thread (123): name`."""
    return int(stack[0].partition("(")[2].partition(")")[0])


if __name__ == "__main__":
    try:
        main()
    except (BenchmarkError, PipelineError) as error:
        sys.exit(f"error: {error}")
