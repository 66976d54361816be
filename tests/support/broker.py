"""A real RabbitMQ for tests. In: `PIPELINE_TEST_AMQP_URL`, or a private node started for the session.
Out: a virtual host of its own for each test, so that tests never see each other's queues.

The node is not the developer's own: its folder is a temporary one, and it ends with the session.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import pytest

from pipeline.broker import docker
from pipeline.broker.address import Address
from pipeline.broker.installation import find
from pipeline.broker.locate import programs
from pipeline.broker.node import Node
from pipeline.settings import load_settings

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class TestVhost:
    """One test's virtual host; the URLs hold user and password."""

    __test__ = False  # the name is no test class for pytest

    name: str
    amqp_url: str
    management_url: str


class HasFolder(Protocol):
    """A node, by itself or of a cluster."""

    folder: Path


@pytest.fixture(scope="session")
def private_node() -> Iterator[Node]:
    """A private node of the test session, running. Tests that stop or kill it start it again."""
    installation = programs(PROJECT / ".pipeline", print)
    folder = Path(tempfile.mkdtemp(prefix="pipeline-test-"))
    node = Node(folder, installation)
    try:
        node.start()
        yield node
    finally:
        node.kill()  # its data is thrown away: no reason to wait for an orderly shutdown
        node.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def container() -> Iterator[Address]:
    """RabbitMQ in Docker for the test session, where no private node can be had."""
    folder = Path(tempfile.mkdtemp(prefix="pipeline-test-"))
    try:
        yield docker.start(folder, PROJECT / "compose.yaml")
    finally:
        docker.remove(folder)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def broker_node(request: pytest.FixtureRequest) -> Address:
    """Address of the broker the tests use; never a skip: without one, every test that needs it fails."""
    if url := os.environ.get("PIPELINE_TEST_AMQP_URL"):
        environ = {"PIPELINE_AMQP_URL": url}
        if management := os.environ.get("PIPELINE_TEST_MANAGEMENT_URL"):
            environ["PIPELINE_MANAGEMENT_URL"] = management
        settings = load_settings(environ)
        return Address(settings.amqp_url, settings.management_url)
    if find(PROJECT / ".pipeline" / "packages") is None and shutil.which("apt-get") is None:
        address: Address = request.getfixturevalue("container")
        return address
    node: Node = request.getfixturevalue("private_node")
    return node.start()


@pytest.fixture
def vhost(broker_node: Address) -> Iterator[TestVhost]:
    """An empty virtual host for one test, deleted with everything in it afterwards."""
    with new_vhost(broker_node) as vhost:
        yield vhost


@contextmanager
def new_vhost(broker_node: Address) -> Iterator[TestVhost]:
    """An empty virtual host on that broker, for the block."""
    name = f"t-{secrets.token_hex(6)}"
    manage(broker_node.management_url, "PUT", f"/api/vhosts/{name}", {})
    user = quote(unquote(urlsplit(broker_node.management_url).username or ""), safe="")
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    manage(broker_node.management_url, "PUT", f"/api/permissions/{name}/{user}", everything)
    amqp_url = urlunsplit(urlsplit(broker_node.amqp_url)._replace(path=f"/{name}"))
    try:
        yield TestVhost(name, amqp_url, broker_node.management_url)
    finally:
        manage(broker_node.management_url, "DELETE", f"/api/vhosts/{name}")


def wait_until_registered(node: HasFolder, vhost: str, queues: Iterable[str], deadline: float = 60) -> None:
    """Wait until the node may be killed without forgetting these quorum queues.

    RabbitMQ writes a new queue's name into its register (`names.dets`) only once a second. Killed before that, it
    comes back with an empty queue of the same name that has no leader, whatever it confirmed: no test of ours can
    ask more of it (seen with 3.10.8; rabbitmq-server issue 15725 tells the same of newer ones).
    """
    (register,) = node.folder.glob("data/*/quorum/*/names.dets")
    names = [f"{quote(vhost, safe='')}_{queue}".encode() for queue in queues]
    until = time.monotonic() + deadline
    while not all(name in register.read_bytes() for name in names):
        if time.monotonic() > until:
            raise TimeoutError(f"{register} does not name all of {names}")
        time.sleep(0.02)


def manage(management_url: str, method: str, path: str, body: object = None) -> object:
    """One call of the management API; its JSON answer, None when the answer is empty.

    Raises: urllib.error.HTTPError when the broker refuses.
    """
    parts = urlsplit(management_url)
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
    headers = {
        "Authorization": f"Basic {base64.b64encode(login).decode()}",
        "Content-Type": "application/json",
    }
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", ""))
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(bare, data=data, method=method, headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            text = response.read()
    except HTTPError as error:
        error.close()  # or it complains, from Python 3.14 on, when it is forgotten
        raise
    return json.loads(text) if text else None
