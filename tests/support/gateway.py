"""A real gateway for tests: the command line's own process, on a port of its choice. In: an environment. Out: answers.

Sync on purpose: what is tested is a process, and a client that waits is enough to ask it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

PATIENCE = 60.0  # seconds, on a busy machine
POLL = 0.02  # seconds
LOG_SHOWN = 40  # lines


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s in vain for {what}"
        time.sleep(POLL)


class Gateway:
    """A gateway that runs; `log` is what it wrote so far, line by line."""

    def __init__(self, folder: Path, environ: Mapping[str, str], *arguments: str) -> None:
        command = [sys.executable, "-m", "pipeline", "gateway", "start", "--port", "0", "--json", *arguments]
        self.process = subprocess.Popen(command, cwd=folder, env=dict(environ), stderr=subprocess.PIPE, text=True)
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_for(lambda: self.said("listening") or self.process.poll() is not None, "the gateway to listen")
        assert self.process.poll() is None, "\n".join(self.log)
        self.port: int = next(line["port"] for line in self.lines() if line["event"] == "listening")
        self.url = f"http://127.0.0.1:{self.port}"

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    def lines(self) -> list[dict[str, Any]]:
        """The log."""
        return [json.loads(line) for line in list(self.log) if line.startswith("{")]

    def said(self, event: str) -> bool:
        """Whether the log has a line about this."""
        return any(line["event"] == event for line in self.lines())

    def client(self, key: str = "") -> httpx2.Client:
        """A client with this key."""
        return httpx2.Client(base_url=self.url, headers={"x-api-key": key} if key else {}, timeout=PATIENCE)

    def raw(self, data: bytes) -> bytes:
        """What it answers to these bytes, up to the end of the connection."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            found = b""
            with suppress(ConnectionResetError, BrokenPipeError):
                connection.sendall(data)
                while part := connection.recv(65536):
                    found += part
            return found

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def gateway(folder: Path, environ: Mapping[str, str], *arguments: str) -> Iterator[Gateway]:
    """A gateway for the block."""
    running = Gateway(folder, environ, *arguments)
    try:
        yield running
    except BaseException:
        print(*running.log[-LOG_SHOWN:], sep="\n")  # noqa: T201 - pytest shows it
        raise
    finally:
        running.kill()


@contextmanager
def application_worker(folder: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """Workers of all subscriptions for the block, then ended in order."""
    command = [sys.executable, "-m", "pipeline", "worker", "start", "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=folder, env=dict(environ))
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def pipeline(folder: Path, environ: Mapping[str, str], *arguments: str) -> str:
    """What `pipeline ...` prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=folder,
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"pipeline {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def environ_for(folder: Path, amqp_url: str, management_url: str) -> dict[str, str]:
    """All the environment of a gateway whose files are in `folder`."""
    return {
        "PATH": os.environ["PATH"],
        "PIPELINE_AMQP_URL": amqp_url,
        "PIPELINE_MANAGEMENT_URL": management_url,
        "PIPELINE_STATE_DIR": str(folder / "state"),
        "PIPELINE_TOPOLOGY": str(folder / "topology.yaml"),
    }
