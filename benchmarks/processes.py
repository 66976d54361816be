"""Starts programs, measures what they cost. In: command lines. Out: their reports, processor seconds, memory.

Every program started here ends with the block that started it, however that block ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

import psutil

from benchmarks.place import PROJECT

START_DEADLINE = 60.0  # s for a program to say that it is ready
RUN_DEADLINE = 600.0  # s for one run, which takes minutes at most
STOP_DEADLINE = 45.0  # s to end when asked
POLL = 0.01  # s
LOG_TAIL = 2000  # characters of a program's own words in an error


class BenchmarkError(Exception):
    """A run did not do what it was to do, so it has no figures."""


@dataclass(frozen=True, slots=True)
class Program:
    """A running program. Its standard error goes to `log`, and its standard output too unless it talks to us."""

    process: subprocess.Popen[str]
    log: Path
    name: str

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def expect_ready(self) -> None:
        """Wait until it is ready to begin. Raises: BenchmarkError when it ends first or takes too long."""
        assert self.process.stdout is not None
        with self._within(START_DEADLINE):
            if self.process.stdout.readline().strip() != "ready":
                raise self.failed("did not become ready")

    def go(self) -> None:
        """Let a program that is ready begin."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Its report, once it has ended. Raises: BenchmarkError when it fails."""
        assert self.process.stdout is not None
        with self._within(RUN_DEADLINE):
            lines = self.process.stdout.read().strip().splitlines()
            if self.process.wait() or not lines:
                raise self.failed(f"failed with exit code {self.process.returncode}")
        report: dict[str, Any] = json.loads(lines[-1])
        return report

    def wait_for_log(self, words: str, times: int = 1) -> None:
        """Wait until its log holds `words` that often. Raises: BenchmarkError when it ends first or takes too long."""
        deadline = time.monotonic() + START_DEADLINE
        while self.log.read_text(errors="replace").count(words) < times:
            self.check()
            if time.monotonic() > deadline:
                raise self.failed(f"did not say {words!r} within {START_DEADLINE:.0f} s")
            time.sleep(POLL)

    def check(self) -> None:
        """Raises: BenchmarkError when it has ended."""
        if self.process.poll() is not None:
            raise self.failed(f"ended early with exit code {self.process.returncode}")

    def failed(self, how: str) -> BenchmarkError:
        """The error that says how, with its last words."""
        return BenchmarkError(f"{self.name} {how}; its last words:\n{self.log.read_text(errors='replace')[-LOG_TAIL:]}")

    def stop(self) -> None:
        """Ask it to end and wait for that."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self._kill()
            self.process.wait()

    def _kill(self) -> None:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process.pid)
            for each in (*process.children(recursive=True), process):
                with suppress(psutil.NoSuchProcess):
                    each.kill()

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """Kill it after `seconds`, so that nobody waits for its words for ever."""
        timer = Timer(seconds, self._kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


@contextmanager
def program(
    command: Sequence[str], environment: Mapping[str, str], name: str, folder: Path, *, talks: bool = True
) -> Iterator[Program]:
    """Run `command` in the project's folder for the length of the block; `talks` by `benchmarks.protocol`."""
    log = folder / f"{name.replace(' ', '-')}-{time.monotonic_ns()}.log"
    with log.open("w") as words:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=PROJECT,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else words,
            stderr=words,
            text=True,
        )
        running = Program(process, log, name)
        try:
            yield running
        finally:
            running.stop()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):  # what was written last may have nowhere to go any more
                        stream.close()


def python(module: str, arguments: Mapping[str, object], interpreter: str = sys.executable) -> list[str]:
    """The command line of one of our programs."""
    return [interpreter, "-m", module, json.dumps(arguments)]


class Cost:
    """Processor seconds of processes and all their children, since it was made. A pid of 0 is not of this machine."""

    def __init__(self, *pids: int) -> None:
        self._pids = [pid for pid in pids if pid]
        self._before = self._now()

    def seconds(self) -> float:
        """Used since then."""
        return self._now() - self._before

    def _now(self) -> float:
        total = 0.0
        for pid in self._pids:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                for each in (process, *process.children(recursive=True)):
                    times = each.cpu_times()
                    total += times.user + times.system
        return total
