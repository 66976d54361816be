"""A real PostgreSQL for tests and benchmarks. In: programs of the machine or of its packages. Out: a private server.

It has its own port on loopback, its own socket and folder, and a password even there. `postgres` is one for the test
session; `database` is a database of a test's own in it, with the store's tables made.
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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import pytest

from tests.support.postgres_programs import Programs, account, find
from tests.support.sql import Session, Sessions

PROJECT = Path(__file__).parents[2]
STATE = Path(os.environ.get("PIPELINE_STATE_DIR", PROJECT / ".pipeline"))
USER = "pipeline"
PATIENCE = 60.0  # s for a server to start or to end
POLL = 0.02  # s

# A server that may lose its data with the machine's power, and is quicker for it. Killing it loses nothing.
QUICK = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB"}
MEMORY = Path("/dev/shm")  # noqa: S108 - where there is room, making a database takes 15 ms and not 200
ROOM = 2 * 1024**3  # bytes
ALWAYS = {
    "listen_addresses": "127.0.0.1",
    "log_destination": "stderr",
    "logging_collector": "off",
    "dynamic_shared_memory_type": "mmap",  # in its folder: elsewhere a crash leaves files behind
}


class Server:
    """A PostgreSQL server in a folder of its own. `durable` as production would have it; otherwise quick."""

    def __init__(self, programs: Programs, durable: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pipeline-postgresql-"))
        self._data = self.folder if durable or not _roomy(MEMORY) else Path(tempfile.mkdtemp(dir=MEMORY))
        self.port = _free_port()
        self.password = secrets.token_urlsafe(12)
        self._account = account()
        self._settings = ALWAYS if durable else {**ALWAYS, **QUICK}
        self._process: subprocess.Popen[bytes] | None = None
        self._own(self.folder)
        self._own(self._data)
        self.programs = programs if programs.run_as(self._account) else programs.copied(self.folder / "programs")
        self._initialise()

    def url(self, database: str = "postgres", user: str = USER, password: str = "") -> str:
        """Of a database, with user and password."""
        return f"postgresql://{user}:{quote(password or self.password)}@127.0.0.1:{self.port}/{database}"

    def start(self, **more: str) -> None:
        """Start it, unless it runs, with settings `more` for this time, and wait until it answers."""
        if self._process is not None and self._process.poll() is None:
            return
        settings = {**self._settings, **more, "port": self.port, "unix_socket_directories": self.folder}
        options = [f"--{name}={value}" for name, value in settings.items()]
        deadline = time.monotonic() + PATIENCE
        with (self.folder / "log").open("ab") as log:
            # After a crash the last one's processes may still be on their way out; then it says so and ends.
            while self._process is None or self._process.poll() is not None:
                self._process = self._begin([*self._command("postgres"), *options], log)
                while self._process.poll() is None and not self._answers():
                    self._in_time(deadline)
                    time.sleep(POLL)
                self._in_time(deadline)

    def stop(self) -> None:
        """End it in order, though not waiting for its clients."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """End it at once, as if the machine had stopped."""
        self._end(signal.SIGQUIT)

    def remove(self) -> None:
        """End it and delete its data."""
        self.crash()
        shutil.rmtree(self.folder)
        shutil.rmtree(self._data, ignore_errors=True)  # in the same folder, or not

    def lend(self, file: Path) -> str:
        """A copy of a file that the server alone can read."""
        copy = self.folder / file.name
        copy.write_bytes(file.read_bytes())
        copy.chmod(0o600)
        self._own(copy)
        return str(copy)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)

    def _initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(self.password)
        self._own(password)
        options = ("--auth=scram-sha-256", f"--pwfile={password}", f"--username={USER}", "--encoding=UTF8", "--no-sync")
        done = self._begin([*self._command("initdb"), *options, "--locale=C.UTF-8"], subprocess.PIPE)
        out, _ = done.communicate(timeout=PATIENCE)
        password.unlink()
        if done.returncode:
            raise RuntimeError(f"initdb failed: {out.decode(errors='replace')}")

    def _command(self, program: str) -> list[str]:
        return [str(self.programs.folder / program), "-D", str(self._data / "data")]

    def _begin(self, command: list[str], output: IO[bytes] | int) -> subprocess.Popen[bytes]:
        environment = self.programs.environment()
        return subprocess.Popen(
            command, **self._account, env=environment, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT
        )

    def _own(self, path: Path) -> None:
        if self._account:
            os.chown(path, self._account["user"], self._account["group"])

    def _answers(self) -> bool:
        """Whether it takes logins: it listens earlier than that."""
        status = self._data / "data" / "postmaster.pid"  # its last line says so
        try:
            return status.read_text().split()[-1] == "ready"
        except (OSError, IndexError):
            return False

    def _in_time(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            log = (self.folder / "log").read_text(errors="replace")
            raise TimeoutError(f"PostgreSQL did not start within {PATIENCE:g} s: {log[-2000:]}")


@dataclass(frozen=True, slots=True)
class Database:
    """A test's own database: its URL, and a session in it."""

    name: str
    url: str
    session: Session


class Databases:
    """Makes and drops databases of one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.sessions = Sessions()
        self._admin: Session | None = None

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[Database]:
        """A database for the block, at first a copy of the template; dropped afterwards, whoever is connected."""
        name = f"t_{secrets.token_hex(6)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        url = self.server.url(name)
        session = self.sessions.open(url)
        try:
            yield Database(name, url, session)
        finally:
            session.close()
            self.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """A statement of the administrator's."""
        if self._admin is None or self._admin.closed:  # a test may have ended the server
            self.server.start()
            self._admin = self.sessions.open(self.server.url())
        return self._admin.run(sql)

    def close(self) -> None:
        """End sessions; the server runs on."""
        if self._admin is not None:
            self._admin.close()
        self.sessions.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A private PostgreSQL of the test session, running. Tests that stop or crash it start it again."""
    server = Server(find(STATE))
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def databases(postgres: Server) -> Iterator[Databases]:
    """Makes databases in it."""
    made = Databases(postgres)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def database(databases: Databases) -> Iterator[Database]:
    """An empty database for one test."""
    with databases.database() as made:
        yield made


def _roomy(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > ROOM


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
