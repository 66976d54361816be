"""`POST /events/{type}`: what is taken, what is refused, and with which words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import Shop
from tests.support.gateway import Gateway, wait_for

PROBLEM = "application/problem+json"
CLOUDEVENT = {"specversion": "1.0", "id": "e-1", "source": "/test", "type": "order.created", "data": {"number": 1}}
STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The problem it answered."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    found: dict[str, Any] = answer.json()
    assert (found["status"], found["type"]) == (status, f"urn:pipeline:problem:{code}")
    return found


def post(client: httpx2.Client, data: Any, **named: Any) -> httpx2.Response:
    return client.post("/events/order.created", json=data, **named)


def test_an_event_is_accepted_and_published(client: httpx2.Client, application: Shop) -> None:
    # when an event is posted
    answer = post(client, {"number": 7})
    # then it is accepted, and says where it can be followed
    assert answer.status_code == 202
    found = answer.json()
    assert found["status"] == "accepted"
    assert answer.headers["location"] == f"/events/{found['id']}"

    # and the relay publishes it
    def published() -> bool:
        view = client.get(answer.headers["location"]).json()
        return bool(view["status"] == "published")

    wait_for(published, "the event to be published")
    view = client.get(answer.headers["location"]).json()
    assert (view["id"], view["type"], view["source"]) == (found["id"], "order.created", "gateway")
    assert [each["subscription"] for each in view["subscriptions"]] == ["billing"]


@pytest.mark.parametrize("given", ["one", "x" * 255, "!~"])
def test_the_same_idempotency_key_is_the_same_event(client: httpx2.Client, given: str) -> None:
    first, second = (post(client, {"number": 1}, headers={"idempotency-key": given}) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    assert (first.json()["status"], second.json()["status"]) == ("accepted", "repeated")
    # and with other data it is a conflict, not an event that is silently dropped
    problem(post(client, {"number": 2}, headers={"idempotency-key": given}), 409, "conflict")


def test_the_key_of_another_caller_is_another_event(door: Gateway, application: Shop, client: httpx2.Client) -> None:
    with door.client(application.key("publish:*")) as other:
        ids = {
            post(each, {"number": 1}, headers={"idempotency-key": "shared"}).json()["id"] for each in (client, other)
        }
    assert len(ids) == 2


@pytest.mark.parametrize("given", ["", "a b", "x" * 256, "é"])
def test_an_idempotency_key_that_can_not_be_one_is_refused(client: httpx2.Client, given: str) -> None:
    answer = post(client, {"number": 1}, headers={b"idempotency-key": given.encode()})
    problem(answer, 400, "idempotency-key")


def test_a_cloudevent_in_each_mode_is_one_event(client: httpx2.Client) -> None:
    binary = {"ce-specversion": "1.0", "ce-id": "e-1", "ce-source": "/test", "ce-type": "order.created"}
    answers = [
        client.post("/events/order.created", json=CLOUDEVENT, headers=STRUCTURED),
        client.post("/events/order.created", json={"number": 1}, headers=binary),
        client.post("/events", json=[CLOUDEVENT], headers=BATCH),
        client.post("/events", json=CLOUDEVENT, headers=STRUCTURED),
    ]
    assert [each.status_code for each in answers] == [202] * 4
    assert [each.json().get("status") for each in answers[:2]] == ["accepted", "repeated"]
    assert answers[2].json() == {"accepted": 0, "repeated": 1, "ids": ["e-1"]}


def test_a_batch_is_taken_as_a_whole_or_not_at_all(client: httpx2.Client) -> None:
    events = [CLOUDEVENT | {"id": f"b-{n}", "data": {"number": n}} for n in range(1, 4)]
    events[1]["data"] = {"number": "many"}
    found = problem(client.post("/events", json=events, headers=BATCH), 400, "invalid-event")
    assert [(each["index"], each["path"]) for each in found["errors"]] == [(1, "number")]
    assert client.get("/events/b-1").status_code == 404
    events[1]["data"] = {"number": 2}
    assert client.post("/events", json=events, headers=BATCH).json()["ids"] == ["b-1", "b-2", "b-3"]


def test_lines_are_the_data_of_one_event_each(client: httpx2.Client) -> None:
    body = b'{"number": 1}\n\n{"number": 2}\n'
    answer = client.post("/events/order.created", content=body, headers={"content-type": "application/x-ndjson"})
    assert answer.json()["accepted"] == 2


def test_a_body_that_does_not_fit_names_the_paths(client: httpx2.Client) -> None:
    found = problem(post(client, {"number": -1, "note": ["secret-value"]}), 400, "invalid-event")
    assert {each["path"] for each in found["errors"]} == {"number", "note"}
    # and never tells what stood there
    assert "secret-value" not in json.dumps(found)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe{\x00}\x00",
        b'{"number": NaN}',
        b'{"number": 1e400}',
        b'{"number": 1}{"number": 2}',
        b"[" * 9000,
        b'{"a":' * 3000 + b"1" + b"}" * 3000,
        b'{"number": 1, "note": "\\ud800"}',
        b'{"number": ' + b"9" * 10000 + b"}",
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "application/cloudevents+json"])
def test_what_is_no_json_or_no_order_is_refused(client: httpx2.Client, body: bytes, kind: str) -> None:
    answer = client.post("/events/order.created", content=body, headers={"content-type": kind})
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == PROBLEM


def test_an_unknown_type_is_not_found_with_a_hint(client: httpx2.Client) -> None:
    found = problem(client.post("/events/order.creatd", json={}), 404, "unknown-event-type")
    assert "order.created" in found["detail"]


@pytest.mark.parametrize(
    "path", ["/events/..%2f..%2fetc", "/events/%00", "/events/a%0d%0ab", "/events/%F0%9F%90%87", "/events/'; drop"]
)
def test_odd_types_are_unknown_and_do_no_harm(client: httpx2.Client, path: str) -> None:
    answer = client.post(path, json={})
    assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)


@pytest.mark.parametrize("event_id", ["a\r\nb", "\x00", "x" * 256, "é" * 200, "\ud83d", "", 7, None, ["a"]])
def test_an_id_that_can_not_travel_is_refused(client: httpx2.Client, event_id: Any) -> None:
    answer = client.post("/events/order.created", content=json.dumps(CLOUDEVENT | {"id": event_id}), headers=STRUCTURED)
    found = problem(answer, 400, "undecodable-body" if event_id == "\ud83d" else "invalid-event")
    assert event_id == "\ud83d" or [each["path"] for each in found["errors"]] == ["id"]


@pytest.mark.parametrize(
    "event_id", ["'; DROP TABLE pipeline_event; --", "../../etc/passwd", "ünï%2f", "a/b", "x" * 255]
)
def test_an_id_may_be_any_other_text(client: httpx2.Client, event_id: str) -> None:
    answer = client.post("/events/order.created", json=CLOUDEVENT | {"id": event_id}, headers=STRUCTURED)
    assert answer.status_code == 202
    assert client.get(answer.headers["location"]).json()["id"] == event_id


def test_a_type_must_be_the_one_of_the_address(client: httpx2.Client) -> None:
    answer = client.post("/events/note.taken", json=CLOUDEVENT, headers=STRUCTURED)
    assert [each["path"] for each in problem(answer, 400, "invalid-event")["errors"]] == ["type"]


@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/plain"}, {"content-type": ""}, {"content-type": "application/json; charset=utf-16"}],
)
def test_another_media_type_is_refused(client: httpx2.Client, headers: dict[str, str]) -> None:
    answer = client.post("/events/order.created", content=b'{"number": 1}', headers=headers)
    problem(answer, 415, "media-type")
    assert "application/json" in answer.headers["accept-post"]


def test_a_compressed_body_is_refused(client: httpx2.Client) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    problem(client.post("/events/order.created", content=b"x", headers=headers), 415, "coding")


def test_a_body_over_the_limit_is_refused_declared_or_not(client: httpx2.Client, door: Gateway, key: str) -> None:
    problem(post(client, {"number": 1, "note": "x" * 20_000}), 413, "too-large")

    def pieces() -> Iterator[bytes]:
        for _ in range(30):
            yield b"x" * 1000

    chunked = client.post("/events/order.created", content=pieces(), headers={"content-type": "application/json"})
    problem(chunked, 413, "too-large")
    # nor is a length that can't be one believed
    head = f"POST /events/order.created HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n"
    answer = door.raw(f"{head}content-length: 999999999999999999\r\n\r\n".encode())
    assert b" 413 " in answer.splitlines()[0]


def test_more_events_than_a_batch_may_have_are_refused(client: httpx2.Client) -> None:
    events = [CLOUDEVENT | {"id": f"m-{n}"} for n in range(51)]
    problem(client.post("/events", json=events, headers=BATCH), 413, "too-many")
    problem(client.post("/events", json=[], headers=BATCH), 400, "invalid-event")


def test_an_address_or_method_that_is_none_is_a_problem_too(client: httpx2.Client) -> None:
    problem(client.get("/nothing"), 404, "not-found")
    for path, allowed in (("/events/order.created", "GET, HEAD, POST"), ("/events", "POST"), ("/healthz", "GET")):
        answer = client.request("DELETE", path)
        problem(answer, 405, "method")
        assert answer.headers["allow"] == allowed


def test_garbage_instead_of_http_ends_the_connection(door: Gateway) -> None:
    assert door.raw(b"\x16\x03\x01\x02\x00\x01\x00 garbage\r\n\r\n").startswith(b"HTTP/1.1 400")
    endless = b"GET / HTTP/1.1\r\n" + b"x-more: " + b"y" * 200_000
    answer = door.raw(endless)  # it does not read on, so its answer may be lost in the reset
    assert not answer or answer.startswith(b"HTTP/1.1 400")
