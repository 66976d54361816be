"""Three RabbitMQ nodes on this machine, one cluster. In: a folder. Out: addresses, and nodes to kill and to start.

Made of the private node's own files. What differs: all three share one port mapper and one cookie, and each is told of
the others. A node without data joins those that are there; one with data comes back to the cluster it was in.
"""

from __future__ import annotations

import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.broker import node_files, ports, processes
from pipeline.broker.address import LOOPBACK, Address, write_private
from pipeline.broker.installation import Installation
from pipeline.broker.ports import Ports
from tests.support.broker import TestVhost, manage

SIZE = 3
ALL = range(SIZE)
DEADLINE = 240.0  # seconds for nodes to start, or to see each other; about 15 are usual
POLL = 0.1  # seconds
STARTED = "Server startup complete"
LOG_TAIL = 2000  # characters of a node's own words, when it does not start


@dataclass
class Member:
    """One node of the cluster."""

    name: str  # as Erlang knows it
    folder: Path
    ports: Ports
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    @property
    def log(self) -> str:
        """What it has said."""
        file = self.folder / "log" / f"{self.name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def lives(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.poll() is None


@dataclass
class Cluster:
    """The nodes, by number."""

    folder: Path
    installation: Installation
    members: list[Member] = field(default_factory=list)
    mapper: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.login = node_files.new_login()
        cookie = secrets.token_hex(24)
        free = [ports.choose(None) for _ in ALL]
        for number, own in enumerate(free, 1):
            member = Member(f"pipeline-{number}@localhost", self.folder / str(number), replace(own, epmd=free[0].epmd))
            self.members.append(member)
        for member in self.members:
            (member.folder / "log").mkdir(parents=True)
            (member.folder / "server").symlink_to(self.installation.server.parents[1])
            node_files.write_files(member.folder, member.ports, self.login)
            with (member.folder / "rabbitmq.conf").open("a") as file:
                file.write(self._cluster_settings())
            write_private(member.folder / ".erlang.cookie", cookie)
            (member.folder / ".erlang.cookie").chmod(0o400)

    def _cluster_settings(self) -> str:
        names = "".join(
            f"cluster_formation.classic_config.nodes.{number} = {member.name}\n"
            for number, member in enumerate(self.members, 1)
        )
        # As in compose.yaml.
        return f"cluster_formation.peer_discovery_backend = classic_config\n{names}queue_leader_locator = balanced\n"

    # --- where it is ---------------------------------------------------------------------------------------------

    def address(self, numbers: Collection[int] = ALL) -> Address:
        """Where the cluster answers: at all nodes, or at these."""
        chosen = [self.members[number].ports for number in numbers]
        first = [self.login.at("amqp", chosen[0].amqp), self.login.at("http", chosen[0].management)]
        more = [[f",{LOOPBACK}:{each.amqp}", f",{LOOPBACK}:{each.management}"] for each in chosen[1:]]
        amqp, management = ("".join(parts) for parts in zip(first, *more, strict=True))
        return Address(f"{amqp}/%2F", management)

    def seen_from(self, vhost: TestVhost, number: int) -> TestVhost:
        """The same virtual host, by one node's own address."""
        one = self.address([number])
        return TestVhost(vhost.name, one.amqp_url.replace("/%2F", f"/{vhost.name}"), one.management_url)

    @property
    def alive(self) -> list[int]:
        """Numbers of the nodes that run."""
        return [number for number in ALL if self.members[number].lives]

    def ask(self, path: str, method: str = "GET", body: object = None) -> Any:
        """The management API's word, of the first node that runs."""
        return manage(self.address(self.alive[:1]).management_url, method, path, body)

    def number_of(self, name: str) -> int:
        """The number of the node that Erlang knows by this name."""
        return next(number for number in ALL if self.members[number].name == name)

    def new_vhost(self) -> TestVhost:
        """An empty virtual host; its addresses are those of all nodes."""
        name = f"t-{secrets.token_hex(6)}"
        self.ask(f"/api/vhosts/{name}", "PUT", {})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.ask(f"/api/permissions/{name}/{self.login.user}", "PUT", everything)
        address = self.address()
        return TestVhost(name, address.amqp_url.replace("/%2F", f"/{name}"), address.management_url)

    # --- its life ------------------------------------------------------------------------------------------------

    def start(self, numbers: Collection[int] = ALL) -> None:
        """Have these nodes running, and in one cluster with all others that run."""
        if self.mapper is None:
            epmd = str(self.installation.erlang_bin / "epmd")
            port = str(self.members[0].ports.epmd)
            # With the variables of no node, in no node's folder: it is to outlive each of them.
            self.mapper = subprocess.Popen(
                [epmd, "-port", port, "-address", LOOPBACK],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self._until(lambda: not ports.is_free(int(port)), "the port mapper")
        for number in numbers:
            if not self.members[number].lives:
                member = self.members[number]
                member.process = self._launch(member, ["server/sbin/rabbitmq-server"])
                member.starts += 1
        running = {self.members[number].name for number in self.alive}
        for number in self.alive:
            self._until(partial(self._sees, number, running), f"node {number}")

    def kill(self, number: int) -> None:
        """SIGKILL, as when the machine is gone; its helpers end with it."""
        member = self.members[number]
        assert member.process is not None
        member.process.kill()
        member.process.wait()
        processes.end(list(processes.find(member.name, member.folder)), signal.SIGKILL, DEADLINE)

    def close(self) -> None:
        """End everything: nobody needs its data."""
        for number in self.alive:
            self.kill(number)
        if self.mapper is not None:
            self.mapper.kill()
            self.mapper.wait()

    def _launch(self, member: Member, command: list[str]) -> subprocess.Popen[bytes]:
        env = node_files.environment(member.folder, member.name, member.ports, self.installation)
        with (member.folder / "log" / "output.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=env,
                cwd=member.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _sees(self, number: int, running: set[str]) -> bool:
        """Whether the node is up, and knows all of these to run."""
        member, address = self.members[number], self.address([number])
        assert member.lives, f"{member.name} ended:\n{self._words(member)}"
        # Its ports are open a little before: a virtual host made then would not be started on it.
        if member.log.count(STARTED) < member.starts:
            return False
        found = manage(address.management_url, "GET", "/api/nodes?columns=name,running")
        assert isinstance(found, list)
        return {each["name"] for each in found if each["running"]} >= running

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            words = "\n".join(self._words(member) for member in self.members)
            assert time.monotonic() < end, f"{what} is not there after {DEADLINE:.0f} s:\n{words}"
            time.sleep(POLL)

    @staticmethod
    def _words(member: Member) -> str:
        return "\n".join(log.read_text(errors="replace")[-LOG_TAIL:] for log in (member.folder / "log").glob("*.log"))
