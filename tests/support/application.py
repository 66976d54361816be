"""One test's application: a folder with topology and handlers, a virtual host, and the real command line.

In: files as text, command lines. Out: exit codes and output, what lies on the broker and in the databases.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aio_pika.abc import AbstractIncomingMessage

from pipeline.amqp.confirms import ConfirmChannel
from pipeline.amqp.lane import Lane
from pipeline.message import Message
from pipeline.properties import Properties, encode_properties
from pipeline.settings import Settings, load_settings
from pipeline.topology.load import load_topology
from tests.support.broker import TestVhost, manage
from tests.support.rabbit import rabbit
from tests.support.topologies import applied, until

PATIENCE = 60.0  # seconds a command may take on a busy machine
LOG_SHOWN = 40  # lines of a worker's log, when the test fails
PIPE = asyncio.subprocess.PIPE


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


@dataclass
class Application:
    """Files in `folder`; commands run in `cwd`, which is the same unless said; `environ` is all their environment."""

    vhost: TestVhost
    folder: Path
    cwd: Path | None = None
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environ = {
            "PATH": os.environ["PATH"],
            "PIPELINE_AMQP_URL": self.vhost.amqp_url,
            "PIPELINE_MANAGEMENT_URL": self.vhost.management_url,
            "PIPELINE_STATE_DIR": str(self.folder / "state"),
            "PIPELINE_DATABASE_URL": f"sqlite+aiosqlite:///{self.folder}/data/{{subscription}}.db",
            "PIPELINE_TOPOLOGY": str(self.folder / "topology.yaml"),
        }

    @property
    def settings(self) -> Settings:
        """What its commands read from the environment."""
        return load_settings(self.environ)

    def write(self, name: str, text: str) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.write_text(text)
        return path

    async def start(self, *arguments: str, environ: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
        """Start `pipeline ...`."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pipeline", *arguments),
            cwd=self.cwd or self.folder,
            env={**self.environ, **(environ or {})},
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )

    async def run(self, *arguments: str, stdin: bytes = b"", environ: Mapping[str, str] | None = None) -> Ended:
        """Run `pipeline ...` to its end."""
        return await ended(await self.start(*arguments, environ=environ), stdin)

    async def good(self, *arguments: str, stdin: bytes = b"") -> Ended:
        """Run `pipeline ...`, which must end well."""
        done = await self.run(*arguments, stdin=stdin)
        assert done.code == 0, f"pipeline {' '.join(arguments)} ended with {done.code}:\n{done.out}\n{done.err}"
        return done

    async def apply(self) -> None:
        """Bring the broker to the topology file, as `pipeline topology apply` does and without its start-up."""
        topology = load_topology(self.settings.topology).topology
        assert (await applied(self.settings, topology)).exit_code == 0

    @asynccontextmanager
    async def worker(self, *arguments: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[RunningWorker]:
        """`pipeline worker start ...` for the block, then killed with all its processes unless it ended before."""
        process = await self.start("worker", "start", "--json", *arguments, environ=environ)
        running = RunningWorker(process)
        try:
            yield running
        except BaseException:
            print(*running.log[-LOG_SHOWN:], "".join(running.noise), sep="\n")  # noqa: T201 - pytest shows it
            raise
        finally:
            await running.kill()

    def rows(self, subscription: str, query: str) -> list[Any]:
        """What a query finds in a subscription's database."""
        path = self.folder / "data" / f"{subscription}.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def count(self, subscription: str, table: str = "pipeline_inbox") -> int:
        """Rows of a table; 0 while it is not there."""
        try:
            return int(self.rows(subscription, f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - a test's own name
        except sqlite3.OperationalError:
            return 0

    async def until_count(self, subscription: str, count: int, table: str = "pipeline_inbox") -> None:
        """Wait until a table has so many rows, or more."""

        async def reached() -> bool:
            return self.count(subscription, table) >= count

        await until(reached, f"{count} rows in {table} of {subscription}")

    async def put_raw(self, key: str, *messages: tuple[Properties | bytes, bytes], exchange: str = "") -> None:
        """Publish (properties, body) as they are, to a queue unless an exchange is named; confirmed.

        A client library would mend them, or refuse to.
        """
        lane = await Lane.open(self.settings, "test")
        raw = [(each if isinstance(each, bytes) else encode_properties(each), body) for each, body in messages]
        receipt = (await ConfirmChannel.open(lane)).publish(
            [Message(exchange, key, body, each, "") for each, body in raw]
        )
        await receipt.done
        await lane.close()
        assert not receipt.errors

    async def take(self, queue: str) -> list[AbstractIncomingMessage]:
        """Everything ready in a queue, removed."""
        async with rabbit(self.vhost) as broker:
            return await broker.take(queue)

    def take_ids(self, queue: str, most: int) -> list[tuple[str, str]]:
        """(id, body) of up to `most` messages of a queue, removed: in one call, for many."""
        ask = {"count": most, "ackmode": "ack_requeue_false", "encoding": "auto"}
        found = manage(self.vhost.management_url, "POST", f"/api/queues/{self.vhost.name}/{queue}/get", ask)
        assert isinstance(found, list)
        return [(each["properties"].get("message_id", ""), each["payload"]) for each in found]

    def queue(self, name: str) -> dict[str, Any]:
        """The management API's word on a queue."""
        found = manage(self.vhost.management_url, "GET", f"/api/queues/{self.vhost.name}/{name}")
        assert isinstance(found, dict)
        return found


class RunningWorker:
    """A `pipeline worker start` that runs. Its log is JSON, read as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self.noise: list[str] = []  # lines that are no log
        self._known: set[int] = set()  # processes that were seen under the supervisor
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        assert self.process.stdout is not None
        while line := await self.process.stderr.readline():
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.noise.append(line.decode(errors="replace"))
        await self.process.stdout.read()

    def said(self, event: str) -> list[dict[str, Any]]:
        """The log lines of this event."""
        return [line for line in self.log if line.get("event") == event]

    async def until_said(self, event: str, times: int = 1) -> list[dict[str, Any]]:
        """Wait for that many log lines of this event."""

        async def heard() -> bool:
            return len(self.said(event)) >= times

        await until(heard, f"{times} times {event!r} in the log")
        return self.said(event)

    @property
    def pids(self) -> list[int]:
        """The processes under the supervisor that live now."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()]
        self._known.update(pids)
        return pids

    def _ours(self) -> set[int]:
        """Worker processes of this supervisor that run, also after its end: they carry its process id."""
        mark = f"\0--parent\0{self.process.pid}\0".encode()
        found = set()
        for pid in self._known:
            with suppress(OSError):
                if mark in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.add(pid)
        return found

    async def drain(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return await self.wait()

    async def wait(self) -> int:
        """The exit code, once it ends."""
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await self._reading
        return code

    async def kill(self) -> None:
        """End it and what runs under it at once."""
        if self.process.returncode is None:
            self._known.update(self.pids)
            self.process.kill()
        # Before anything is waited for: the wait ends with the pipes, and these hold them as well.
        for pid in self._ours():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.process.wait()
        await self._reading


async def ended(process: asyncio.subprocess.Process, stdin: bytes = b"") -> Ended:
    """The command, once it ends; when it takes too long it is ended, and what it had said is the failure."""
    reading = asyncio.create_task(process.communicate(stdin))
    await asyncio.wait([reading], timeout=PATIENCE)
    late = not reading.done()
    if late:
        process.terminate()
        await asyncio.wait([reading], timeout=PATIENCE / 6)
        if not reading.done():
            process.kill()
    out, err = await reading
    assert not late, f"not ended within {PATIENCE:.0f} s; it said\n{out.decode()}\n{err.decode()}"
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())
