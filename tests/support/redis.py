"""A real Redis for tests. In: programs of the machine or of its packages. Out: a private server on a port of its own.

`redis_server` is one for a test, empty, with a password even on loopback. Tests kill it, stop it in the middle, and
bring it back at the same address.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from pipeline.broker.programs import REDIS, Programs, programs

PROJECT = Path(__file__).parents[2]
STATE = Path(os.environ.get("PIPELINE_STATE_DIR", PROJECT / ".pipeline"))
PATIENCE = 30.0  # s for a server to start or to end
POLL = 0.02  # s


class RedisServer:
    """A Redis that keeps everything in memory."""

    def __init__(self, found: Programs) -> None:
        self._programs = found
        self._folder = Path(tempfile.mkdtemp(prefix="pipeline-redis-"))
        self.password = secrets.token_urlsafe(12)
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """With user and password."""
        return f"redis://default:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self._folder, "save": "", "appendonly": "no"}
        options |= {"requirepass": self.password, "daemonize": "no"}
        command = [self._programs.path("redis-server")]
        command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        deadline = time.monotonic() + PATIENCE
        with (self._folder / "log").open("ab") as log:
            environment = self._programs.environment()
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        while not self._answers():
            said = (self._folder / "log").read_text(errors="replace")
            assert self._process.poll() is None, f"redis-server ended:\n{said}"
            assert time.monotonic() < deadline, f"redis-server does not answer:\n{said}"
            time.sleep(POLL)

    def kill(self) -> None:
        """End it at once; all it held is gone."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(PATIENCE)

    def freeze(self) -> None:
        """Let it hold its connections and answer nothing: a black hole. New ones are taken by the system and held."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it answer again."""
        self._signal(signal.SIGCONT)

    def ask(self, *command: str) -> Any:
        """What it answers to a command of the test's own."""
        with redis.Redis(port=self.port, password=self.password, decode_responses=True) as client:
            return client.execute_command(*command)

    def put(self, key: str, value: bytes) -> None:
        """Put bytes under a key, as another program would."""
        with redis.Redis(port=self.port, password=self.password) as client:
            client.set(key, value)

    def remove(self) -> None:
        """End it and delete its folder."""
        self.kill()
        shutil.rmtree(self._folder)

    def _signal(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)

    def _answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False


@pytest.fixture(scope="session")
def redis_programs() -> Programs:
    """Of the machine, else of the distribution's packages."""
    return programs(REDIS, STATE, print)


@pytest.fixture
def redis_server(redis_programs: Programs) -> Iterator[RedisServer]:
    """A private Redis, running."""
    server = RedisServer(redis_programs)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
