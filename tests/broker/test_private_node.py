"""The private node: it starts, survives, stops, and leaves everybody else alone.

One node is shared by the whole file, in the order of the file: a start takes seconds.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError

import aio_pika
import psutil
import pytest
from aiormq.exceptions import AMQPError
from typer.testing import CliRunner

from pipeline.broker import probe
from pipeline.broker.locate import programs
from pipeline.broker.node import Node
from pipeline.cli.broker import app
from pipeline.settings import load_settings
from tests.support.broker import PROJECT, manage, wait_until_registered

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node of this file's own, running at first."""
    node = Node(tmp_path_factory.mktemp("state"), programs(PROJECT / ".pipeline", print))
    try:
        node.start()
        yield node
    finally:
        node.kill()
        node.stop()


async def test_it_accepts_amqp_and_its_address_is_found_without_configuration(node: Node) -> None:
    # given a program that knows only the state folder
    settings = load_settings({"PIPELINE_STATE_DIR": str(node.folder.parent)})

    # when it connects
    async with await aio_pika.connect(settings.amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("survivor", durable=True, arguments={"x-queue-type": "quorum"})
        confirmation = await channel.default_exchange.publish(
            aio_pika.Message(b"still here", delivery_mode=2), queue.name
        )

    # then the broker does its work, and management answers for the same node
    assert confirmation is not None
    said = probe.overview(settings.management_url)
    assert said is not None
    assert said["node"] == node.known_address().nodename


async def test_nobody_enters_with_the_default_login(node: Node) -> None:
    address = node.known_address()

    # when guest / guest is tried on AMQP and on the management API
    guest_amqp = "amqp://guest:guest@" + address.amqp_url.partition("@")[2]
    with pytest.raises(AMQPError, match="ACCESS_REFUSED"):
        await aio_pika.connect(guest_amqp)
    with pytest.raises(HTTPError, match="401"):
        manage("http://guest:guest@" + address.management_url.partition("@")[2], "GET", "/api/whoami")

    # then nobody is in, because there is one user only, and the login is for its owner's eyes
    users = manage(address.management_url, "GET", "/api/users")
    assert isinstance(users, list)
    assert [user["name"] for user in users] == ["pipeline"]
    for name in ("node.json", "rabbitmq.conf", "definitions.json", ".erlang.cookie"):
        assert (node.folder / name).stat().st_mode & 0o077 == 0, name


def test_it_listens_on_the_loopback_interface_only(node: Node) -> None:
    ports = json.loads((node.folder / "node.json").read_text())["ports"]

    # when the machine is asked who listens on the node's ports
    listeners = [
        (one.laddr.ip, one.laddr.port)
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port in ports.values()
    ]

    # then all five are there, and none on another interface
    assert {port for _, port in listeners} == set(ports.values())
    assert {ip for ip, _ in listeners} <= LOOPBACK


def test_starting_it_again_changes_nothing(node: Node) -> None:
    before = node.known_address()
    since = time.monotonic()

    # when it is started while it runs
    again = node.start()

    # then it is the same process at the same place, at once
    assert again == before
    assert time.monotonic() - since < 2


def test_the_cli_says_where_it_is_but_not_the_password(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_STATE_DIR", str(node.folder.parent))
    address = node.known_address()
    password = address.amqp_url.split(":")[2].partition("@")[0]
    run = CliRunner()

    # when it is asked
    status = run.invoke(app, ["status"])
    as_json = run.invoke(app, ["status", "--json"])
    env = run.invoke(app, ["env"])

    # then the plain answer is fit for a screen that others see, and the others for programs
    assert status.exit_code == 0
    assert "running" in status.output
    assert address.amqp_url.partition("@")[2] in status.output
    assert address.management_url.partition("@")[2] in status.output
    assert password not in status.output
    assert json.loads(as_json.output)["address"]["amqp_url"] == address.amqp_url
    assert f"export PIPELINE_AMQP_URL={address.amqp_url}" in env.output


async def test_killed_and_started_twice_at_once_it_is_one_node_with_its_messages(node: Node) -> None:
    before = node.known_address()

    # given a node that crashed
    wait_until_registered(node, "/", ["survivor"])
    node.kill()
    assert not node.status().running

    # when two programs start it at the same moment
    twins = [Node(node.folder.parent, node.installation) for _ in range(2)]
    with ThreadPoolExecutor() as pool:
        addresses = list(pool.map(Node.start, twins))

    # then there is one new node, where the old one was
    assert addresses[0] == addresses[1]
    assert replace(addresses[0], pid=before.pid) == before
    assert processes_of(node) == {"beam.smp": 1, "epmd": 1}

    # and it has kept what it confirmed
    async with await aio_pika.connect(before.amqp_url) as connection:
        channel = await connection.channel()
        message = await (await channel.get_queue("survivor")).get()
        assert message.body == b"still here"
        await message.ack()


def test_stopped_it_leaves_no_process_and_no_listener(node: Node) -> None:
    address = node.known_address()

    # when it is stopped, twice
    first, second = node.stop(), node.stop()

    # then it is gone, its port mapper too
    assert (first, second) == (True, False)
    assert processes_of(node) == {}
    assert not probe.accepts_amqp(address.amqp_url)
    assert node.status().word == "stopped"


def test_with_its_address_file_lost_it_starts_with_its_data(node: Node) -> None:
    before = node.known_address()
    (node.folder / "node.json").unlink()

    # when it is started
    after = node.start()

    # then it has a new login, and the old data
    assert after.nodename == before.nodename
    assert after.amqp_url != before.amqp_url
    names = manage(after.management_url, "GET", "/api/queues/%2F?columns=name")
    assert names == [{"name": "survivor"}]


def test_a_process_that_took_a_dead_nodes_id_is_left_alone(tmp_path: Path) -> None:
    # given a record of a node that is gone, whose process id now belongs to a bystander,
    # which even carries the node's name: say, a node of a copied folder
    nodename = "pipeline-0badcafe@localhost"
    (tmp_path / "broker" / "data" / nodename).mkdir(parents=True)
    bystander = subprocess.Popen(
        ["/bin/sleep", "60"], env={"RABBITMQ_NODENAME": nodename, "ERL_EPMD_PORT": "4369"}, cwd=tmp_path
    )
    try:
        record = {"amqp_url": "amqp://u:p@127.0.0.1:1/", "nodename": nodename, "pid": bystander.pid}
        (tmp_path / "broker" / "node.json").write_text(json.dumps(record))
        node = Node(tmp_path)

        # when the node is looked at, killed and stopped
        status = node.status()
        node.kill()
        stopped = node.stop()

        # then it counts as stopped, and the bystander lives
        assert not status.running
        assert not stopped
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def processes_of(node: Node) -> dict[str, int]:
    """What runs for the node, found by other means than the node's own: program name → how many."""
    found: dict[str, int] = {}
    folder = str(node.folder)
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == folder and process.status() != psutil.STATUS_ZOMBIE:
                found[process.name()] = found.get(process.name(), 0) + 1
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return {name: count for name, count in found.items() if name in ("beam.smp", "epmd")}
