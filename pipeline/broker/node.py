"""A private RabbitMQ node. In: a state folder and the programs to run. Out: a broker that answers.

Everything of the node is in `<state>/broker/`: data, log, configuration, and `node.json` with address and
login. Other nodes of the machine, and their port mapper, are never touched.
"""

from __future__ import annotations

import fcntl
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.broker import node_files, ports, probe, processes
from pipeline.broker.address import LOOPBACK, Address, Login, read_record, recorded_address, write_record
from pipeline.broker.installation import Installation
from pipeline.broker.ports import Ports
from pipeline.errors import BrokerError, BrokerUnavailable

START_DEADLINE = 120.0  # s; about 6 are usual, but a busy small machine may take ten times that
EPMD_DEADLINE = 5.0  # s
STOP_PATIENCE = 20.0  # s for an orderly shutdown before the node is killed
ATTEMPTS = 3  # another program may take a port between our look and the node's
POLL = 0.05  # s
LOG_TAIL = 15  # lines of the node's own words in an error

# The shell puts the server in the background and ends, so that it is nobody's child and survives the caller.
LAUNCH = 'ulimit -n 65536 2>/dev/null; log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'


@dataclass(frozen=True, slots=True)
class Status:
    """What can be said of the node now; `address` is the last known one."""

    running: bool
    accepting: bool
    address: Address | None

    @property
    def word(self) -> str:
        """`running`, `starting` (or too busy to answer) or `stopped`."""
        return "running" if self.accepting else "starting" if self.running else "stopped"


class Node:
    """The private node of one state folder."""

    def __init__(self, state_dir: Path, installation: Installation | None = None) -> None:
        """`installation` is needed only to start it."""
        self.folder = state_dir.absolute() / "broker"
        self.installation = installation
        self._record = self.folder / "node.json"

    def start(self) -> Address:
        """Have the node running and accepting AMQP; idempotent, and safe to call from two places at once.

        Raises: BrokerUnavailable with the end of the node's log when it does not come up.
        """
        with self._locked():
            if self._server():
                return self._wait_until_ready()
            if self.installation is None:
                raise BrokerError("no rabbitmq-server is known to start; run `make setup`")
            for _ in range(ATTEMPTS - 1):
                chosen = self._launch_node(self.installation)
                try:
                    return self._wait_until_ready()
                except BrokerUnavailable:
                    if self._server():
                        raise  # it is slow, or unwell: not a matter of ports
                    self._end(signal.SIGTERM)
                    if chosen.are_free():
                        raise
            self._launch_node(self.installation)
            return self._wait_until_ready()

    def stop(self) -> bool:
        """Shut the node and its port mapper down in order and wait until they are gone; False if none ran."""
        with self._locked():
            return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL the server, as a crash would; its port mapper stays, as it would then."""
        processes.end(list(self._server()), signal.SIGKILL, STOP_PATIENCE)

    def status(self) -> Status:
        """Whether the node runs and answers, and where."""
        address = self.address()
        running = bool(self._server())
        accepting = running and address is not None and probe.accepts_amqp(address.amqp_url)
        return Status(running, accepting, address if running else address and replace(address, pid=0))

    def address(self) -> Address | None:
        """The last known address; None when the node never ran."""
        return recorded_address(read_record(self._record))

    def known_address(self) -> Address:
        """The last known address.

        Raises: BrokerUnavailable when the node never ran.
        """
        address = self.address()
        if address is None:
            raise BrokerUnavailable(f"no broker is known in {self.folder}; run `pipeline broker start`")
        return address

    def _launch_node(self, installation: Installation) -> Ports:
        self._end(signal.SIGTERM)  # a port mapper that outlived its node
        chosen = ports.choose(ports.remembered(read_record(self._record)))
        login = self._login()
        nodename = self._nodename() or f"pipeline-{secrets.token_hex(4)}@localhost"
        (self.folder / "data" / nodename).mkdir(parents=True, exist_ok=True)
        (self.folder / "log").mkdir(exist_ok=True)
        node_files.write_files(self.folder, chosen, login)
        env = node_files.environment(self.folder, nodename, chosen, installation)
        epmd = str(installation.erlang_bin / "epmd")
        self._launch([epmd, "-port", str(chosen.epmd), "-address", LOOPBACK], env)
        self._wait_for_port(chosen.epmd)  # or the server would start another one, which nobody would end
        address = Address(
            amqp_url=login.at("amqp", chosen.amqp) + "/%2F",
            management_url=login.at("http", chosen.management),
            nodename=nodename,
            version=installation.version,
            pid=self._launch(self._server_command(installation), env),
            prometheus_url=f"http://{LOOPBACK}:{chosen.prometheus}/metrics",
        )
        write_record(self._record, address, ports=asdict(chosen))
        return chosen

    def _server_command(self, installation: Installation) -> list[str]:
        # RabbitMQ's start script can't live in a path with a space; seen from here, through a link, it has none.
        link = self.folder / "server"
        link.unlink(missing_ok=True)
        link.symlink_to(installation.server.parents[1])
        return [f"{link.name}/sbin/rabbitmq-server"]

    def _launch(self, command: list[str], env: dict[str, str]) -> int:
        shell = ["/bin/sh", "-c", LAUNCH, "sh", str(self.folder / "log" / "output.log"), *command]
        started = subprocess.run(
            shell,
            env=env,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            start_new_session=True,
        )
        return int(started.stdout)

    def _wait_until_ready(self) -> Address:
        """The address, once AMQP and management both answer for this very node.

        Raises: BrokerUnavailable when the server ended or the deadline passed.
        """
        deadline = time.monotonic() + START_DEADLINE
        address = self.known_address()
        # Both questions: a process that is just being replaced by the program it starts has no name for a moment.
        while time.monotonic() < deadline and (processes.is_alive(address.pid) or self._server()):
            if probe.accepts_amqp(address.amqp_url):
                said = probe.overview(address.management_url)
                if said and said.get("node") == address.nodename:
                    return address
            time.sleep(POLL)
        raise BrokerUnavailable(
            f"the private RabbitMQ node in {self.folder} did not come up. Its last words:\n{self._log_tail()}"
        )

    def _wait_for_port(self, port: int) -> None:
        deadline = time.monotonic() + EPMD_DEADLINE
        while ports.is_free(port) and time.monotonic() < deadline:
            time.sleep(POLL)

    def _end(self, first: signal.Signals) -> bool:
        found = self._server()
        # An orderly stop is the server's own business: its helpers end with it.
        server = [pid for pid, program in found.items() if program == processes.SERVER]
        processes.end(server, first, STOP_PATIENCE)
        processes.end(list(self._server()), signal.SIGKILL, STOP_PATIENCE)
        mappers = [pid for pid, program in self._processes().items() if program == processes.PORT_MAPPER]
        processes.end(mappers, signal.SIGTERM, STOP_PATIENCE)
        return bool(found)

    def _server(self) -> dict[int, str]:
        """What runs of the node itself; the port mapper is not the node."""
        return {pid: name for pid, name in self._processes().items() if name != processes.PORT_MAPPER}

    def _processes(self) -> dict[int, str]:
        nodename = self._nodename()
        return processes.find(nodename, self.folder) if nodename else {}

    def _nodename(self) -> str:
        """The name the data was written under: RabbitMQ opens it under no other."""
        known = (entry.name for entry in (self.folder / "data").glob("pipeline-*@localhost") if entry.is_dir())
        return min(known, default="")

    def _login(self) -> Login:
        address = self.address()
        if address is None:
            return node_files.new_login()  # also into existing data: definitions are loaded at every start
        parts = urlsplit(address.amqp_url)
        return Login(unquote(parts.username or ""), unquote(parts.password or ""))

    def _log_tail(self) -> str:
        logs = sorted((self.folder / "log").glob("*.log"), key=lambda log: log.stat().st_mtime)
        lines = [line for log in logs for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return "\n".join(lines[-LOG_TAIL:])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self.folder / "lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # ends with the process, however it ends
                yield
        except PermissionError as error:
            raise BrokerError(
                f"{error.filename or self.folder} belongs to another user: run as that user, or remove it"
            ) from error
