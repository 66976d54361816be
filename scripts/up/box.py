"""One box: a process that is started, asked whether it is ready, waited for and ended.

In: a command with its environment. Out: a process, and how it ended. The broker is a box in its own way.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypedDict

from pipeline.broker.node import Node
from scripts.up import marks
from scripts.up.place import Place


class Account(TypedDict, total=False):
    """Whom `subprocess` is to run a program as; empty for our own user."""

    user: int
    group: int
    extra_groups: list[int]


class Box(Protocol):
    """What the supervisor asks of a box."""

    @property
    def name(self) -> str:
        """Its name in the picture."""

    @property
    def output(self) -> Path:
        """The file it writes its log into."""

    async def start(self) -> int:
        """Start it; its process id. It need not be ready."""

    async def is_ready(self) -> bool:
        """Whether it does what it is for."""

    async def wait(self) -> str:
        """How it ended, once it has."""

    async def clear(self) -> None:
        """End what is left of it."""

    async def stop(self) -> None:
        """End it in order; at once when that takes too long."""


def nothing() -> None:
    """Nothing to prepare."""


@dataclass(slots=True)
class ProcessBox:
    """A box that is a child of the supervisor."""

    place: Place
    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready: Callable[[], Awaitable[bool]]
    cwd: Path
    prepare: Callable[[], None] = nothing  # before each start
    account: Account = field(default_factory=Account)
    stop_signal: signal.Signals = signal.SIGTERM
    patience: float = 10.0  # s to end in order
    process: asyncio.subprocess.Process | None = None

    @property
    def output(self) -> Path:
        """The file it writes its log into."""
        return self.place.box(self.name) / "output"

    async def start(self) -> int:
        """Prepare and start it."""
        await asyncio.to_thread(self.prepare)
        with self.output.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                env={**self.environment, **marks.mark(self.place, self.name)},
                cwd=self.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C at the supervisor's terminal is the supervisor's business
                **self.account,
            )
        return self.process.pid

    async def is_ready(self) -> bool:
        """Whether it runs and says so."""
        return self.process is not None and self.process.returncode is None and await self.ready()

    async def wait(self) -> str:
        """How it ended, once it has."""
        assert self.process is not None
        code = await self.process.wait()
        with suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    async def clear(self) -> None:
        """End processes it had started."""
        await asyncio.to_thread(marks.end_leftovers, self.place, self.name, self.stop_signal)

    async def stop(self) -> None:
        """End it in order."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.send_signal(self.stop_signal)
        try:
            async with asyncio.timeout(self.patience):
                await self.process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        await self.clear()


@dataclass(slots=True)
class BrokerBox:
    """The private RabbitMQ node. It is nobody's child, and knows its own ports, login and leftovers."""

    place: Place
    name: str
    node: Node
    pid: int = 0

    @property
    def output(self) -> Path:
        """The node's log; the file itself is named for the node, which has no name before its first start."""
        return self.place.folder / "broker.log"

    async def start(self) -> int:
        """Start it; it is ready then."""
        address = await asyncio.to_thread(self.node.start)
        self.place.secret("amqp_url", address.amqp_url)
        self.place.secret("management_url", address.management_url)
        self.pid = address.pid
        if not self.output.is_symlink():
            self.output.symlink_to(self.node.folder / "log" / f"{address.nodename}.log")
        return self.pid

    async def is_ready(self) -> bool:
        """Whether it accepts AMQP."""
        return (await asyncio.to_thread(self.node.status)).accepting

    async def wait(self) -> str:
        """How it ended is not known: it is nobody's child. But that it did."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return "gone"
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return "gone"

    async def clear(self) -> None:
        """The node does so itself at its next start."""

    async def stop(self) -> None:
        """Shut it down in order."""
        await asyncio.to_thread(self.node.stop)


@dataclass(frozen=True, slots=True)
class Step:
    """Something that is run once, to its end, before the next boxes start."""

    place: Place
    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: Path
    keep: Callable[[bytes], None] = lambda printed: None  # what to do with what it printed
    needed: Callable[[], bool] = lambda: True

    async def run(self) -> tuple[int, str]:
        """The exit code, and what it said beside its output."""
        process = await asyncio.create_subprocess_exec(
            *self.command,
            env={**self.environment, **marks.mark(self.place, self.name)},
            cwd=self.cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            printed, said = await process.communicate()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
            raise
        if process.returncode == 0:
            self.keep(printed)
        return process.returncode or 0, said.decode(errors="replace")
