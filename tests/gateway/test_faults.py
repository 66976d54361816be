"""What stands behind the gateway goes away, and comes back: what is answered meanwhile, and that nothing is lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx2
import pytest

from pipeline.broker.node import Node
from tests.gateway import shop
from tests.gateway.conftest import Shop
from tests.gateway.test_publishing import problem
from tests.support.broker import new_vhost, wait_until_registered
from tests.support.gateway import application_worker, environ_for, gateway, pipeline, wait_for
from tests.support.postgres import Database, Server

PATH = "/events/order.created"


@pytest.fixture
def own_node(private_node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A broker that may be killed."""
    node = Node(tmp_path_factory.mktemp("node"), private_node.installation)
    try:
        node.start()
        yield node
    finally:
        node.kill()
        node.stop()


def test_with_the_broker_away_events_are_accepted_and_go_out_when_it_is_back(own_node: Node, tmp_path: Path) -> None:
    shop.write(tmp_path)
    with new_vhost(own_node.start()) as vhost:
        environ = environ_for(tmp_path, vhost.amqp_url, vhost.management_url)
        pipeline(tmp_path, environ, "topology", "apply")
        wait_until_registered(own_node, vhost.name, ["billing", "billing.dlq"])
        with (
            gateway(tmp_path, environ, "--insecure") as running,
            running.client() as client,
            application_worker(tmp_path, environ),
        ):
            # given a worker at work, and a broker that was killed
            first = client.post(PATH, json={"number": 1}).json()["id"]
            wait_for(lambda: _state(client, first) == "processed", "the worker to be at work")
            own_node.kill()
            # when events come
            ids = [client.post(PATH, json={"number": n}).json()["id"] for n in range(1, 21)]
            # then the gateway takes them, is ready, and says what is away
            assert len(set(ids)) == 20
            wait_for(lambda: client.get("/readyz").json()["status"] == "degraded", "the loss to be seen")
            assert client.get("/readyz").status_code == 200
            assert client.get("/readyz").json()["dependencies"]["broker"] == "away"
            assert client.get(f"/events/{ids[0]}").json()["status"] == "accepted"
            # and when it is back, they go out and are processed
            own_node.start()
            wait_for(lambda: all(_state(client, each) == "processed" for each in ids), "all to be processed")


def test_with_the_database_away_nothing_is_accepted_and_then_again(
    application: Shop, postgres: Server, database: Database
) -> None:
    environ = application.environ | {"PIPELINE_PRODUCER_DATABASE_URL": database.url}
    with gateway(application.folder, environ, "--insecure") as running, running.client() as client:
        assert client.post(PATH, json={"number": 1}).status_code == 202
        # when the producer's database is gone
        postgres.crash()
        try:
            answer = client.post(PATH, json={"number": 2})
            # then the gateway says so, and is not to be sent requests
            problem(answer, 503, "database-away")
            assert int(answer.headers["retry-after"]) > 0
            wait_for(lambda: client.get("/readyz").status_code == 503, "the loss to be seen")
            assert client.get("/readyz").json()["dependencies"]["database"] == "away"
            assert client.get("/healthz").status_code == 200
        finally:
            postgres.start()
        # and it takes events again when it is back
        wait_for(lambda: client.post(PATH, json={"number": 3}).status_code == 202, "an event to be accepted again")
        wait_for(lambda: client.get("/readyz").status_code == 200, "it to be ready")


def test_a_full_outbox_is_said_and_nothing_more_taken(application: Shop, tmp_path: Path) -> None:
    # given a gateway that publishes nothing, and an outbox that may hold five
    environ = application.environ | {"PIPELINE_PRODUCER_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/producer.db"}
    options = ("--insecure", "--no-relay", "--max-waiting", "5")
    with gateway(application.folder, environ, *options) as running, running.client() as client:
        answers = [client.post(PATH, json={"number": n}) for n in range(1, 12)]
        assert [each.status_code for each in answers][:5] == [202] * 5
        problem(answers[-1], 503, "outbox-full")
        assert int(answers[-1].headers["retry-after"]) > 0


def test_told_to_end_it_answers_what_is_in_hand_and_says_it_drains(application: Shop) -> None:
    with gateway(application.folder, application.environ, "--insecure") as running, running.client() as client:
        body = b'{"number": 1}'
        lines = [f"POST {PATH} HTTP/1.1", "host: localhost", "content-type: application/json"]
        head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""])
        with socket.create_connection(("127.0.0.1", running.port), 30) as connection:
            # given a request that is half here
            connection.sendall(head.encode() + body[:5])
            wait_for(lambda: client.get("/readyz").status_code == 200, "it to be ready")
            codes: list[int] = []
            ending = threading.Thread(target=lambda: codes.append(running.terminate()))
            # when it is told to end
            ending.start()
            wait_for(lambda: running.said("draining"), "it to drain")
            answer = client.get("/readyz")
            assert (answer.status_code, answer.headers["connection"]) == (503, "close")
            connection.sendall(body[5:])
            # then the request is answered, and it ends well
            assert connection.recv(65536).startswith(b"HTTP/1.1 202")
        ending.join(30)
        assert codes == [0]


def test_told_to_end_it_ends_within_its_deadline_whoever_does_not(application: Shop) -> None:
    # given a broker that nobody reaches, an event that waits for it, and a request that never becomes whole
    environ = application.environ | {"PIPELINE_AMQP_URL": "amqp://a:b@127.0.0.1:9/x", "PIPELINE_DRAIN_DEADLINE": "6"}
    with gateway(application.folder, environ, "--insecure") as running, running.client() as client:
        assert client.post(PATH, json={"number": 1}).status_code == 202
        with socket.create_connection(("127.0.0.1", running.port), 30) as connection:
            lines = [f"POST {PATH} HTTP/1.1", "host: localhost", "content-type: application/json"]
            connection.sendall("\r\n".join([*lines, "content-length: 50", "", "{"]).encode())
            wait_for(lambda: client.get("/readyz").status_code == 200, "it to be ready")
            # when it is told to end, then it does, in order
            assert running.terminate() == 0
    told = {line["event"]: datetime.fromisoformat(line["timestamp"]) for line in running.lines()}
    late = 4  # seconds for a busy machine; each step with the whole deadline to itself would take longer
    assert (told["ended"] - told["draining"]).total_seconds() < 6 + late


def test_two_gateways_share_one_outbox(application: Shop, tmp_path: Path) -> None:
    environ = application.environ | {"PIPELINE_PRODUCER_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/producer.db"}
    with (
        gateway(application.folder, environ, "--insecure") as one,
        gateway(application.folder, environ, "--insecure") as two,
        one.client() as first,
        two.client() as second,
    ):
        headers = {"idempotency-key": "both"}
        answers = [client.post(PATH, json={"number": 1}, headers=headers) for client in (first, second)]
        assert [each.json()["status"] for each in answers] == ["accepted", "repeated"]
        event_id = answers[0].json()["id"]
        # and when the one whose relay is at work dies, the other publishes
        one.kill()
        later = second.post(PATH, json={"number": 2}).json()["id"]
        for each in (event_id, later):
            wait_for(lambda each=each: _published(second, each), "the event to be published")  # type: ignore[misc]


def _state(client: httpx2.Client, event_id: str) -> str:
    (found,) = client.get(f"/events/{event_id}").json()["subscriptions"]
    return str(found["state"])


def _published(client: httpx2.Client, event_id: str) -> bool:
    return bool(client.get(f"/events/{event_id}").json()["status"] == "published")
