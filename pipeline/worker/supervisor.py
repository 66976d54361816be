"""Keeps worker processes alive. In: a command line and a number. Out: an exit code once all of them have ended.

Knows nothing of brokers and databases, so that what kills a worker can't kill its supervisor. A process that died is
started again after a pause that doubles while it keeps dying young. One that could not begin at all (wrong files, no
broker) ends the others and the supervisor with its exit code; it said why itself. Once one has begun, no exit code
ends the supervisor: it may be a handler's, or the broker may be away while a process starts.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from pipeline.log import get_logger
from pipeline.worker.status import BEGAN, ENDED, heard

log = get_logger("supervisor")

FIRST_PAUSE = 0.2  # seconds before a process that died is started again
LONGEST_PAUSE = 5.0  # seconds
HEALTHY = 30.0  # seconds a process must live for the pause to begin anew
GRACE = 5.0  # seconds beyond the drain deadline before a process is killed
CANNOT_BEGIN = (2, 3, 4, 5)  # exit codes of a process that said why it can't: configuration, drift, broker, database


class Supervisor:
    """Runs `command` in `processes` copies, each with `--status` and the descriptor of a pipe to tell how it goes."""

    def __init__(self, command: Sequence[str], processes: int, drain_deadline: float) -> None:
        self._command = tuple(command)
        self._processes = processes
        self._drain_deadline = drain_deadline
        self._stopping = asyncio.Event()
        self._exit_code = 0
        self._begun = False  # one of them once did

    async def run(self) -> int:
        """Supervise until every process ended well or one can't begin; the exit code for the whole."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        await asyncio.gather(*(self._keep_alive(index) for index in range(self._processes)))
        return self._exit_code

    async def _keep_alive(self, index: int) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            started = loop.time()
            code, said = await self._run_one()
            if self._stopping.is_set() or (code == 0 and ENDED in said):
                return
            if not self._begun and code in CANNOT_BEGIN:
                self._exit_code = code
                self._stopping.set()
                return
            if loop.time() - started > HEALTHY:
                pause = FIRST_PAUSE
            log.error("a worker process died, starting it again", index=index, how=_how(code), pause=pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _run_one(self) -> tuple[int, bytes]:
        """Run one process to its end: its exit code, and what it said of itself."""
        ours, its = os.pipe()
        try:
            # In a session of its own: Ctrl-C reaches the supervisor alone, which then ends its processes in order.
            process = await asyncio.create_subprocess_exec(
                *self._command, "--status", str(its), pass_fds=(its,), start_new_session=True
            )
        finally:
            os.close(its)
        words = bytearray()

        def hear() -> None:
            if not (said := heard(ours)):
                loop.remove_reader(ours)  # the process has ended
            words.extend(said)
            self._begun |= BEGAN in words

        loop = asyncio.get_running_loop()
        loop.add_reader(ours, hear)
        try:
            code = await self._wait(process)
            hear()
        finally:
            loop.remove_reader(ours)
            os.close(ours)
        return code, bytes(words)

    async def _wait(self, process: asyncio.subprocess.Process) -> int:
        ended = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                with suppress(ProcessLookupError):
                    process.terminate()
                _, late = await asyncio.wait([ended], timeout=self._drain_deadline + GRACE)
                if late:
                    log.error("a worker process did not drain in time, killing it", pid=process.pid)
                    with suppress(ProcessLookupError):
                        process.kill()
            return await ended
        finally:
            stopping.cancel()


def _how(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def child_command(arguments: Sequence[str]) -> list[str]:
    """The command line of a worker process under this supervisor."""
    return [sys.executable, "-m", "pipeline", "worker", "run-process", "--parent", str(os.getpid()), *arguments]
