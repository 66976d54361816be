"""`GET`: where an event is, what came of it, who works, and how the gateway is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import Shop
from tests.gateway.test_publishing import problem
from tests.support.gateway import application_worker, gateway, wait_for
from tests.support.redis import RedisServer


def at(client: httpx2.Client, event_id: str) -> dict[str, Any]:
    """Where the event is for `billing`."""
    view = client.get(f"/events/{event_id}").json()
    (found,) = view["subscriptions"]
    assert found["subscription"] == "billing"
    return dict(found)


def test_an_event_that_nobody_took_waits_and_has_no_result(client: httpx2.Client) -> None:
    event_id = client.post("/events/order.created", json={"number": 6}).json()["id"]
    assert at(client, event_id)["state"] == "waiting"
    problem(client.get(f"/subscriptions/billing/results/{event_id}"), 404, "no-result")


def test_a_worker_fills_the_cache_and_without_it_the_database_answers(
    application: Shop, key: str, redis_server: RedisServer
) -> None:
    # given a result in the cache, put there by the worker
    environ = application.environ | {"PIPELINE_CACHE_URL": redis_server.url}
    with gateway(application.folder, environ) as running, running.client(key) as client:
        event_id = client.post("/events/order.created", json={"number": 42}).json()["id"]
        with application_worker(application.folder, environ):
            wait_for(lambda: at(client, event_id)["state"] == "processed", "the event to be processed")
        found = client.get(f"/subscriptions/billing/results/{event_id}")
        assert (found.headers["x-cache"], found.json()) == ("hit", {"billed": 42})
        # when the cache is gone, it comes from the database
        redis_server.kill()
        found = client.get(f"/subscriptions/billing/results/{event_id}")
        assert (found.headers["x-cache"], found.json()) == ("bypass", {"billed": 42})
        wait_for(lambda: client.get("/readyz").json()["status"] == "degraded", "the loss to be seen")
        assert client.get("/readyz").status_code == 200


@pytest.fixture(scope="module")
def worker(application: Shop) -> Iterator[None]:
    """A worker for the tests from here on."""
    with application_worker(application.folder, application.environ):
        yield


@pytest.mark.usefixtures("worker")
def test_an_event_says_where_it_is(client: httpx2.Client) -> None:
    # given events that a worker has taken, one that it rejected, one that failed
    ids = [
        client.post("/events/order.created", json={"number": 5, "note": note}).json()["id"]
        for note in ("", "reject", "fail")
    ]
    wait_for(lambda: [at(client, each)["state"] for each in ids] == ["processed", "dead", "retrying"], "the states")
    processed, dead, retrying = (at(client, each) for each in ids)
    # then one leads to its result, and the others say why
    assert processed["result"] == f"/subscriptions/billing/results/{ids[0]}"
    assert (dead["reason"], dead["attempt"], dead["result"]) == ("rejected", 1, None)
    assert "nobody may buy this" in dead["error"]
    assert retrying["attempt"] == 1
    assert retrying["next_at"] is not None


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("event_id", ["odd/b", "..", " ?#%2F", "é/", "x/results/y", '"\\'])
def test_an_id_may_be_odd_and_is_followed_all_the_same(client: httpx2.Client, event_id: str) -> None:
    event = {"specversion": "1.0", "id": event_id, "source": "/t", "type": "order.created", "data": {"number": 3}}
    headers = {"content-type": "application/cloudevents+json"}
    answer = client.post("/events", content=json.dumps(event), headers=headers)
    assert answer.status_code == 202
    place = answer.headers["location"]
    assert client.get(place).json()["id"] == event_id

    results: list[str] = []

    def processed() -> bool:
        (found,) = client.get(place).json()["subscriptions"]
        results.append(found["result"])
        return bool(found["state"] == "processed")

    wait_for(processed, "the event to be processed")
    assert client.get(results[-1]).json() == {"billed": 3}


@pytest.mark.usefixtures("worker")
def test_a_result_is_served_and_then_from_the_cache(client: httpx2.Client) -> None:
    event_id = client.post("/events/order.created", json={"number": 41}).json()["id"]
    wait_for(lambda: at(client, event_id)["state"] == "processed", "the event to be processed")
    first, second = (client.get(f"/subscriptions/billing/results/{event_id}") for _ in range(2))
    assert first.json() == second.json() == {"billed": 41}
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
    assert int(second.headers["age"]) >= 0
    # and who has it already is told so
    again = client.get(second.url, headers={"if-none-match": second.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/events/none", "/events/..%2f..%2fx", "/events/%00", "/events/" + "x" * 300])
def test_an_event_that_is_none_is_not_found(client: httpx2.Client, path: str) -> None:
    problem(client.get(path), 404, "unknown-event")


def test_a_subscription_that_is_none_is_not_found(client: httpx2.Client) -> None:
    problem(client.get("/subscriptions/nobody/results/x"), 404, "unknown-subscription")


@pytest.mark.usefixtures("worker")
def test_workers_and_subscriptions_are_listed(client: httpx2.Client) -> None:
    def live() -> list[dict[str, Any]]:
        return [each for each in client.get("/consumers").json() if each["state"] == "live"]

    wait_for(lambda: bool(live()), "the worker to tell of itself and to consume")
    (worker,) = live()
    assert [each["subscription"] for each in worker["serves"]] == ["billing"]
    assert {"id", "name", "host", "process", "version", "started", "last_seen"} <= worker.keys()
    listed = client.get("/subscriptions").json()
    assert listed == [{"id": "billing", "consumer": worker["id"], "event_type": "order.created"}]


def test_head_is_get_without_a_body(client: httpx2.Client) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json", "/subscriptions", "/events/none"):
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (get.status_code, b"")


def test_health_tells_dependencies_by_name_and_nothing_else(client: httpx2.Client) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200
    found = answer.json()
    assert found["status"] == "ready"
    assert {"database", "broker", "database:billing"} <= found["dependencies"].keys()
    assert set(found["dependencies"].values()) == {"ok"}


def test_the_document_has_a_model_for_each_event_type(client: httpx2.Client) -> None:
    found = client.get("/openapi.json").json()
    body = found["paths"]["/events/order.created"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/order.created"}
    assert found["components"]["schemas"]["order.created"]["properties"]["number"]["exclusiveMinimum"] == 0
